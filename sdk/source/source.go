// Package source is where images come from, and the same forms as places where they go.
//
// A [Source] is a root descriptor, and anything that can fetch what it leads to. Three forms on disk are known here, each
// by the name that skopeo gives it:
//
//	oci:DIR[:NAME]              an OCI image layout, a directory
//	oci-archive:FILE[:NAME]     the same as a tar file, which is read in place
//	docker-archive:FILE[:NAME]  what docker save writes
//
// In a layout NAME is the annotation org.opencontainers.image.ref.name of an entry in index.json, in an archive of Docker
// a name that the image was saved under; without it there must be one image alone. A [Destination] takes an image in the
// same forms. An archive may be compressed, by gzip or zstd, and may come through a pipe.
//
//	src := source.Layout("out/image", "")
//	defer src.Close()
//	root, err := src.Root(ctx)
//
// [Build] makes an image of files. [New] takes one from anything else that can fetch, and [ForPlatform] one of several.
//
// Nothing that is read here is verified, except that it is there and as long as its descriptor says: whoever takes the
// bytes hashes them.
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
	"slices"
	"strings"
	"sync"
	"unicode"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// The forms, as they stand before the first colon.
const (
	FormLayout  = "oci"
	FormArchive = "oci-archive"
	FormDocker  = "docker-archive"
)

// maxIndex bounds the index.json that is read, in bytes.
const maxIndex = 64 << 20

// ErrForm is the error for a text that names no form that is known here.
var ErrForm = errors.New("want oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]")

// Source is an image in some form. Its methods may run at the same time.
type Source interface {
	// Root is the descriptor of the image's manifest or index.
	//
	// Errors: berth.ErrLayoutInvalid, berth.ErrManifestUnknown where the name is not in it.
	Root(ctx context.Context) (v1.Descriptor, error)

	// Fetch opens what desc describes, below the root. What it returns may be a berth.Located.
	//
	// Errors: berth.ErrBlobUnknown where it is missing, no file, or has another size.
	Fetcher

	// Close releases what is open, also what is opened again by a call after it. What Build has made is gone.
	Close() error
}

// Parse returns the source that a text like "oci:DIR:NAME" means. It does no I/O. Images of remote registries, docker://REF, are
// for Images.ParseSource of package sdk.
//
// Errors: ErrForm.
func Parse(text string) (Source, error) {
	form, path, name, err := Split(text)
	if err != nil {
		return nil, err
	}
	switch form {
	case FormLayout:
		return Layout(path, name), nil
	case FormDocker:
		return DockerArchive(path, name), nil
	}
	return Archive(path, name), nil
}

// Split takes a text like "oci:DIR:NAME" apart, at the form's colon and at the name's. The colon of a
// Windows drive is part of the path. It does no I/O.
//
// Errors: ErrForm.
func Split(text string) (form, path, name string, err error) {
	form, rest, _ := strings.Cut(text, ":")
	drive := filepath.VolumeName(rest)
	path, name, _ = strings.Cut(rest[len(drive):], ":")
	path = drive + path
	if form == "docker" && strings.HasPrefix(rest, "//") {
		return "", "", "", fmt.Errorf("%.200q: %w; for an image of a remote registry use ParseSource or ParseDestination of sdk.Images", text, ErrForm)
	}
	if path == "" || !slices.Contains([]string{FormLayout, FormArchive, FormDocker}, form) {
		return "", "", "", fmt.Errorf("%.200q: %w", text, ErrForm)
	}
	return form, path, name, nil
}

// Layout is the image of that name in an OCI image layout directory. An empty name is the only image
// there is.
func Layout(dir, name string) Source {
	return &files{what: FormLayout + ":" + dir, name: name, open: func(context.Context) (fs.FS, io.Closer, error) {
		root, err := os.OpenRoot(dir)
		if info, statErr := os.Stat(dir); err != nil && statErr == nil && info.Mode().IsRegular() {
			err = fmt.Errorf("%w: it is a file, which %s: or %s: reads", berth.ErrLayoutInvalid, FormArchive, FormDocker)
		}
		if err != nil {
			return nil, nil, err
		}
		return rootFS{root}, root, nil
	}}
}

// Archive is the image of that name in a tar file that holds an OCI image layout. The file is read
// where it lies; it is not unpacked.
func Archive(file, name string) Source {
	return &files{what: FormArchive + ":" + file, name: name, open: func(ctx context.Context) (fs.FS, io.Closer, error) {
		archive, err := openTar(ctx, file)
		if errors.Is(err, ErrArchive) {
			err = fmt.Errorf("%w: %w", berth.ErrLayoutInvalid, err)
		}
		if err == nil && archive.isDocker() {
			err = errors.Join(fmt.Errorf("%w: it is what docker save writes, which docker-archive: reads", berth.ErrLayoutInvalid), archive.Close())
		}
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
	open func(context.Context) (fs.FS, io.Closer, error)

	mu     sync.Mutex // guards the fields below
	fs     fs.FS
	closer io.Closer
}

// String is the source as Parse reads it.
func (f *files) String() string { return withName(f.what, f.name) }

// withName is a text that Split takes apart.
func withName(what, name string) string {
	if name == "" {
		return what
	}
	return what + ":" + name
}

func (f *files) opened(ctx context.Context) (fs.FS, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fs != nil {
		return f.fs, nil
	}
	opened, closer, err := f.open(ctx)
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

func (f *files) Root(ctx context.Context) (v1.Descriptor, error) {
	c := choice{name: f.name}
	if err := f.eachEntry(ctx, c.look); err != nil {
		return v1.Descriptor{}, err
	}
	found, err := c.made()
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("%s: %w", f.what, err)
	}
	return clean(found), nil
}

// eachEntry reads the entries of index.json, one by one, having made sure that it is a layout's.
func (f *files) eachEntry(ctx context.Context, look func(v1.Descriptor)) error {
	var version v1.ImageLayout
	err := f.readJSON(ctx, v1.ImageLayoutFile, func(from *json.Decoder) error { return from.Decode(&version) })
	if err != nil {
		return err
	}
	if version.Version != v1.ImageLayoutVersion {
		return fmt.Errorf("%s: %w: its layout version is %.20q, %s is understood", f.what, berth.ErrLayoutInvalid, version.Version, v1.ImageLayoutVersion)
	}
	return f.readJSON(ctx, v1.ImageIndexFile, func(from *json.Decoder) error { return eachElement(from, keyManifests, look) })
}

// eachElement decodes the elements of a list that an object has, one by one: however many there are, they take no memory.
func eachElement[T any](from *json.Decoder, key string, look func(T)) error {
	if err := expect(from, '{'); err != nil {
		return err
	}
	for from.More() {
		name, err := from.Token()
		if err != nil {
			return err
		}
		if name == key {
			err = eachOf(from, look)
		} else {
			err = from.Decode(new(json.RawMessage))
		}
		if err != nil {
			return err
		}
	}
	return expect(from, '}')
}

// eachOf decodes the elements of a list, one by one.
func eachOf[T any](from *json.Decoder, look func(T)) error {
	switch begin, err := from.Token(); {
	case err != nil:
		return err
	case begin == nil: // a list may be null
		return nil
	case begin != json.Delim('['):
		return fmt.Errorf("%v is no list", begin)
	}
	for from.More() {
		var one T
		if err := from.Decode(&one); err != nil {
			return err
		}
		look(one)
	}
	return expect(from, ']')
}

func expect(from *json.Decoder, want json.Delim) error {
	got, err := from.Token()
	switch {
	case err == nil && got == nil:
		return fmt.Errorf("null is where %v should be", want)
	case err == nil && got != want:
		return fmt.Errorf("%v is where %v should be", got, want)
	}
	return err
}

func (f *files) readJSON(ctx context.Context, name string, read func(*json.Decoder) error) error {
	fsys, err := f.opened(ctx)
	if err != nil {
		return err
	}
	file, info, err := openFile(fsys, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w: it has no %s", f.what, berth.ErrLayoutInvalid, name)
	case err != nil:
		return fmt.Errorf("%s: its %s: %w", f.what, name, err)
	}
	defer file.Close()
	if info.Size() > maxIndex {
		return fmt.Errorf("%s: %w: its %s has %d bytes, at most %d are read", f.what, berth.ErrLayoutInvalid, name, info.Size(), maxIndex)
	}
	decoder := json.NewDecoder(steady{ctx, io.LimitReader(file, maxIndex)})
	err = read(decoder)
	if err == nil && decoder.More() {
		err = errors.New("something follows its end")
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", f.what, ctx.Err())
	}
	return fmt.Errorf("%s: %w: its %s does not parse: %w", f.what, berth.ErrLayoutInvalid, name, err)
}

// openFile opens a regular file. What it is, is asked first: to open a pipe would be to wait for
// whoever writes it.
func openFile(fsys fs.FS, name string) (fs.File, fs.FileInfo, error) {
	info, err := fs.Stat(fsys, name)
	if err == nil && !info.Mode().IsRegular() {
		err = errIrregular
	}
	if err != nil {
		return nil, nil, sayPath(err)
	}
	file, err := fsys.Open(name)
	if err != nil {
		return nil, nil, sayPath(err)
	}
	return file, info, nil
}

var errIrregular = errors.New("it is no regular file")

// choice picks the entry that a name means, as they come.
type choice struct {
	name  string
	count int
	found *v1.Descriptor
	known []string // some of the names that would have been right
}

func (c *choice) look(entry v1.Descriptor) {
	c.count++
	name := entry.Annotations[v1.AnnotationRefName]
	if name != "" && len(c.known) < maxKnown {
		c.known = append(c.known, printable(name))
	}
	if c.found == nil && name == c.name || c.name == "" && c.count == 1 {
		c.found = &entry
	}
}

// made is the entry that was picked, or says why there is none.
func (c *choice) made() (v1.Descriptor, error) {
	if c.found != nil && (c.name != "" || c.count == 1) {
		return *c.found, nil
	}
	return v1.Descriptor{}, fmt.Errorf("%w: %s", berth.ErrManifestUnknown, c.unmade())
}

func (c *choice) unmade() string {
	names := strings.Join(c.known, ", ")
	switch {
	case c.count == 0:
		return "it holds no image"
	case c.name != "" && names == "":
		return fmt.Sprintf("it has no image %q; none has a name", c.name)
	case c.name != "":
		return fmt.Sprintf("it has no image %q; it has %s", c.name, names)
	case names == "":
		return fmt.Sprintf("it has %d images, and none has a name to choose it by", c.count)
	}
	return fmt.Sprintf("it has %d images; choose one by its name: %s", c.count, names)
}

// clean leaves out what an entry says about its place in the index.
func clean(d v1.Descriptor) v1.Descriptor {
	d.Annotations = nil
	return d
}

// maxKnown is how many of the names are told that would have been right.
const maxKnown = 5

// printable is a name as an error tells it, of whatever it consists.
func printable(name string) string {
	if len(name) > 200 || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("%.200q", name)
	}
	return name
}

func (f *files) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return nil, fmt.Errorf("%s: %w", f.what, err)
	}
	fsys, err := f.opened(ctx)
	if err != nil {
		return nil, err
	}
	file, info, err := openFile(fsys, blobPath(desc))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %s: %w: its file is missing", f.what, desc.Digest, berth.ErrBlobUnknown)
	case errors.Is(err, errIrregular):
		return nil, fmt.Errorf("%s: %s: %w: %w", f.what, desc.Digest, berth.ErrBlobUnknown, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %s: %w", f.what, desc.Digest, err)
	case info.Size() != desc.Size:
		return nil, errors.Join(file.Close(), fmt.Errorf("%s: %s: %w: its file has %d bytes, the descriptor says %d", f.what, desc.Digest, berth.ErrBlobUnknown, info.Size(), desc.Size))
	}
	return file, nil
}

func blobPath(desc v1.Descriptor) string {
	return v1.ImageBlobsDir + "/" + desc.Digest.Algorithm().String() + "/" + desc.Digest.Encoded()
}
