package ggcr

import (
	"bytes"
	"context"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// Index returns the index that ref names in a repository, a tag or a digest. It is read at once, and stays what
// it was when the tag moves; what it lists is read when it is asked for, under ctx.
//
// Errors: berth.ErrManifestUnknown; berth.ErrUnsupported for one image, which [Image] reads, and for a manifest of
// schema 1.
func Index(ctx context.Context, repo berth.Repository, ref string) (v1.ImageIndex, error) {
	doc, err := fetch(ctx, repo, ref, manifest.Index)
	if err != nil {
		return nil, err
	}
	return newIndex(doc)
}

// index is an index that was read from a repository.
type index struct {
	*content
	manifest *v1.IndexManifest
}

func newIndex(doc *content) (v1.ImageIndex, error) {
	m, err := v1.ParseIndexManifest(bytes.NewReader(doc.raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", named(doc.repo, doc.desc.Digest.String()), berth.ErrUnsupported, err)
	}
	return &index{doc, m}, nil
}

func (x *index) Digest() (v1.Hash, error) { return partial.Digest(x) }

func (x *index) Size() (int64, error) { return partial.Size(x) }

func (x *index) IndexManifest() (*v1.IndexManifest, error) { return x.manifest.DeepCopy(), nil }

func (x *index) Image(hash v1.Hash) (v1.Image, error) {
	child, err := x.child(hash, manifest.Image)
	if err != nil {
		return nil, err
	}
	return newImage(child)
}

func (x *index) ImageIndex(hash v1.Hash) (v1.ImageIndex, error) {
	child, err := x.child(hash, manifest.Index)
	if err != nil {
		return nil, err
	}
	return newIndex(child)
}

// Layer is a blob that the index lists among its manifests: see [partial.Manifests].
func (x *index) Layer(hash v1.Hash) (v1.Layer, error) {
	desc, err := x.find(hash)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToLayer(&blob{x.content, desc})
}

// child reads a manifest that the index lists. It keeps what the index says of it, its platform for example.
func (x *index) child(hash v1.Hash, kind manifest.Kind) (*content, error) {
	desc, err := x.find(hash)
	if err != nil {
		return nil, err
	}
	doc, err := fetch(x.ctx, x.repo, hash.String(), kind)
	if err != nil {
		return nil, err
	}
	doc.desc = desc
	return doc, nil
}

func (x *index) find(hash v1.Hash) (v1.Descriptor, error) {
	for _, desc := range x.manifest.Manifests {
		if desc.Digest == hash {
			return desc, nil
		}
	}
	err := fmt.Errorf("%s: %w: the index does not list it", hash, berth.ErrManifestUnknown)
	return v1.Descriptor{}, outward(err)
}
