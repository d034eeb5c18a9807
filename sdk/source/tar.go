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
// the archive are not seen. Of two entries of one name the later counts, as when it is extracted.
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
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = errIrregular
	}
	if err != nil {
		return nil, err
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	entries, err := scan(file, info.Size())
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &tarFS{file: file, entries: entries}, nil
}

// scan reads the headers and skips what is between them.
func scan(file io.ReaderAt, size int64) (map[string]tarEntry, error) {
	if err := refuseCompressed(file); err != nil {
		return nil, err
	}
	section := io.NewSectionReader(file, 0, size)
	reader := tar.NewReader(section)
	entries := map[string]tarEntry{}
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, fmt.Errorf("%w: the archive is no tar file, or damaged, or cut short: %w", berth.ErrLayoutInvalid, err)
		}
		name := path.Clean(header.Name)
		if !fs.ValidPath(name) {
			continue
		}
		delete(entries, name)
		entry, err := entryAt(section, header)
		if err != nil {
			return nil, fmt.Errorf("%w: the archive %w %.200q", berth.ErrLayoutInvalid, err, name)
		}
		if header.Typeflag == tar.TypeReg {
			entries[name] = entry
		}
		if len(entries) > maxEntries {
			return nil, fmt.Errorf("%w: the archive has more than %d files", berth.ErrLayoutInvalid, maxEntries)
		}
	}
}

var (
	errCut    = errors.New("is cut short inside")
	errSparse = errors.New("was made with --sparse, make it without: its bytes are not all there of")
)

// entryAt is the file whose header was just read.
func entryAt(section *io.SectionReader, header *tar.Header) (tarEntry, error) {
	offset, err := section.Seek(0, io.SeekCurrent)
	switch {
	case err != nil:
		return tarEntry{}, err
	case isSparse(header):
		return tarEntry{}, errSparse
	case header.Typeflag == tar.TypeReg && header.Size > section.Size()-offset:
		return tarEntry{}, errCut
	}
	return tarEntry{name: path.Base(header.Name), offset: offset, size: header.Size}, nil
}

// isSparse reports whether a file lies in the archive without its holes, in any of GNU tar's ways.
func isSparse(header *tar.Header) bool {
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return header.Typeflag == tar.TypeGNUSparse
}

// compressions are how files begin that some program has compressed.
var compressions = map[string]string{
	"gzip": "\x1f\x8b",
	"zstd": "\x28\xb5\x2f\xfd",
	"xz":   "\xfd7zXZ\x00",
}

func refuseCompressed(file io.ReaderAt) error {
	head := make([]byte, 6)
	n, err := file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for program, magic := range compressions {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			return fmt.Errorf("%w: the archive is compressed with %s; decompress it first", berth.ErrLayoutInvalid, program)
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
