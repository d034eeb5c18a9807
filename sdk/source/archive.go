package source

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// ToArchive is a tar file that will hold an OCI image layout with one image. It appears, or replaces
// the file of that name, when it is committed. Where the name is a symbolic link, the file that it
// points to is replaced.
func ToArchive(file, name string) (Destination, error) {
	w, err := newArchiveWriter(FormArchive, file, name)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func newArchiveWriter(form, file, name string) (*archiveWriter, error) {
	w := &archiveWriter{what: form + ":" + file, name: name, has: map[digest.Digest]section{}}
	if err := w.open(file); err != nil {
		return nil, fmt.Errorf("%s: %w", w.what, sayPath(err))
	}
	return w, nil
}

type archiveWriter struct {
	what, name string
	dir        *durable.Dir
	base       string      // the archive's name in dir
	unfinished *unfinished // what it is until the commit

	mu   sync.Mutex // a tar file is written in order; guards the fields below
	temp *os.File
	tar  *tar.Writer
	has  map[digest.Digest]section
}

// section is where a blob lies in the unfinished archive.
type section struct{ offset, size int64 }

func (w *archiveWriter) open(file string) (err error) {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return errIrregular
	}
	if w.dir, err = durable.Open(filepath.Dir(file)); err != nil {
		return fmt.Errorf("directory %s: %w", filepath.Dir(file), sayPath(err))
	}
	w.base = filepath.Base(file)
	w.unfinished, err = beginUnfinished(w.dir.Root(), 0, "."+w.base+".", func(name string) error {
		w.temp, err = w.dir.Root().OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
		return err
	})
	if err != nil {
		if w.temp != nil {
			w.temp.Close() // made, and not locked
		}
		return errors.Join(err, w.dir.Close())
	}
	w.tar = tar.NewWriter(w.temp)
	return nil
}

func (w *archiveWriter) Has(_ context.Context, desc v1.Descriptor) (bool, error) {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	put, ok := w.has[desc.Digest]
	return ok && put.size == desc.Size, nil
}

func (w *archiveWriter) Put(_ context.Context, desc v1.Descriptor, content io.Reader) error {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.has[desc.Digest]; ok {
		return nil
	}
	offset, err := w.put(desc, content)
	if err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	w.has[desc.Digest] = section{offset, desc.Size}
	return nil
}

// put appends a file and says where its bytes begin, or leaves the archive as it was.
func (w *archiveWriter) put(desc v1.Descriptor, content io.Reader) (offset int64, err error) {
	if desc.Size < 0 {
		return 0, fmt.Errorf("%s: %w: its size is negative", desc.Digest, berth.ErrDigestInvalid)
	}
	if err := w.tar.Flush(); err != nil {
		return 0, err
	}
	begin, err := w.temp.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if err := w.tar.WriteHeader(header(blobPath(desc), desc.Size)); err != nil {
		return 0, err
	}
	if offset, err = w.temp.Seek(0, io.SeekCurrent); err == nil {
		err = verifiedCopy(w.tar, desc, content)
	}
	if err != nil {
		return 0, errors.Join(err, w.goBack(begin))
	}
	return offset, nil
}

// goBack takes away what was written since an offset at which a file began.
func (w *archiveWriter) goBack(begin int64) error {
	if err := w.temp.Truncate(begin); err != nil {
		return err
	}
	_, err := w.temp.Seek(begin, io.SeekStart)
	w.tar = tar.NewWriter(w.temp)
	return err
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
}

func (w *archiveWriter) Commit(ctx context.Context, root v1.Descriptor) error {
	entry := root
	if w.name != "" {
		entry.Annotations = map[string]string{v1.AnnotationRefName: w.name}
	}
	return w.commitWith(ctx, root, entry, "", nil)
}

// commitWith lists an entry for the root in index.json, and ends the archive with a further file, if that has a name.
func (w *archiveWriter) commitWith(ctx context.Context, root, entry v1.Descriptor, file string, content any) error {
	err := checkRoot(ctx, w, root)
	if err == nil {
		err = w.finish(entry, file, content)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	return nil
}

func (w *archiveWriter) finish(entry v1.Descriptor, file string, content any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	index, err := newIndexOf(entry)
	if err == nil {
		err = w.putJSON(v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion})
	}
	if err == nil {
		err = w.putJSON(v1.ImageIndexFile, index)
	}
	if err == nil && file != "" {
		err = w.putJSON(file, content)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(w.tar.Close(), w.dir.SyncFile(w.temp, w.unfinished.name), w.temp.Close()); err != nil {
		return err
	}
	return w.dir.Rename(w.unfinished.name, w.base)
}

func (w *archiveWriter) putJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := w.tar.WriteHeader(header(name, int64(len(data)))); err != nil {
		return err
	}
	_, err = w.tar.Write(data)
	return err
}

// Close removes the unfinished file. After a commit there is none.
func (w *archiveWriter) Close() error {
	if w.dir == nil {
		return nil
	}
	w.temp.Close() // to be removed, or flushed and closed already
	err := errors.Join(w.unfinished.close(), w.dir.Close())
	w.dir = nil
	return err
}
