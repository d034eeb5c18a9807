package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrArchive is the error for a file that is no archive that can be read: it is no tar file, damaged, cut short, or there
// to fill the disk.
var ErrArchive = errors.New("unreadable archive")

// maxEntries bounds the files of an archive.
const maxEntries = 1_000_000

// maxLinks bounds how many links are followed to a file.
const maxLinks = 8

// tarFS is the regular files of a tar file, read in place. Links, devices and names that lead out of
// the archive are not seen. Of two entries of one name the later counts, as when it is extracted.
type tarFS struct {
	file      *os.File
	temporary bool // the file is removed in the end
	entries   map[string]tarEntry
	links     map[string]string // for who follows them: the names of links, and where they lead
}

// tarEntry is where a file's bytes lie in the archive.
type tarEntry struct {
	name         string
	offset, size int64
}

func openTar(ctx context.Context, name string) (*tarFS, error) {
	file, temporary, err := openArchive(ctx, name)
	if err != nil {
		return nil, err
	}
	t := &tarFS{file: file, temporary: temporary, entries: map[string]tarEntry{}, links: map[string]string{}}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.Size() == 0:
		err = fmt.Errorf("%w: it is empty", ErrArchive)
	default:
		err = t.scan(info.Size())
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// scan reads the headers and skips what is between them.
func (t *tarFS) scan(size int64) error {
	section := io.NewSectionReader(t.file, 0, size)
	reader := tar.NewReader(section)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("%w: it is no tar file, or damaged, or cut short: %w", ErrArchive, err)
		}
		name := path.Clean(header.Name)
		if !fs.ValidPath(name) {
			continue
		}
		if err := t.add(name, header, section); err != nil {
			return fmt.Errorf("%w: it %w %.200q", ErrArchive, err, name)
		}
		if len(t.entries)+len(t.links) > maxEntries {
			return fmt.Errorf("%w: it has more than %d files", ErrArchive, maxEntries)
		}
	}
}

// add notes the file or link whose header was just read, in the place of what had the name before.
func (t *tarFS) add(name string, header *tar.Header, section *io.SectionReader) error {
	delete(t.entries, name)
	delete(t.links, name)
	entry, err := entryAt(section, header)
	if err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeReg:
		t.entries[name] = entry
	case tar.TypeSymlink:
		t.links[name] = path.Join(path.Dir(name), header.Linkname)
	case tar.TypeLink:
		t.links[name] = path.Clean(header.Linkname)
	}
	return nil
}

// follow is the name of the file that a name leads to by links within the archive.
func (t *tarFS) follow(name string) string {
	name = path.Clean(name)
	for range maxLinks {
		to, ok := t.links[name]
		if !ok {
			break
		}
		name = to
	}
	return name
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

// isDocker reports whether it is what docker save writes, and no image layout.
func (t *tarFS) isDocker() bool {
	_, layout := t.entries[v1.ImageIndexFile]
	_, saved := t.entries[savedList]
	return saved && !layout
}

// Open opens a file of the archive.
func (t *tarFS) Open(name string) (fs.File, error) {
	e, ok := t.entries[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return tarFile{io.NewSectionReader(t.file, e.offset, e.size), e, t.file}, nil
}

// Close closes the archive.
func (t *tarFS) Close() error {
	if t.temporary {
		return discard(t.file)
	}
	return t.file.Close()
}

// tarFile is one file of an archive.
type tarFile struct {
	*io.SectionReader
	entry   tarEntry
	archive *os.File
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
