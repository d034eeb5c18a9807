package server

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
)

// keyBits is the size of the key that signs what is generated. Nobody trusts the key: clients of that
// time want a signature, whosever it is.
const keyBits = 2048

// schema1Maker makes manifests of schema 1 of newer images. The same is made once at a time.
type schema1Maker struct {
	flights singleflight.Group
	key     func() (*rsa.PrivateKey, error) // makes it when it is first needed: that takes a while
}

func newSchema1Maker() *schema1Maker {
	return &schema1Maker{key: sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, keyBits) })}
}

// asSchema1 returns the manifest of schema 1 that is made of an image for the request's tag. It is
// stored: so what is made twice, or by two at once, is what was stored first.
func (c *call) asSchema1(image v1.Descriptor) (v1.Descriptor, error) {
	key := c.req.Repository + ":" + c.req.Reference + "@" + string(image.Digest)
	made, err, _ := c.schema1.flights.Do(key, func() (any, error) { return c.workOnSchema1(image) })
	if err == nil {
		return made.(v1.Descriptor), nil
	}
	if berth.Code(err) == "" || errors.Is(err, berth.ErrTooManyRequests) {
		return image, err
	}
	return image, fmt.Errorf("%w: the manifest is of type %s, the request accepts schema 1 only, and none can be made: %w",
		berth.ErrManifestUnknown, image.MediaType, err)
}

// workOnSchema1 waits for its turn, because manifest and config may be large. It goes on without the client
// who asked first: others may want the same.
func (c *call) workOnSchema1(image v1.Descriptor) (v1.Descriptor, error) {
	ctx := context.WithoutCancel(c.r.Context())
	turn, err := c.limiter.inWork.await(ctx, &c.client)
	if err != nil {
		return image, err
	}
	defer turn.leave()
	return c.makeSchema1(ctx, image)
}

func (c *call) makeSchema1(ctx context.Context, image v1.Descriptor) (made v1.Descriptor, err error) {
	if c.opts.ReadOnly {
		return made, fmt.Errorf("%w: the registry is read-only", berth.ErrUnsupported)
	}
	m, err := c.repo.FetchManifest(ctx, string(image.Digest), nil)
	if err != nil {
		return made, err
	}
	generated, err := c.generate(ctx, m)
	if err != nil {
		return made, err
	}
	earlier, err := c.repo.FetchManifest(ctx, string(generated.Digest()), nil) // one that cannot be read is made anew
	if err == nil || !errors.Is(err, berth.ErrManifestUnknown) {
		return earlier.Descriptor, err
	}
	if err := c.storeEmptyLayer(ctx); err != nil {
		return made, err
	}
	opts := &berth.PushOptions{MediaType: generated.MediaType(), Digest: generated.Digest(), AllowMissing: c.opts.AllowMissing}
	return c.repo.PushManifest(ctx, generated.Raw(), opts)
}

// generate makes the manifest. Its payload depends on nothing but the image and the tag.
func (c *call) generate(ctx context.Context, m berth.Manifest) (*schema1.Manifest, error) {
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	if err != nil {
		return nil, err
	}
	if doc.Config == nil {
		return nil, fmt.Errorf("%w: it has no config", berth.ErrManifestInvalid)
	}
	config, err := c.readConfig(ctx, *doc.Config)
	if err != nil {
		return nil, err
	}
	key, err := c.schema1.key()
	if err != nil {
		return nil, err
	}
	src := schema1.Image{MediaType: m.Descriptor.MediaType, Manifest: m.Raw, Config: config}
	to := schema1.Target{Ref: berth.Reference{Repository: c.req.Repository, Tag: c.req.Reference}, LibraryNamespace: schema1.LibraryNamespace}
	return schema1.Generate(src, to, key, time.Now())
}

func (c *call) readConfig(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	blob, err := c.repo.OpenBlob(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	if blob.Descriptor().Size > berth.MaxManifestSize {
		return nil, fmt.Errorf("%w: its config has %d bytes", berth.ErrSizeInvalid, blob.Descriptor().Size)
	}
	return io.ReadAll(blob)
}

// storeEmptyLayer makes sure of the blob that stands for layers that changed nothing.
func (c *call) storeEmptyLayer(ctx context.Context) error {
	if _, err := c.repo.StatBlob(ctx, schema1.EmptyLayerDigest); err == nil {
		return nil
	}
	up, err := c.repo.NewUpload(ctx, &berth.UploadOptions{Algorithm: digest.SHA256})
	if err != nil {
		return err
	}
	if _, err := up.Write(schema1.EmptyLayer()); err != nil {
		return errors.Join(err, up.Cancel(ctx))
	}
	_, err = up.Commit(ctx, schema1.EmptyLayerDigest)
	return err
}
