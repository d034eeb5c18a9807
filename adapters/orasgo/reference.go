package orasgo

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// Resolve returns the descriptor of the manifest that a reference names.
//
// Errors: errdef.ErrNotFound, errdef.ErrMissingReference, errdef.ErrInvalidReference.
func (t *Target) Resolve(ctx context.Context, reference string) (ocispec.Descriptor, error) {
	ref, err := parse(reference)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := t.repo.Resolve(ctx, ref)
	return desc, outward(err)
}

// FetchReference opens the manifest that a reference names, in one request.
//
// Errors: those of Resolve.
func (t *Target) FetchReference(ctx context.Context, reference string) (ocispec.Descriptor, io.ReadCloser, error) {
	ref, err := parse(reference)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return t.fetchManifest(ctx, ref)
}

// PushReference stores a manifest and points a tag at it, both or none. A reference that is the manifest's digest
// sets no tag.
//
// Errors: those of Push, errdef.ErrMissingReference, errdef.ErrInvalidReference, and errdef.ErrUnsupported for a blob.
func (t *Target) PushReference(ctx context.Context, desc ocispec.Descriptor, from io.Reader, reference string) error {
	if err := checkDigest(desc); err != nil {
		return err
	}
	tags, err := t.tagsFor(desc, reference)
	if err != nil {
		return err
	}
	return t.pushManifest(ctx, desc, from, tags)
}

// Tag points a tag at a manifest that is there. A tag that exists is moved.
//
// Errors: errdef.ErrNotFound, errdef.ErrMissingReference, errdef.ErrInvalidReference, and errdef.ErrUnsupported for a
// blob.
func (t *Target) Tag(ctx context.Context, desc ocispec.Descriptor, reference string) error {
	if err := checkDigest(desc); err != nil {
		return err
	}
	tags, err := t.tagsFor(desc, reference)
	if err != nil {
		return err
	}
	m, err := t.repo.FetchManifest(ctx, string(desc.Digest), nil)
	if err != nil || len(tags) == 0 {
		return outward(err)
	}
	_, err = t.repo.PushManifest(ctx, m.Raw, &berth.PushOptions{MediaType: m.Descriptor.MediaType, Digest: desc.Digest, Tags: tags})
	return outward(err)
}

// Untag removes a tag and leaves the manifest.
//
// Errors: errdef.ErrNotFound, errdef.ErrMissingReference, errdef.ErrInvalidReference.
func (t *Target) Untag(ctx context.Context, reference string) error {
	if reference == "" {
		return errdef.ErrMissingReference
	}
	return outward(t.repo.Untag(ctx, reference, nil))
}

// parse returns the tag or digest that a reference means.
func parse(reference string) (string, error) {
	if reference == "" {
		return "", errdef.ErrMissingReference
	}
	_, d, behind := strings.Cut(reference, "@")
	if !behind {
		d = reference
	}
	if !behind && !strings.Contains(d, ":") {
		return reference, outward(berth.ValidateTag(reference))
	}
	if err := berth.ValidateDigest(digest.Digest(d)); err != nil {
		return "", both{fmt.Errorf("reference %.200q: %w", reference, err), errdef.ErrInvalidReference}
	}
	return d, nil
}

// tagsFor are the tags that a manifest gets by a reference: one, or none where that is its digest.
func (t *Target) tagsFor(desc ocispec.Descriptor, reference string) ([]string, error) {
	if !manifest.IsManifest(desc.MediaType) {
		return nil, outward(fmt.Errorf("%s@%s: %w: only manifests have references, and it is %.100q", t.repo.Name(), desc.Digest, berth.ErrUnsupported, desc.MediaType))
	}
	ref, err := parse(reference)
	if err != nil {
		return nil, err
	}
	switch {
	case ref == string(desc.Digest):
		return nil, nil
	case ref != reference || strings.Contains(ref, ":"):
		return nil, fmt.Errorf("reference %.200q: %w: %s has another digest", reference, errdef.ErrInvalidReference, desc.Digest)
	}
	return []string{ref}, nil
}
