package source

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// Image is an image to be made.
type Image struct {
	// Platform is what it runs on. What is empty of it: linux, on this machine's architecture.
	Platform v1.Platform
	// Base is the image that the layers are put upon; of an index, the one for Platform. Nil: an empty one. The caller
	// closes it, after what Build returns.
	Base Source
	// Layers are put one upon the other, the first lowest.
	Layers []Layer
	// Config is what runs in the image, and how. With a base, what is not set here stays as the base has it, and
	// variables and labels are added.
	Config v1.ImageConfig
	// Annotations of the manifest.
	Annotations map[string]string
}

// Layer is a part of an image's file system. It has the same bytes wherever and whenever it is made of the same files:
// they are in the order of their names, have one time, one owner, and one of two modes.
//
// A layer that is compressed depends on the compressor too: its bytes may change with the version of
// github.com/klauspost/compress that a program is built with, and never with that of Go.
type Layer struct {
	// FS is a tree of files, like os.DirFS("out/rootfs"), with its symbolic links as they are. A file that is called
	// .wh.NAME takes NAME of the layers below away, as everywhere in layers (image-spec, "Image Layer Filesystem
	// Changeset"). May be nil.
	FS fs.FS
	// At is the directory of the image that the tree is put into. Empty: the root.
	At string
	// Files are files, or trees of them, of this machine, by their paths in the image: {"bin/hello": "out/hello"}. Where
	// FS and Files have a path both, that of Files counts.
	Files map[string]string
	// Tar is a file that is a layer already, as tar, gzip or zstd. It is taken as it is, and FS and Files must be empty.
	Tar string
	// Compression is None, Gzip or Zstd.
	Compression Compression
	// UID and GID own all files.
	UID, GID int
	// KeepModes keeps the modes of the files. Without it, what its owner may execute has 0755, as directories have, and
	// all else 0644.
	KeepModes bool
	// CreatedBy tells in the image's history where the layer comes from.
	CreatedBy string
}

func (i Image) platform() v1.Platform {
	p := i.Platform
	p.OS, p.Architecture = cmp.Or(p.OS, "linux"), cmp.Or(p.Architecture, runtime.GOARCH)
	return p
}

// Compression is how a layer is compressed.
type Compression string

// The compressions.
const (
	None Compression = "" // quickest to make, to push into a layout and to run
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// BuildOptions say how images are made. Nil is the zero value.
type BuildOptions struct {
	// Created is the time of the image and of all its files. Zero: the beginning of 1970, as it is for images that are
	// the same whenever they are made.
	Created time.Time
	// Annotations of the index, where there are several images.
	Annotations map[string]string
	// TempDir is where layers lie until Close, in a directory that nobody else may enter; that of a program that was
	// killed goes with the first build that begins an hour later. Empty: the system's. On the file system of a layout
	// they are pushed into it without being copied: cloned, or linked.
	TempDir string
}

// time is that of all files and of the image, in whole seconds.
func (o BuildOptions) time() time.Time {
	if o.Created.IsZero() {
		return time.Unix(0, 0).UTC()
	}
	return time.Unix(o.Created.Unix(), 0).UTC()
}

// Build is an image that is made of files, or an index of several images for several platforms. It is made when it is
// first asked for, and its layers lie in temporary files until Close.
func Build(opts *BuildOptions, images ...Image) Source {
	b := &built{images: images}
	if opts != nil {
		b.opts = *opts
	}
	return b
}

// built is what was made, once it is.
type built struct {
	opts   BuildOptions
	images []Image

	mu     sync.Mutex // guards the fields below
	root   v1.Descriptor
	blobs  map[digest.Digest]blob
	temp   *unfinished // where the layers lie; nil: there are none
	closed bool
}

var errClosed = errors.New("build: it is closed, and its layers are gone")

// blob is a part of what was made: in memory, in a file, or of the base.
type blob struct {
	raw  []byte
	file *layerFile
	base Source
	desc v1.Descriptor // as the base knows it
}

func (b *built) Root(ctx context.Context) (v1.Descriptor, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return v1.Descriptor{}, errClosed
	case b.blobs != nil:
		return b.root, nil
	}
	b.blobs = map[digest.Digest]blob{}
	root, err := b.make(ctx)
	if err != nil {
		b.blobs = nil
		return v1.Descriptor{}, errors.Join(err, b.discard())
	}
	b.root = root
	return root, nil
}

func (b *built) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	b.mu.Lock()
	one, ok := b.blobs[desc.Digest]
	b.mu.Unlock()
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: %w: it is no part of what was built", desc.Digest, berth.ErrBlobUnknown)
	case one.base != nil:
		return one.base.Fetch(ctx, one.desc)
	case one.file != nil:
		return one.file.open()
	}
	return io.NopCloser(bytes.NewReader(one.raw)), nil
}

// Close removes the temporary files.
func (b *built) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs, b.closed = nil, true
	return b.discard()
}

func (b *built) discard() error {
	if b.temp == nil {
		return nil
	}
	err := errors.Join(b.temp.close(), b.temp.dir.Close())
	b.temp = nil
	return err
}

// layerDir is where layers are made.
func (b *built) layerDir() (string, error) {
	at, err := filepath.Abs(cmp.Or(b.opts.TempDir, os.TempDir()))
	if err != nil {
		return "", err
	}
	if b.temp == nil {
		dir, err := os.OpenRoot(at)
		if err != nil {
			return "", err
		}
		b.temp, err = beginUnfinished(dir, fs.ModeDir, "berth-layers-", func(name string) error { return dir.Mkdir(name, 0o700) })
		if err != nil {
			return "", errors.Join(err, dir.Close())
		}
	}
	return filepath.Join(at, b.temp.name), nil
}

func (b *built) make(ctx context.Context) (v1.Descriptor, error) {
	if len(b.images) == 0 {
		return v1.Descriptor{}, errors.New("build: there is no image to be made")
	}
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Annotations: b.opts.Annotations}
	index.SchemaVersion = 2
	for i, image := range b.images {
		desc, err := b.makeImage(ctx, image)
		if err == nil && slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return reflect.DeepEqual(d.Platform, desc.Platform) }) {
			err = fmt.Errorf("another one is for %s too: nobody could choose it", manifest.FormatPlatform(*desc.Platform))
		}
		if err != nil {
			return desc, fmt.Errorf("build image %d, for %s: %w", i, manifest.FormatPlatform(image.platform()), err)
		}
		index.Manifests = append(index.Manifests, desc)
	}
	if len(b.images) == 1 {
		return clean(index.Manifests[0]), nil
	}
	return b.put(index.MediaType, index)
}

// put keeps a document.
func (b *built) put(mediaType string, doc any) (v1.Descriptor, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return v1.Descriptor{}, err
	}
	desc := manifest.Descriptor(mediaType, raw)
	b.blobs[desc.Digest] = blob{raw: raw}
	return desc, nil
}

func (b *built) makeImage(ctx context.Context, image Image) (v1.Descriptor, error) {
	image.Platform = image.platform()
	m, config, err := b.begin(ctx, image)
	if err != nil {
		return v1.Descriptor{}, err
	}
	layers, err := b.makeLayers(ctx, image.Layers)
	if err != nil {
		return v1.Descriptor{}, err
	}
	for i, layer := range layers {
		m.Layers = append(m.Layers, layer.desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.diffID)
		config.History = append(config.History, v1.History{Created: b.created(), CreatedBy: image.Layers[i].CreatedBy})
		b.blobs[layer.desc.Digest] = blob{file: layer}
	}
	if m.Config, err = b.put(v1.MediaTypeImageConfig, config); err != nil {
		return v1.Descriptor{}, err
	}
	desc, err := b.put(m.MediaType, m)
	desc.Platform = &config.Platform
	return desc, err
}

func (b *built) created() *time.Time {
	at := b.opts.time()
	return &at
}

// begin is the image before its own layers are put upon it.
func (b *built) begin(ctx context.Context, image Image) (m v1.Manifest, config imageConfig, err error) {
	if image.Base != nil {
		if m, config, err = b.readBase(ctx, image); err != nil {
			return m, config, fmt.Errorf("its base%s: %w", called(image.Base), err)
		}
	}
	m.SchemaVersion, m.MediaType, m.Annotations = 2, v1.MediaTypeImageManifest, image.Annotations
	if m.Layers == nil {
		m.Layers, config.RootFS.DiffIDs = []v1.Descriptor{}, []digest.Digest{}
	}
	config.Platform, config.Created, config.RootFS.Type = settled(image.Platform, config.Platform), b.created(), "layers"
	config.Config = merged(config.Config, image.Config)
	return m, config, nil
}

// readBase is a base image. Its layers stay where they are.
func (b *built) readBase(ctx context.Context, image Image) (m v1.Manifest, config imageConfig, err error) {
	root, err := image.Base.Root(ctx)
	if err != nil {
		return m, config, err
	}
	base, err := choosePlatform(ctx, image.Base, root, image.Platform)
	if err == nil {
		config, err = base.baseConfig()
	}
	if err != nil {
		return m, config, err
	}
	for _, layer := range base.doc.Layers {
		b.blobs[layer.Digest] = blob{base: image.Base, desc: layer}
		layer.MediaType = ociLayer(layer.MediaType)
		m.Layers = append(m.Layers, layer)
	}
	return m, config, nil
}

// makeLayers makes layers side by side.
func (b *built) makeLayers(ctx context.Context, layers []Layer) ([]*layerFile, error) {
	dir := ""
	if isMade := func(l Layer) bool { return l.Tar == "" }; slices.ContainsFunc(layers, isMade) {
		var err error
		if dir, err = b.layerDir(); err != nil {
			return nil, err
		}
	}
	made := make([]*layerFile, len(layers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, layer := range layers {
		group.Go(func() (err error) {
			if made[i], err = makeLayer(ctx, layer, dir, b.opts); err != nil {
				return fmt.Errorf("layer %d: %w", i, err)
			}
			return nil
		})
	}
	return made, group.Wait()
}
