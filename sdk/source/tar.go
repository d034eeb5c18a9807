package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/berthoci/berth"
)

// maxEntries bounds the files of an archive.
const maxEntries = 1_000_000

// tarFS is the regular files of a tar file, read in place. Links, devices and names that lead out of
// the archive are not seen.
type tarFS struct {
	file    *os.File
	entries map[string]tarEntry
}

// tarEntry is where a file's bytes lie in the archive.
type tarEntry struct {
	name         string
	offset, size int64
}

func openTar(name string) (*tarFS, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	archive := &tarFS{file: file, entries: map[string]tarEntry{}}
	if err := archive.scan(); err != nil {
		file.Close()
		return nil, err
	}
	return archive, nil
}

// scan reads the headers and skips what is between them.
func (t *tarFS) scan() error {
	if err := t.refuseCompressed(); err != nil {
		return err
	}
	reader := tar.NewReader(t.file)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return t.checkLength()
		}
		if err != nil {
			return fmt.Errorf("%w: the archive is damaged or cut short: %w", berth.ErrLayoutInvalid, err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		offset, err := t.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		t.entries[name] = tarEntry{name: path.Base(name), offset: offset, size: header.Size}
		if len(t.entries) > maxEntries {
			return fmt.Errorf("%w: the archive has more than %d files", berth.ErrLayoutInvalid, maxEntries)
		}
	}
}

func (t *tarFS) refuseCompressed() error {
	head := make([]byte, 4)
	n, err := t.file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	gzip, zstd := []byte{0x1f, 0x8b}, []byte{0x28, 0xb5, 0x2f, 0xfd}
	if bytes.HasPrefix(head[:n], gzip) || bytes.HasPrefix(head[:n], zstd) {
		return fmt.Errorf("%w: the archive is compressed; decompress it first", berth.ErrLayoutInvalid)
	}
	return nil
}

// checkLength notices an archive that was cut inside its last file.
func (t *tarFS) checkLength() error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	for name, e := range t.entries {
		if e.offset+e.size > info.Size() {
			return fmt.Errorf("%w: the archive is cut short inside %s", berth.ErrLayoutInvalid, name)
		}
	}
	return nil
}

// Open opens a file of the archive.
func (t *tarFS) Open(name string) (fs.File, error) {
	e, ok := t.entries[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return tarFile{io.NewSectionReader(t.file, e.offset, e.size), e}, nil
}

// Close closes the archive.
func (t *tarFS) Close() error { return t.file.Close() }

// tarFile is one file of an archive.
type tarFile struct {
	*io.SectionReader
	entry tarEntry
}

func (f tarFile) Close() error               { return nil }
func (f tarFile) Stat() (fs.FileInfo, error) { return f.entry, nil }

// A tarEntry is its own fs.FileInfo.

func (e tarEntry) Name() string       { return e.name }
func (e tarEntry) Size() int64        { return e.size }
func (e tarEntry) Mode() fs.FileMode  { return 0o444 }
func (e tarEntry) ModTime() time.Time { return time.Time{} }
func (e tarEntry) IsDir() bool        { return false }
func (e tarEntry) Sys() any           { return nil }
