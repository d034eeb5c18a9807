package orasgo

import (
	"context"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/source"
)

// Source is an image in a store of oras-go as berth takes it. root is its manifest or index: what Resolve, or
// oras.Pack, has returned. Close does nothing.
func Source(from content.Fetcher, root ocispec.Descriptor) source.Source { return stored{from, root} }

type stored struct {
	from content.Fetcher
	root ocispec.Descriptor
}

func (s stored) Root(context.Context) (ocispec.Descriptor, error) { return s.root, nil }

func (s stored) Close() error { return nil }

func (s stored) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	opened, err := s.from.Fetch(ctx, desc)
	if errors.Is(err, errdef.ErrNotFound) && !errors.Is(err, berth.ErrBlobUnknown) {
		err = both{err, berth.ErrBlobUnknown}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", desc.Digest, err)
	}
	return opened, nil
}
