package pin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/berthoci/berth/internal/durable"
)

// empty is what a lock file begins with.
const empty = "version: 1\npins:\n"

// File is a lock file in memory. It is not safe for concurrent use.
type File struct {
	doc *document
	// saved is what lies on disk, as far as is known; nil if there is no file.
	saved []byte
}

// Load reads a lock file. One that does not exist is an empty one, which Save creates.
//
// Errors: ErrInvalid.
func Load(path string) (*File, error) {
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err := Parse(path, []byte(empty))
		if err == nil {
			f.saved = nil
		}
		return f, err
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, MaxSize+1))
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Parse reads a lock file's bytes. The name is for messages, and for Save, which takes the bytes to
// be what that file has.
//
// Errors: ErrInvalid.
func Parse(name string, data []byte) (*File, error) {
	doc, err := parse(name, append([]byte{}, data...))
	if err != nil {
		return nil, err
	}
	return &File{doc: doc, saved: doc.data}, nil
}

// Pins returns all pins in file order.
func (f *File) Pins() []Pin {
	pins := make([]Pin, len(f.doc.records))
	for i, r := range f.doc.records {
		pins[i] = r.Pin.clone()
	}
	return pins
}

// Pin returns the pin of a reference, which need not be normalised.
func (f *File) Pin(reference string) (Pin, bool) {
	key, err := Normalize(reference)
	if err != nil {
		return Pin{}, false
	}
	i, ok := f.doc.byKey[key]
	if !ok {
		return Pin{}, false
	}
	return f.doc.records[i].Pin.clone(), true
}

// Set adds a pin, or overwrites the one of the same reference, which need not be normalised. An
// empty Comment keeps the old one. Setting what is there changes no byte.
//
// Errors: those of Normalize; ErrInvalid for what the file may not say. The file is then unchanged.
func (f *File) Set(p Pin) error { return f.set([]Pin{p}) }

// set makes all changes at once, or none; reading the file anew costs the same for one as for many.
func (f *File) set(pins []Pin) error {
	wanted := make(map[string]Pin, len(pins))
	for _, p := range pins {
		key, err := Normalize(p.Reference)
		if err != nil {
			return err
		}
		if err := p.validate(); err != nil {
			return fmt.Errorf("pin %q: %w", key, err)
		}
		p.Reference = key
		wanted[key] = p
	}
	edits := f.doc.plan(wanted)
	if len(edits) == 0 {
		return nil
	}
	doc, err := parse(f.doc.name, f.doc.apply(edits))
	if err != nil {
		return fmt.Errorf("%s: after the edit it would not be valid any more, edit it by hand: %w", f.doc.name, err)
	}
	if !f.doc.becomes(doc, wanted) {
		return fmt.Errorf("%s: it is of a form that cannot be edited in place: edit it by hand", f.doc.name)
	}
	f.doc = doc
	return nil
}

// becomes reports whether after is d with the wanted pins set, and nothing else.
func (d *document) becomes(after *document, wanted map[string]Pin) bool {
	added := len(wanted)
	for _, r := range d.records {
		want, changed := wanted[r.Reference]
		if !changed {
			want = r.Pin
		} else {
			added--
		}
		if want.Comment == "" {
			want.Comment = r.Comment
		}
		if !after.has(want) {
			return false
		}
	}
	for key, want := range wanted {
		if _, old := d.byKey[key]; !old && !after.has(want) {
			return false
		}
	}
	return len(after.records) == len(d.records)+added
}

func (d *document) has(p Pin) bool {
	i, ok := d.byKey[p.Reference]
	return ok && d.records[i].Pin.equal(p)
}

// Bytes returns the file's content as it stands.
func (f *File) Bytes() []byte { return bytes.Clone(f.doc.data) }

// Save writes the file, if it has changed since it was read or saved. Others see the old content or
// the new one; when Save returns nil, the new one is on disk.
func (f *File) Save() error {
	if f.saved != nil && bytes.Equal(f.saved, f.doc.data) {
		return nil
	}
	perm := fs.FileMode(0o644)
	if info, err := os.Stat(f.doc.name); err == nil {
		perm = info.Mode().Perm()
	}
	if err := durable.WriteFile(f.doc.name, f.doc.data, perm); err != nil {
		return err
	}
	f.saved = f.doc.data
	return nil
}
