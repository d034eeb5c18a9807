package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// rootFS is the files of a directory, which know where they lie.
type rootFS struct{ root *os.Root }

func (r rootFS) Stat(name string) (fs.FileInfo, error) { return r.root.Stat(name) }

func (r rootFS) Open(name string) (fs.File, error) {
	file, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	return rootFile{file, filepath.Join(r.root.Name(), name)}, nil
}

type rootFile struct {
	*os.File
	path string
}

func (f rootFile) LocalFile() (berth.LocalFile, bool) {
	info, err := f.Stat()
	if err != nil {
		return berth.LocalFile{}, false
	}
	return localFile(info, f.path, 0, info.Size())
}

func (f tarFile) LocalFile() (berth.LocalFile, bool) {
	info, err := f.archive.Stat()
	if err != nil {
		return berth.LocalFile{}, false
	}
	return localFile(info, f.archive.Name(), f.entry.offset, f.entry.size)
}

// localFile is a part of a file that is open.
func localFile(info fs.FileInfo, path string, offset, size int64) (berth.LocalFile, bool) {
	device, inode, _, known := durable.Identity(info)
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	return berth.LocalFile{Path: path, Offset: offset, Size: size, Device: device, Inode: inode}, known && err == nil
}

// openLocal opens a file whose bytes are all meant, if it is the one that was seen.
func openLocal(from berth.LocalFile) (*os.File, error) {
	file, err := os.Open(from.Path)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		device, inode, _, known := durable.Identity(info)
		if !known || device != from.Device || inode != from.Inode || from.Offset != 0 || from.Size != info.Size() {
			err = errNotWhole
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

var errNotWhole = errors.New("it is not the whole of the file that was seen")
