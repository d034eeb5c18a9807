package source

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// ToLayout is a place in an OCI image layout directory, which is made if it is not there. What else
// the layout holds stays; an image of the same name is replaced.
//
// Until the commit, what has come lies in a directory of its own within the layout.
//
// Errors: berth.ErrLayoutInvalid where the directory holds a layout that is not understood, or other files and no layout.
func ToLayout(dir, name string) (_ Destination, err error) {
	w := &layoutWriter{path: dir, what: FormLayout + ":" + dir, name: name, staged: map[digest.Digest]int64{}}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		w.fresh = true
	}
	if err := w.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", w.what, err), w.Close())
	}
	return w, nil
}

type layoutWriter struct {
	path, what, name string
	dir              *durable.Dir
	stage            *unfinished // where what has come lies until the commit
	closed           bool
	fresh            bool // the directory was made for this image, and is not wanted without it

	mu     sync.Mutex // guards the field below
	staged map[digest.Digest]int64
}

func (w *layoutWriter) open() (err error) {
	if err := os.MkdirAll(w.path, 0o755); err != nil {
		return sayPath(err)
	}
	if w.dir, err = durable.Open(w.path); err != nil {
		return sayPath(err)
	}
	if err := w.checkVersion(); err != nil {
		return err
	}
	if _, err := w.readIndex(); err != nil {
		return err
	}
	w.stage, err = beginUnfinished(w.dir.Root(), fs.ModeDir, ".partial-", func(name string) error { return w.dir.Root().Mkdir(name, 0o700) })
	if err != nil {
		return sayPath(err)
	}
	w.dir.Temp = w.stage.name
	return nil
}

// checkVersion refuses a layout of a kind that is not known here. Where there is none yet, all is
// well.
func (w *layoutWriter) checkVersion() error {
	data, err := w.dir.Root().ReadFile(v1.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		return w.checkEmpty()
	}
	if err != nil {
		return err
	}
	var version v1.ImageLayout
	if json.Unmarshal(data, &version) != nil || version.Version != v1.ImageLayoutVersion {
		return fmt.Errorf("%w: its %s does not say version %s", berth.ErrLayoutInvalid, v1.ImageLayoutFile, v1.ImageLayoutVersion)
	}
	return nil
}

// checkEmpty refuses to put a layout among the files of something else. Another writer may make it one at this moment.
func (w *layoutWriter) checkEmpty() error {
	entries, err := fs.ReadDir(w.dir.Root().FS(), ".")
	for _, entry := range entries {
		name := entry.Name()
		if !slices.Contains([]string{v1.ImageBlobsDir, v1.ImageIndexFile, v1.ImageLayoutFile}, name) && !strings.HasPrefix(name, ".") {
			return fmt.Errorf("%w: the directory holds other files, like %.200q; name an empty one, or one that is not there", berth.ErrLayoutInvalid, name)
		}
	}
	return err
}

func (w *layoutWriter) Has(_ context.Context, desc v1.Descriptor) (bool, error) {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return false, err
	}
	w.mu.Lock()
	size, ok := w.staged[desc.Digest]
	w.mu.Unlock()
	if ok {
		return size == desc.Size, nil
	}
	info, err := w.dir.Root().Lstat(blobPath(desc))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular() && info.Size() == desc.Size, err
}

func (w *layoutWriter) Put(_ context.Context, desc v1.Descriptor, content io.Reader) error {
	return w.stageAs(desc, func(temp string) error { return w.write(temp, desc, content) })
}

// PutFile makes a clone of a file that is as it was seen, where the file system has clones.
func (w *layoutWriter) PutFile(ctx context.Context, desc v1.Descriptor, from berth.LocalFile) (berth.ImportMethod, error) {
	file, err := openLocal(from)
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", w.what, berth.ErrUnsupported, err)
	}
	defer file.Close()
	return berth.Cloned, w.stageAs(desc, func(temp string) error { return w.clone(ctx, temp, desc, file) })
}

// stageAs keeps what is written under a temporary name, once that is what desc says.
func (w *layoutWriter) stageAs(desc v1.Descriptor, write func(temp string) error) error {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	temp := w.stage.name + "/" + rand.Text()
	err := write(temp)
	if err == nil {
		err = w.dir.Root().Rename(temp, w.staging(desc.Digest))
	}
	if err != nil {
		w.dir.Root().Remove(temp)
		return fmt.Errorf("%s: %w", w.what, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.staged[desc.Digest] = desc.Size
	return nil
}

// clone verifies the clone, and not the original.
func (w *layoutWriter) clone(ctx context.Context, temp string, desc v1.Descriptor, file *os.File) error {
	clone, err := w.dir.Clone(file, temp, 0o644)
	if errors.Is(err, durable.ErrNoClone) {
		err = fmt.Errorf("%w: %w", berth.ErrUnsupported, err)
	}
	if err != nil {
		return err
	}
	defer clone.Close()
	if err := verifiedCopy(io.Discard, desc, steady{ctx, clone}); err != nil {
		return err
	}
	return w.dir.SyncFile(clone, temp)
}

// staging is where a blob lies until the commit.
func (w *layoutWriter) staging(d digest.Digest) string {
	return w.stage.name + "/" + d.Algorithm().String() + "-" + d.Encoded()
}

func (w *layoutWriter) write(temp string, desc v1.Descriptor, content io.Reader) error {
	f, err := w.dir.Root().OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := verifiedCopy(f, desc, content); err != nil {
		return err
	}
	if err := w.dir.SyncFile(f, temp); err != nil {
		return err
	}
	return f.Close()
}

func (w *layoutWriter) Commit(ctx context.Context, root v1.Descriptor) error {
	if err := w.commit(ctx, root); err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	return nil
}

// commit brings the blobs to their places, and names the root when all are there.
func (w *layoutWriter) commit(ctx context.Context, root v1.Descriptor) error {
	if err := checkRoot(ctx, w, root); err != nil {
		return err
	}
	unlock, err := durable.LockDir(ctx, w.path)
	if err != nil {
		return err
	}
	defer unlock()
	index, err := w.readIndex()
	if err != nil {
		return err
	}
	if err := index.replace(root, w.name); err != nil {
		return err
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := w.publish(); err != nil {
		return err
	}
	w.fresh = false
	if err := w.writeVersion(); err != nil {
		return err
	}
	return w.dir.WriteFile(v1.ImageIndexFile, data, 0o644)
}

// publish brings the blobs to their places.
func (w *layoutWriter) publish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for d := range w.staged {
		if err := w.dir.MkdirAll(v1.ImageBlobsDir+"/"+d.Algorithm().String(), 0o755); err != nil {
			return err
		}
		if err := w.dir.Rename(w.staging(d), blobPath(v1.Descriptor{Digest: d})); err != nil {
			return err
		}
		delete(w.staged, d)
	}
	return nil
}

// writeVersion makes the directory a layout, if it is not one.
func (w *layoutWriter) writeVersion() error {
	if _, err := w.dir.Root().Lstat(v1.ImageLayoutFile); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	version, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return w.dir.WriteFile(v1.ImageLayoutFile, version, 0o644)
}

// Close removes what has come since the last commit.
func (w *layoutWriter) Close() error {
	if w.dir == nil || w.closed {
		return nil
	}
	var err error
	if w.stage != nil {
		err = w.stage.close()
	}
	err = errors.Join(err, w.dir.Close())
	w.closed = true
	w.mu.Lock()
	clear(w.staged)
	w.mu.Unlock()
	if w.fresh {
		os.Remove(w.path) // which fails if others have made it theirs
	}
	return err
}
