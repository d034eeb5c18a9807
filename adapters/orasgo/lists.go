package orasgo

import (
	"context"
	"iter"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// page is how many entries of a list are given at once.
const page = 100

// Tags calls fn with the tags that are greater than last, in byte order, some at a time. An error of fn ends it.
//
// Errors: errdef.ErrNotFound where the repository holds no manifest.
func (t *Target) Tags(ctx context.Context, last string, fn func(tags []string) error) error {
	return inPages(t.repo.Tags(ctx, last), fn)
}

// Referrers calls fn with the manifests whose subject is desc, some at a time: all, or those of an artifact type. An
// error of fn ends it.
func (t *Target) Referrers(ctx context.Context, desc ocispec.Descriptor, artifactType string, fn func(referrers []ocispec.Descriptor) error) error {
	if err := checkDigest(desc); err != nil {
		return err
	}
	return inPages(t.repo.Referrers(ctx, desc.Digest, &berth.ReferrersOptions{ArtifactType: artifactType}), fn)
}

// Predecessors returns the referrers of a manifest. A blob has none.
func (t *Target) Predecessors(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !manifest.IsManifest(desc.MediaType) {
		return nil, nil
	}
	var all []ocispec.Descriptor
	err := t.Referrers(ctx, desc, "", func(some []ocispec.Descriptor) error {
		all = append(all, some...)
		return nil
	})
	return all, err
}

// inPages gives away the entries of a list. Each page is its receiver's to keep.
func inPages[T any](entries iter.Seq2[T, error], fn func([]T) error) error {
	var some []T
	for entry, err := range entries {
		if err != nil {
			return outward(err)
		}
		if some = append(some, entry); len(some) < page {
			continue
		}
		if err := fn(some); err != nil {
			return err
		}
		some = nil
	}
	if len(some) == 0 {
		return nil
	}
	return fn(some)
}
