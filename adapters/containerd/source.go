package containerd

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// Source is an image in a content store as berth takes it. root is its manifest or index, with digest and size: the
// Target of containerd's images. Content that a descriptor brings along in its data need not be in the store. Close
// does nothing.
func Source(provider content.Provider, root ocispec.Descriptor) source.Source {
	return stored{provider, root}
}

type stored struct {
	provider content.Provider
	root     ocispec.Descriptor
}

func (s stored) Root(context.Context) (ocispec.Descriptor, error) { return s.root, nil }

func (s stored) Close() error { return nil }

func (s stored) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if len(desc.Data) > 0 && manifest.Verify(desc, desc.Data) == nil {
		return io.NopCloser(bytes.NewReader(desc.Data)), nil
	}
	opened, err := s.provider.ReaderAt(ctx, desc)
	if errdefs.IsNotFound(err) && !isMissing(err) {
		err = both{err, berth.ErrBlobUnknown}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", desc.Digest, err)
	}
	if size := opened.Size(); size != desc.Size {
		opened.Close()
		return nil, fmt.Errorf("%s: %w: the store has %d bytes, the descriptor says %d", desc.Digest, berth.ErrBlobUnknown, size, desc.Size)
	}
	return contentReader{content.NewReader(opened), opened}, nil
}

// contentReader reads from the start what can be read at any place.
type contentReader struct {
	io.Reader
	io.Closer
}
