package source

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// Destination is a place that takes one image. Its methods may run at once, except Commit and Close.
type Destination interface {
	// Has reports whether the place holds that content already.
	Has(ctx context.Context, desc v1.Descriptor) (bool, error)

	// Put stores what desc describes, and verifies it.
	//
	// Errors: berth.ErrDigestInvalid where the bytes are not what desc says.
	Put(ctx context.Context, desc v1.Descriptor, content io.Reader) error

	// Commit makes root the image. Before it, the place does not show that anything has come.
	Commit(ctx context.Context, root v1.Descriptor) error

	// Close releases what is open and removes what was not committed.
	Close() error
}

// ParseDestination returns the place that a text like "oci:DIR:NAME" means.
//
// Errors: ErrForm, and what keeps the place from being made.
func ParseDestination(text string) (Destination, error) {
	form, path, name, err := Split(text)
	if err != nil {
		return nil, err
	}
	if form == FormLayout {
		return ToLayout(path, name)
	}
	return ToArchive(path, name)
}

// ToLayout is a place in an OCI image layout directory, which is made if it is not there. What else
// the layout holds stays; an image of the same name is replaced.
func ToLayout(dir, name string) (Destination, error) {
	if err := os.MkdirAll(filepath.Join(dir, v1.ImageBlobsDir, digest.SHA256.String()), 0o755); err != nil {
		return nil, fmt.Errorf("%s:%s: %w", FormLayout, dir, err)
	}
	d, err := durable.Open(dir)
	if err != nil {
		return nil, err
	}
	return &layoutWriter{dir: d, what: FormLayout + ":" + dir, name: name}, nil
}

type layoutWriter struct {
	dir        *durable.Dir
	what, name string
}

func (w *layoutWriter) Has(_ context.Context, desc v1.Descriptor) (bool, error) {
	info, err := w.dir.Root().Lstat(blobPath(desc))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular() && info.Size() == desc.Size, err
}

func (w *layoutWriter) Put(_ context.Context, desc v1.Descriptor, content io.Reader) error {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return err
	}
	if err := w.dir.MkdirAll(v1.ImageBlobsDir+"/"+desc.Digest.Algorithm().String(), 0o755); err != nil {
		return err
	}
	temp := blobPath(desc) + ".partial"
	err := w.write(temp, desc, content)
	if err == nil {
		err = w.dir.Rename(temp, blobPath(desc))
	}
	if err != nil {
		w.dir.Root().Remove(temp)
		return fmt.Errorf("%s: %w", w.what, err)
	}
	return nil
}

func (w *layoutWriter) write(temp string, desc v1.Descriptor, content io.Reader) error {
	f, err := w.dir.Root().Create(temp)
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

// verifiedCopy copies exactly what desc describes, or fails.
func verifiedCopy(to io.Writer, desc v1.Descriptor, content io.Reader) error {
	verifier := desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(to, verifier), io.LimitReader(content, desc.Size+1))
	if err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	if n != desc.Size || !verifier.Verified() {
		return fmt.Errorf("%s: %w: %d bytes came, which are not what it names", desc.Digest, berth.ErrDigestInvalid, n)
	}
	return nil
}

// layoutIndex is index.json with all that is not ours kept as it stands.
type layoutIndex struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Manifests     []json.RawMessage `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func (w *layoutWriter) Commit(_ context.Context, root v1.Descriptor) error {
	index := layoutIndex{SchemaVersion: 2, MediaType: v1.MediaTypeImageIndex}
	data, err := w.dir.Root().ReadFile(v1.ImageIndexFile)
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: its %s does not parse: %w", w.what, berth.ErrLayoutInvalid, v1.ImageIndexFile, err)
	}
	if index.Manifests, err = replace(index.Manifests, root, w.name); err != nil {
		return err
	}
	if data, err = json.Marshal(index); err != nil {
		return err
	}
	version, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return err
	}
	if err := w.dir.WriteFile(v1.ImageLayoutFile, version, 0o644); err != nil {
		return err
	}
	return w.dir.WriteFile(v1.ImageIndexFile, data, 0o644)
}

// replace puts root into a list of entries, in the place of the one that has its name; without a
// name, of the one that is the same image without a name.
func replace(entries []json.RawMessage, root v1.Descriptor, name string) ([]json.RawMessage, error) {
	if name != "" {
		root.Annotations = map[string]string{v1.AnnotationRefName: name}
	}
	entry, err := json.Marshal(root)
	if err != nil {
		return nil, err
	}
	kept := []json.RawMessage{}
	for _, raw := range entries {
		var old v1.Descriptor
		parsed := json.Unmarshal(raw, &old) == nil
		oldName := old.Annotations[v1.AnnotationRefName]
		if !parsed || oldName != name || (name == "" && old.Digest != root.Digest) {
			kept = append(kept, raw)
		}
	}
	return append(kept, entry), nil
}

func (w *layoutWriter) Close() error { return w.dir.Close() }

// ToArchive is a tar file that will hold an OCI image layout with one image. It appears, or replaces
// the file of that name, when it is committed.
func ToArchive(file, name string) (Destination, error) {
	temp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return nil, fmt.Errorf("%s:%s: %w", FormArchive, file, sayPath(err))
	}
	return &archiveWriter{path: file, name: name, temp: temp, tar: tar.NewWriter(temp), has: map[digest.Digest]bool{}}, nil
}

type archiveWriter struct {
	path, name string

	mu   sync.Mutex // a tar file is written in order; guards the fields below
	temp *os.File
	tar  *tar.Writer
	has  map[digest.Digest]bool
}

func (w *archiveWriter) Has(_ context.Context, desc v1.Descriptor) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.has[desc.Digest], nil
}

func (w *archiveWriter) Put(_ context.Context, desc v1.Descriptor, content io.Reader) error {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.tar.WriteHeader(header(blobPath(desc), desc.Size)); err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	if err := verifiedCopy(w.tar, desc, content); err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	w.has[desc.Digest] = true
	return nil
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
}

func (w *archiveWriter) Commit(_ context.Context, root v1.Descriptor) error {
	entries, err := replace(nil, root, w.name)
	if err != nil {
		return err
	}
	for name, v := range map[string]any{
		v1.ImageIndexFile:  layoutIndex{SchemaVersion: 2, MediaType: v1.MediaTypeImageIndex, Manifests: entries},
		v1.ImageLayoutFile: v1.ImageLayout{Version: v1.ImageLayoutVersion},
	} {
		if err := w.putJSON(name, v); err != nil {
			return fmt.Errorf("%s: %w", w.path, err)
		}
	}
	err = errors.Join(w.tar.Close(), w.temp.Chmod(0o644), w.temp.Sync(), w.temp.Close())
	if err != nil {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	return os.Rename(w.temp.Name(), w.path)
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
	w.temp.Close()
	if err := os.Remove(w.temp.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
