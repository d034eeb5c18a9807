package pin

import (
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"
)

// fileFields are the names of the fields at the top.
func fileFields() []string { return []string{"version", "pins"} }

// pinFields are the names of a pin's fields, in the order in which a new pin has them.
func pinFields() []string { return []string{"digest", "mediaType", "size", "platforms", "comment"} }

// record is a pin as it stands in a text.
type record struct {
	Pin
	entry
	// fields are those that are there, in file order.
	fields []entry
	// platforms are the children of the field of that name, in file order.
	platforms []entry
}

// field returns the field of that name, or nil.
func (r *record) field(name string) *entry {
	i := slices.IndexFunc(r.fields, func(e entry) bool { return e.key == name })
	if i < 0 {
		return nil
	}
	return &r.fields[i]
}

// document is what a text says.
type document struct {
	*text
	// pins is the root's field of that name.
	pins    entry
	records []record
	// byKey has the index in records for each reference.
	byKey map[string]int
}

func parse(name string, data []byte) (*document, error) {
	t, err := newText(name, data)
	if err != nil {
		return nil, err
	}
	d := &document{text: t, byKey: make(map[string]int)}
	if err := d.readFields(); err != nil {
		return nil, err
	}
	return d, d.readPins()
}

// readFields looks at the version before it judges anything else: another version may have other fields.
func (d *document) readFields() error {
	root, err := d.root()
	if err != nil {
		return err
	}
	s := scope{noun: "field", in: " at the top"}
	fields, err := d.mapping(root, s)
	if err != nil {
		return err
	}
	if err := d.checkVersion(fields, s); err != nil {
		return err
	}
	s.known = fileFields()
	for _, e := range fields {
		if err := d.checkKnown(e, s); err != nil {
			return err
		}
	}
	i := slices.IndexFunc(fields, func(e entry) bool { return e.key == "pins" })
	if i < 0 {
		return d.fault(fields[0].line, `there are no pins: write "pins:" on a line of its own`)
	}
	d.pins = fields[i]
	return nil
}

func (d *document) checkVersion(fields []entry, s scope) error {
	for _, e := range fields {
		if e.key != "version" {
			continue
		}
		version, err := d.scalar(&e, s)
		if err == nil && version != "1" {
			err = d.fault(e.line, "version %.40q is not known here, only 1 is: use the berth that wrote it, or a newer one", version)
		}
		return err
	}
	return d.fault(0, `there is no version: write "version: 1" on a line of its own`)
}

func (d *document) readPins() error {
	entries, err := d.children(&d.pins, scope{noun: "pin"})
	if err != nil {
		return err
	}
	for _, e := range entries {
		r, err := d.readPin(e)
		if err != nil {
			return err
		}
		d.byKey[r.Reference] = len(d.records)
		d.records = append(d.records, r)
	}
	return nil
}

func (d *document) readPin(e entry) (record, error) {
	r := record{Pin: Pin{Reference: e.key}, entry: e}
	full, err := Normalize(e.key)
	if err != nil {
		return r, d.fault(e.line, "%v", err)
	}
	if full != e.key {
		return r, d.fault(e.line, "pin %.300q is not in full form: write %q", e.key, full)
	}
	s := scope{noun: "field", in: ` in pin "` + e.key + `"`, known: pinFields()}
	if r.fields, err = d.children(&r.entry, s); err != nil {
		return r, err
	}
	for i := range r.fields {
		field := &r.fields[i]
		if err := d.readField(&r, field, s); err != nil {
			return r, d.located(err, field.line, r.Reference)
		}
		r.last = max(r.last, field.last)
	}
	return r, d.checkComplete(&r)
}

// readField sets the field of r that e is, and where e ends.
func (d *document) readField(r *record, e *entry, s scope) error {
	if e.key == "platforms" {
		return d.readPlatforms(r, e, s)
	}
	read := d.scalar
	if e.key == "comment" {
		read = d.prose
	}
	value, err := read(e, s)
	if err != nil {
		return err
	}
	switch e.key {
	case "digest":
		r.Digest, err = digest.Digest(value), checkDigest(value)
	case "mediaType":
		r.MediaType, err = value, checkMediaType(value)
	case "size":
		r.Size, err = parseSize(value)
	case "comment":
		r.Comment = value
	}
	return err
}

func (d *document) readPlatforms(r *record, e *entry, s scope) error {
	s = scope{noun: "platform", in: s.in}
	var err error
	if r.platforms, err = d.children(e, s); err != nil || len(r.platforms) == 0 {
		return err
	}
	r.Platforms = make(map[string]digest.Digest, len(r.platforms))
	for i := range r.platforms {
		child := &r.platforms[i]
		value, err := d.scalar(child, s)
		if err == nil {
			err = firstError(checkPlatform(child.key), checkDigest(value))
		}
		if err != nil {
			return d.located(err, child.line, r.Reference)
		}
		r.Platforms[child.key] = digest.Digest(value)
		e.last = child.last
	}
	return nil
}

// checkComplete runs when all fields are read, for they may come in any order.
func (d *document) checkComplete(r *record) error {
	for _, name := range []string{"digest", "mediaType", "size"} {
		if r.field(name) == nil {
			return d.fault(r.line, `pin %q has no %s: add it, or remove the pin and run "berth pin add %s"`, r.Reference, name, r.Reference)
		}
	}
	if err := r.checkKind(); err != nil {
		return d.located(err, r.field("platforms").line, r.Reference)
	}
	return nil
}

// located makes err a fault in that line, unless it is one already.
func (d *document) located(err error, line int, reference string) error {
	if _, ok := errors.AsType[*fault](err); ok {
		return err
	}
	return d.fault(line, "pin %q: %v", reference, err)
}
