package ggcr

import (
	"context"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// Image returns the image that ref names in a repository, a tag or a digest. Its manifest is read at once, and
// stays what it was when the tag moves; config and layers are read when they are asked for, under ctx.
//
// Errors: berth.ErrManifestUnknown; berth.ErrUnsupported for an index, which [Index] reads, and for a manifest of
// schema 1.
func Image(ctx context.Context, repo berth.Repository, ref string) (v1.Image, error) {
	doc, err := fetch(ctx, repo, ref, manifest.Image)
	if err != nil {
		return nil, err
	}
	return newImage(doc)
}

// content is a manifest that was read from a repository, and where what it names is.
type content struct {
	ctx  context.Context
	repo berth.Repository
	desc v1.Descriptor
	raw  []byte
}

// fetch reads a manifest of that kind, and verifies it. A repository's errors name what was asked for.
func fetch(ctx context.Context, repo berth.Repository, ref string, kind manifest.Kind) (*content, error) {
	m, err := repo.FetchManifest(ctx, ref, nil)
	if err != nil {
		return nil, outward(err)
	}
	c, err := newContent(ctx, repo, m, kind)
	if err == nil && strings.Contains(ref, ":") && c.desc.Digest.String() != ref {
		err = fmt.Errorf("%w: %s came", berth.ErrDigestInvalid, c.desc.Digest)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", named(repo, ref), err)
	}
	return c, nil
}

func newContent(ctx context.Context, repo berth.Repository, m berth.Manifest, kind manifest.Kind) (*content, error) {
	if err := checkKind(m.Descriptor.MediaType, kind); err != nil {
		return nil, err
	}
	if err := manifest.Verify(m.Descriptor, m.Raw); err != nil {
		return nil, err
	}
	hash, err := v1.NewHash(string(m.Descriptor.Digest))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", berth.ErrUnsupported, err)
	}
	desc := v1.Descriptor{MediaType: types.MediaType(m.Descriptor.MediaType), Digest: hash, Size: m.Descriptor.Size}
	return &content{ctx, repo, desc, m.Raw}, nil
}

func checkKind(mediaType string, want manifest.Kind) error {
	switch got := manifest.KindOf(mediaType); {
	case got == want:
		return nil
	case got == manifest.Index:
		return fmt.Errorf("%w: it is an index of images; read it with Index", berth.ErrUnsupported)
	case got == manifest.Image:
		return fmt.Errorf("%w: it is one image, and no index; read it with Image", berth.ErrUnsupported)
	}
	return fmt.Errorf("%w: its media type is %.100q", berth.ErrUnsupported, mediaType)
}

// named is a manifest's name for errors.
func named(repo berth.Repository, ref string) string {
	if strings.Contains(ref, ":") {
		return repo.Name() + "@" + ref
	}
	return repo.Name() + ":" + ref
}

func (c *content) MediaType() (types.MediaType, error) { return c.desc.MediaType, nil }

func (c *content) RawManifest() ([]byte, error) { return c.raw, nil }

// Descriptor is how the image was found, for those who make indexes of images: see [partial.Descriptor].
func (c *content) Descriptor() (*v1.Descriptor, error) { return c.desc.DeepCopy(), nil }

// image is what partial makes an image of.
type image struct {
	*content
	parsed *v1.Manifest
	config *once[[]byte]
}

func newImage(doc *content) (v1.Image, error) {
	m, err := partial.Manifest(doc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", named(doc.repo, doc.desc.Digest.String()), berth.ErrUnsupported, err)
	}
	config := newOnce(func() ([]byte, error) { return (&blob{doc, m.Config}).read() })
	return partial.CompressedToImage(&image{doc, m, config})
}

// Manifest and ConfigFile are for layers, which are told their diff IDs from them.
func (i *image) Manifest() (*v1.Manifest, error) { return i.parsed, nil }

func (i *image) ConfigFile() (*v1.ConfigFile, error) { return partial.ConfigFile(i) }

func (i *image) RawConfigFile() ([]byte, error) { return i.config.get() }

// LayerByDigest also finds the config: to those who copy images it is one blob among others.
func (i *image) LayerByDigest(hash v1.Hash) (partial.CompressedLayer, error) {
	if hash == i.parsed.Config.Digest {
		return &blob{i.content, i.parsed.Config}, nil
	}
	for _, desc := range i.parsed.Layers {
		if desc.Digest == hash {
			return &layer{blob{i.content, desc}, i}, nil
		}
	}
	err := fmt.Errorf("%s: %w: it is no layer of the image", hash, berth.ErrBlobUnknown)
	return nil, outward(err)
}

// layer is a blob whose diff ID the config has.
type layer struct {
	blob
	image *image
}

func (l *layer) DiffID() (v1.Hash, error) { return partial.BlobToDiffID(l.image, l.desc.Digest) }

// blob is what partial makes a layer of.
type blob struct {
	in   *content
	desc v1.Descriptor
}

func (b *blob) Digest() (v1.Hash, error) { return b.desc.Digest, nil }

func (b *blob) Size() (int64, error) { return b.desc.Size, nil }

func (b *blob) MediaType() (types.MediaType, error) { return b.desc.MediaType, nil }

// Descriptor is what the manifest says: see [partial.Descriptor].
func (b *blob) Descriptor() (*v1.Descriptor, error) { return b.desc.DeepCopy(), nil }

// Exists asks without a download: see [partial.Exists].
func (b *blob) Exists() (bool, error) {
	_, err := b.in.repo.StatBlob(b.in.ctx, b.digest())
	if isMissing(err) {
		return false, nil
	}
	return err == nil, outward(err)
}

func (b *blob) Compressed() (io.ReadCloser, error) {
	opened, err := b.in.repo.OpenBlob(b.in.ctx, b.digest())
	if err != nil {
		return nil, outward(err)
	}
	return newVerifier(opened, b.digest(), b.desc.Size), nil
}

// read returns a blob that is a config.
func (b *blob) read() ([]byte, error) {
	if b.desc.Size > berth.MaxManifestSize {
		name := named(b.in.repo, b.desc.Digest.String())
		return nil, fmt.Errorf("%s: %w: it has %d bytes, at most %d are read", name, berth.ErrSizeInvalid, b.desc.Size, berth.MaxManifestSize)
	}
	opened, err := b.Compressed()
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return io.ReadAll(opened)
}

func (b *blob) digest() digest.Digest { return digest.Digest(b.desc.Digest.String()) }
