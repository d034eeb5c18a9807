package ggcr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// Source is an image as berth takes it, for sdk.Registry.Push and its like. A layer is opened when it is first
// read, once for each Fetch. Close does nothing.
func Source(img v1.Image) source.Source { return newTree(img) }

// IndexSource is an index as berth takes it, with all that it lists: images, other indexes, and blobs where the
// index can open them. What is said of [Source] holds for its images.
func IndexSource(idx v1.ImageIndex) source.Source { return newTree(idx) }

// document is what an image and an index have in common.
type document interface {
	MediaType() (types.MediaType, error)
	RawManifest() ([]byte, error)
}

// opener opens a part of an image. The context is for what is read of it, too.
type opener func(context.Context) (io.ReadCloser, error)

// tree finds the parts of an image, or of all images of an index, by their digests.
type tree struct {
	root *once[root]

	mu    sync.Mutex // guards the fields below
	parts map[string]opener
	// unread have children that are not among parts.
	unread []func() (document, error)
}

// root is what a tree begins with.
type root struct {
	desc ocispec.Descriptor
	raw  []byte
}

func newTree(doc document) *tree {
	return &tree{
		root:   newOnce(func() (root, error) { return readRoot(doc) }),
		parts:  map[string]opener{},
		unread: []func() (document, error){func() (document, error) { return doc, nil }},
	}
}

func readRoot(doc document) (root, error) {
	mediaType, err := doc.MediaType()
	if err != nil {
		return root{}, fmt.Errorf("media type: %w", inward(err, berth.ErrManifestUnknown))
	}
	raw, err := doc.RawManifest()
	if err != nil {
		return root{}, fmt.Errorf("manifest: %w", inward(err, berth.ErrManifestUnknown))
	}
	return root{manifest.Descriptor(string(mediaType), raw), raw}, nil
}

func (t *tree) Root(context.Context) (ocispec.Descriptor, error) {
	found, err := t.root.get()
	return found.desc, err
}

func (t *tree) Close() error { return nil }

func (t *tree) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	open, err := t.find(desc.Digest)
	var content io.ReadCloser
	if err == nil {
		content, err = open(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", desc.Digest, inward(err, berth.ErrBlobUnknown))
	}
	return content, nil
}

// find looks for the root, and among what it leads to.
func (t *tree) find(d digest.Digest) (opener, error) {
	found, err := t.root.get()
	if err != nil {
		return nil, err
	}
	if d == found.desc.Digest {
		return whole(found.raw), nil
	}
	return t.findPart(string(d))
}

// findPart reads documents until one names what is looked for. Those that cannot be read are tried again the next
// time, and are only told of where nothing is found.
func (t *tree) findPart(digest string) (opener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var later []func() (document, error)
	var errs []error
	for t.parts[digest] == nil && len(t.unread) > 0 {
		load := t.unread[0]
		t.unread = t.unread[1:]
		if err := t.read(load); err != nil {
			later, errs = append(later, load), append(errs, err)
		}
	}
	t.unread = append(t.unread, later...)
	switch open := t.parts[digest]; {
	case open != nil:
		return open, nil
	case len(errs) > 0:
		return nil, errors.Join(errs...)
	}
	return nil, fmt.Errorf("%w: it is no part of the image", berth.ErrBlobUnknown)
}

// read lists what a document names. It is called with mu held.
func (t *tree) read(load func() (document, error)) error {
	doc, err := load()
	if err != nil {
		return err
	}
	switch doc := doc.(type) {
	case v1.Image:
		return t.readImage(doc)
	case v1.ImageIndex:
		return t.readIndex(doc)
	}
	return nil
}

func (t *tree) readImage(img v1.Image) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	t.add(m.Config.Digest, inMemory(img.RawConfigFile))
	for _, desc := range m.Layers {
		t.add(desc.Digest, openLayer(desc.Digest, img.LayerByDigest))
	}
	return nil
}

func (t *tree) readIndex(idx v1.ImageIndex) error {
	m, err := idx.IndexManifest()
	if err != nil {
		return err
	}
	for _, desc := range m.Manifests {
		switch {
		case desc.MediaType.IsImage():
			t.addDocument(desc.Digest, func() (document, error) { return idx.Image(desc.Digest) })
		case desc.MediaType.IsIndex():
			t.addDocument(desc.Digest, func() (document, error) { return idx.ImageIndex(desc.Digest) })
		default:
			t.add(desc.Digest, openListed(idx, desc))
		}
	}
	return nil
}

// add does not replace what is there: it has the same bytes.
func (t *tree) add(hash v1.Hash, open opener) {
	if t.parts[hash.String()] == nil {
		t.parts[hash.String()] = open
	}
}

func (t *tree) addDocument(hash v1.Hash, load func() (document, error)) {
	if t.parts[hash.String()] != nil {
		return
	}
	loaded := newOnce(load)
	t.unread = append(t.unread, loaded.get)
	t.add(hash, inMemory(func() ([]byte, error) {
		doc, err := loaded.get()
		if err != nil {
			return nil, err
		}
		return doc.RawManifest()
	}))
}

// openListed opens what an index lists that is no manifest: indexes have one method for that, or the other.
func openListed(idx v1.ImageIndex, desc v1.Descriptor) opener {
	switch idx := idx.(type) {
	case interface {
		Layer(v1.Hash) (v1.Layer, error)
	}:
		return openLayer(desc.Digest, idx.Layer)
	case interface {
		Blob(v1.Hash) (io.ReadCloser, error)
	}:
		return func(context.Context) (io.ReadCloser, error) { return idx.Blob(desc.Digest) }
	}
	return func(context.Context) (io.ReadCloser, error) {
		return nil, fmt.Errorf("%w: the index lists it as %.100q, and cannot open it", berth.ErrBlobUnknown, desc.MediaType)
	}
}

func openLayer(hash v1.Hash, find func(v1.Hash) (v1.Layer, error)) opener {
	return func(ctx context.Context) (io.ReadCloser, error) {
		layer, err := find(hash)
		if err != nil {
			return nil, err
		}
		return &lateReader{ctx: ctx, open: layer.Compressed}, nil
	}
}

// inMemory opens what a function returns whole.
func inMemory(find func() ([]byte, error)) opener {
	return func(context.Context) (io.ReadCloser, error) {
		raw, err := find()
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
}

func whole(raw []byte) opener {
	return inMemory(func() ([]byte, error) { return raw, nil })
}
