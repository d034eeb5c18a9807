package schema1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// object is a JSON object. Unlike a struct, it tells keys of different case apart.
type object map[string]json.RawMessage

// field says where the member of that name goes.
type field struct {
	name string
	into any
}

// readObject reads members of a JSON object that has passed manifest.CheckJSON. A missing one is left
// as it is, others are ignored, but for those that only case tells from a field.
func readObject(raw []byte, fields ...field) error {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return errors.New(describe(err))
	}
	if o == nil {
		return errors.New("it cannot be a JSON null")
	}
	for _, f := range fields {
		if err := o.read(f); err != nil {
			return err
		}
	}
	return nil
}

func (o object) read(f field) error {
	for key := range o {
		if key != f.name && strings.EqualFold(key, f.name) {
			return fmt.Errorf("it has the key %q, which is %q to some", key, f.name)
		}
	}
	raw, ok := o[f.name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, f.into); err != nil {
		return fmt.Errorf("%s: %s", f.name, describe(err))
	}
	return nil
}

// only returns an error if the object has a member that is not listed.
func only(raw []byte, names ...string) error {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return errors.New(describe(err))
	}
	for _, name := range names {
		delete(o, name)
	}
	for key := range o {
		return fmt.Errorf("it has a member %.40q, which is not known", key)
	}
	return nil
}

// set encodes a member, with strings as they are: none of this is put into HTML.
func (o object) set(name string, value any) error {
	raw, err := encode(value)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	o[name] = raw
	return nil
}

// encode is json.Marshal without its escapes for HTML.
func encode(value any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}
