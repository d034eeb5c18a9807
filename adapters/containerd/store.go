package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

var (
	_ content.Store             = (*Store)(nil)
	_ content.ReferrersProvider = (*Store)(nil)
)

// Store is a repository as a [content.Store]. What it has and what it has not is told in the documentation of the
// package.
type Store struct {
	repo berth.Repository

	mu      sync.Mutex // guards the field below, and what each ingest says it guards
	ingests map[string]*ingest
}

// NewStore makes a content store of a repository, the layout's or a remote registry's. It does no I/O.
func NewStore(repo berth.Repository) *Store {
	return &Store{repo: repo, ingests: map[string]*ingest{}}
}

// Info returns digest and size of a blob or manifest.
//
// Errors: errdefs.ErrNotFound, errdefs.ErrInvalidArgument.
func (s *Store) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	if err := checkDigest(d); err != nil {
		return content.Info{}, err
	}
	desc, err := s.repo.StatBlob(ctx, d)
	if isMissing(err) {
		desc, err = s.resolve(ctx, d, err)
	}
	return content.Info{Digest: desc.Digest, Size: desc.Size}, outward(err)
}

// resolve looks among the manifests for what is no blob.
func (s *Store) resolve(ctx context.Context, d digest.Digest, missing error) (ocispec.Descriptor, error) {
	desc, err := s.repo.Resolve(ctx, string(d))
	if isMissing(err) || manifest.IsSchema1(desc.MediaType) {
		return ocispec.Descriptor{}, missing
	}
	return desc, err
}

// ReaderAt opens a blob or manifest. The context governs all that is read of it. A blob that comes over HTTP is best
// read in order: each step aside is a new download, and what was read from the first byte to the last is verified.
//
// Errors: errdefs.ErrNotFound, errdefs.ErrInvalidArgument.
func (s *Store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if err := checkDigest(desc.Digest); err != nil {
		return nil, err
	}
	first, second := s.openBlob, s.openManifest
	if manifest.IsManifest(desc.MediaType) {
		first, second = second, first
	}
	opened, err := first(ctx, desc.Digest)
	if isMissing(err) {
		opened, err = second(ctx, desc.Digest)
	}
	if err != nil {
		return nil, outward(err)
	}
	return opened, nil
}

func (s *Store) openBlob(ctx context.Context, d digest.Digest) (content.ReaderAt, error) {
	opened, err := s.repo.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	return newReaderAt(opened), nil
}

func (s *Store) openManifest(ctx context.Context, d digest.Digest) (content.ReaderAt, error) {
	m, err := s.repo.FetchManifest(ctx, string(d), nil)
	if err == nil && manifest.IsSchema1(m.Descriptor.MediaType) {
		err = fmt.Errorf("%s@%s: %w: it is of schema 1", s.repo.Name(), d, berth.ErrManifestUnknown)
	}
	if err != nil {
		return nil, err
	}
	return whole{bytes.NewReader(m.Raw)}, nil
}

// Delete takes content out of the repository: a blob, a manifest with all tags that point at it, or what is both.
//
// Errors: errdefs.ErrNotFound, errdefs.ErrInvalidArgument.
func (s *Store) Delete(ctx context.Context, d digest.Digest) error {
	if err := checkDigest(d); err != nil {
		return err
	}
	asBlob := s.repo.DeleteBlob(ctx, d)
	if asBlob != nil && !isMissing(asBlob) {
		return outward(asBlob)
	}
	asManifest := s.repo.DeleteManifest(ctx, d)
	if isMissing(asManifest) {
		return outward(asBlob)
	}
	return outward(asManifest)
}

// Referrers lists the manifests whose subject is desc.
func (s *Store) Referrers(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	for referrer, err := range s.repo.Referrers(ctx, desc.Digest, nil) {
		if err != nil {
			return nil, outward(err)
		}
		all = append(all, referrer)
	}
	return all, nil
}

var (
	errLabels = errors.New("a repository keeps no labels")
	errBlobs  = errors.New("a repository does not list its blobs")
)

// Update would change labels, which a repository does not keep.
//
// Errors: errdefs.ErrNotImplemented.
func (s *Store) Update(context.Context, content.Info, ...string) (content.Info, error) {
	return content.Info{}, both{fmt.Errorf("%s: %w", s.repo.Name(), errLabels), errdefs.ErrNotImplemented}
}

// Walk would list all content, which a repository cannot.
//
// Errors: errdefs.ErrNotImplemented.
func (s *Store) Walk(context.Context, content.WalkFunc, ...string) error {
	return both{fmt.Errorf("%s: %w", s.repo.Name(), errBlobs), errdefs.ErrNotImplemented}
}
