package sdk

import (
	"bytes"
	"context"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
)

// destination is a place on disk as the target of a copy. Manifests are files there like all others.
type destination struct{ to source.Destination }

func (d destination) Has(ctx context.Context, desc v1.Descriptor) (bool, error) {
	return d.to.Has(ctx, desc)
}

func (d destination) PutBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (sync.Action, error) {
	content, err := open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	return sync.Sent, d.to.Put(ctx, desc, content)
}

func (d destination) PutManifest(ctx context.Context, desc v1.Descriptor, raw []byte, _ bool) error {
	return d.to.Put(ctx, desc, bytes.NewReader(raw))
}
