// Package source is where images come from, and the same forms as places where they go.
//
// A [Source] is a root descriptor, and anything that can fetch what it leads to. Two forms on disk
// are known here, each by the name that skopeo gives it:
//
//	oci:DIR[:NAME]            an OCI image layout, a directory
//	oci-archive:FILE[:NAME]   the same as a tar file, which is read in place
//
// NAME is the annotation org.opencontainers.image.ref.name of an entry in index.json; without it the
// layout must have one entry alone. A [Destination] takes an image in the same forms.
//
//	src := source.Layout("out/image", "")
//	defer src.Close()
//	root, err := src.Root(ctx)
//
// Nothing that is read here is verified, except that it is there and as long as its descriptor says:
// whoever takes the bytes hashes them.
package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// The forms, as they stand before the first colon.
const (
	FormLayout  = "oci"
	FormArchive = "oci-archive"
)

// maxIndex bounds the index.json that is read, in bytes.
const maxIndex = 64 << 20

// ErrForm is the error for a text that names no form that is known here.
var ErrForm = errors.New("want oci:DIR[:NAME] or oci-archive:FILE[:NAME]")

// Source is an image in some form. Its methods may run at once.
type Source interface {
	// Root is the descriptor of the image's manifest or index.
	//
	// Errors: berth.ErrLayoutInvalid, berth.ErrManifestUnknown where the name is not in it.
	Root(ctx context.Context) (v1.Descriptor, error)

	// Fetch opens what desc describes, below the root. The caller closes it.
	//
	// Errors: berth.ErrBlobUnknown where it is missing or has another size.
	Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error)

	// Close releases what is open.
	Close() error
}

// Parse returns the source that a text like "oci:DIR:NAME" means. It does no I/O.
//
// Errors: ErrForm.
func Parse(text string) (Source, error) {
	form, path, name, err := Split(text)
	if err != nil {
		return nil, err
	}
	if form == FormLayout {
		return Layout(path, name), nil
	}
	return Archive(path, name), nil
}

// Split takes a text apart at the form's colon and at the name's. The colon of a Windows drive is
// part of the path.
func Split(text string) (form, path, name string, err error) {
	form, rest, ok := strings.Cut(text, ":")
	if !ok || rest == "" || (form != FormLayout && form != FormArchive) {
		return "", "", "", fmt.Errorf("%.200q: %w", text, ErrForm)
	}
	drive := filepath.VolumeName(rest)
	path, name, _ = strings.Cut(rest[len(drive):], ":")
	return form, drive + path, name, nil
}

// Layout is the image of that name in an OCI image layout directory. An empty name is the only image
// there is.
func Layout(dir, name string) Source {
	return &files{what: FormLayout + ":" + dir, name: name, open: func() (fs.FS, io.Closer, error) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, nil, err
		}
		return root.FS(), root, nil
	}}
}

// Archive is the image of that name in a tar file that holds an OCI image layout. The file is read
// where it lies; it is not unpacked.
func Archive(file, name string) Source {
	return &files{what: FormArchive + ":" + file, name: name, open: func() (fs.FS, io.Closer, error) {
		archive, err := openTar(file)
		if err != nil {
			return nil, nil, err
		}
		return archive, archive, nil
	}}
}

// files is a layout whose files are found in some file system.
type files struct {
	what string
	name string
	open func() (fs.FS, io.Closer, error)

	mu     sync.Mutex // guards the fields below
	fs     fs.FS
	closer io.Closer
}

// String is the source as Parse reads it.
func (f *files) String() string {
	if f.name == "" {
		return f.what
	}
	return f.what + ":" + f.name
}

func (f *files) opened() (fs.FS, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fs != nil {
		return f.fs, nil
	}
	opened, closer, err := f.open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.what, sayPath(err))
	}
	f.fs, f.closer = opened, closer
	return opened, nil
}

// sayPath leaves the path out of an error that is about the source itself: it was told already.
func sayPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func (f *files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closer == nil {
		return nil
	}
	closer := f.closer
	f.fs, f.closer = nil, nil
	return closer.Close()
}

func (f *files) Root(context.Context) (v1.Descriptor, error) {
	entries, err := f.index()
	if err != nil {
		return v1.Descriptor{}, err
	}
	return f.choose(entries)
}

// index reads the entries of index.json, having made sure that it is a layout's.
func (f *files) index() ([]v1.Descriptor, error) {
	var version v1.ImageLayout
	if err := f.readJSON(v1.ImageLayoutFile, &version); err != nil {
		return nil, err
	}
	if version.Version != v1.ImageLayoutVersion {
		return nil, fmt.Errorf("%s: %w: its layout version is %.20q, %s is understood", f.what, berth.ErrLayoutInvalid, version.Version, v1.ImageLayoutVersion)
	}
	var index v1.Index
	err := f.readJSON(v1.ImageIndexFile, &index)
	return index.Manifests, err
}

func (f *files) readJSON(name string, v any) error {
	fsys, err := f.opened()
	if err != nil {
		return err
	}
	file, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: it has no %s", f.what, berth.ErrLayoutInvalid, name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.what, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxIndex))
	if err != nil {
		return fmt.Errorf("%s: %w", f.what, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w: its %s does not parse: %w", f.what, berth.ErrLayoutInvalid, name, err)
	}
	return nil
}

// choose picks the entry that the name means.
func (f *files) choose(entries []v1.Descriptor) (v1.Descriptor, error) {
	if f.name == "" {
		if len(entries) != 1 {
			return v1.Descriptor{}, fmt.Errorf("%s: %w: it has %d images; add a name%s", f.what, berth.ErrManifestUnknown, len(entries), known(entries))
		}
		return clean(entries[0]), nil
	}
	for _, e := range entries {
		if e.Annotations[v1.AnnotationRefName] == f.name {
			return clean(e), nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("%s: %w: it has no image %q%s", f.what, berth.ErrManifestUnknown, f.name, known(entries))
}

// clean leaves out what an entry says about its place in the index.
func clean(d v1.Descriptor) v1.Descriptor {
	d.Annotations = nil
	return d
}

// known lists some of the names that would have been right.
func known(entries []v1.Descriptor) string {
	const most = 5
	var names []string
	for _, e := range entries {
		name := e.Annotations[v1.AnnotationRefName]
		if name != "" && len(names) < most {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ", one of: " + strings.Join(names, ", ")
}

func (f *files) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return nil, err
	}
	fsys, err := f.opened()
	if err != nil {
		return nil, err
	}
	file, err := fsys.Open(blobPath(desc))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %s: %w: its file is missing", f.what, desc.Digest, berth.ErrBlobUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.what, err)
	}
	info, err := file.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != desc.Size) {
		err = fmt.Errorf("%s: %s: %w: its file has %d bytes, the descriptor says %d", f.what, desc.Digest, berth.ErrBlobUnknown, info.Size(), desc.Size)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func blobPath(desc v1.Descriptor) string {
	return v1.ImageBlobsDir + "/" + desc.Digest.Algorithm().String() + "/" + desc.Digest.Encoded()
}
