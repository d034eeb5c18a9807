package sdk

import (
	"context"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// files is the layout as a source of images whose blobs are read from the layout's own files, which need no way through the
// process that serves it. Who receives them verifies them.
type files struct{ *Registry }

// Host is empty: what is here has no host.
func (f files) Host() string { return "" }

func (f files) Repository(name string) (berth.Repository, error) {
	repo, err := f.Registry.Repository(name)
	return fileRepository{repo, f.dir}, err
}

type fileRepository struct {
	berth.Repository
	layout string
}

// OpenBlob opens the blob's file. One that is not there may still be in another process's hands, and is asked for.
func (r fileRepository) OpenBlob(ctx context.Context, d digest.Digest) (berth.Blob, error) {
	if err := berth.ValidateDigest(d); err != nil {
		return nil, err
	}
	file, err := os.Open(blobFile(r.layout, d))
	if err != nil {
		return r.Repository.OpenBlob(ctx, d)
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		file.Close()
		return r.Repository.OpenBlob(ctx, d)
	}
	return fileBlob{file, v1.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: info.Size()}}, nil
}

// blobFile is where a layout has a blob.
func blobFile(layout string, d digest.Digest) string {
	return filepath.Join(layout, v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

type fileBlob struct {
	*os.File
	desc v1.Descriptor
}

func (b fileBlob) Descriptor() v1.Descriptor { return b.desc }
