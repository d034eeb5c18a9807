package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNoClone is returned by Clone where the two files cannot share their bytes.
var ErrNoClone = errors.New("files cannot share their bytes here")

// Clone makes a new file, as Create does, with the bytes that an open file has at this moment, wherever that lies. The
// two share them on the disk until one of them is changed.
//
// Errors: ErrNoClone, and no file is made then.
func (d *Dir) Clone(from *os.File, name string, perm fs.FileMode) (*os.File, error) {
	f, err := d.Create(name, perm)
	if err != nil {
		return nil, err
	}
	if err := d.Step(OpWrite, name, func() error { return clone(f, from) }); err != nil {
		f.Close()
		return nil, errors.Join(err, d.root.Remove(name))
	}
	return f, nil
}

// Adopt gives an open file, which lies at a path outside of this directory, a name within it: it is the same file then.
// It is opened again, to be read.
//
// Errors: ErrNoClone where that cannot be, or where the path leads to another file.
func (d *Dir) Adopt(file *os.File, at, name string) (*os.File, error) {
	err := d.Step(OpCreate, name, func() error { return os.Link(at, filepath.Join(d.root.Name(), name)) })
	if err != nil {
		return nil, errors.Join(ErrNoClone, err)
	}
	own, err := d.open(name, os.O_RDONLY, 0)
	if err == nil && !same(own, file) {
		err = errors.Join(ErrNoClone, own.Close())
	}
	if err != nil {
		return nil, errors.Join(err, d.root.Remove(name))
	}
	return own, nil
}

func same(a, b *os.File) bool {
	one, err := a.Stat()
	if err != nil {
		return false
	}
	other, err := b.Stat()
	return err == nil && os.SameFile(one, other)
}
