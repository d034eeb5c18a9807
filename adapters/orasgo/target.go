package orasgo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// cancelTime is how long the end of an upload may take that has failed.
const cancelTime = 5 * time.Second

// Target is a repository as an oras.GraphTarget. It is also a content.Deleter and content.Untagger, and of package
// registry a ReferenceFetcher, ReferencePusher, ReferrerLister, TagLister and Mounter.
type Target struct{ repo berth.Repository }

// NewTarget makes a target of a repository, the layout's or a remote registry's. It does no I/O.
func NewTarget(repo berth.Repository) *Target { return &Target{repo} }

// Fetch opens what desc describes. The context governs all that is read of it.
//
// Errors: errdef.ErrNotFound, also for content of another size.
func (t *Target) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := checkDigest(desc); err != nil {
		return nil, err
	}
	if manifest.IsManifest(desc.MediaType) {
		_, opened, err := t.fetchManifest(ctx, string(desc.Digest))
		return opened, err
	}
	opened, err := t.repo.OpenBlob(ctx, desc.Digest)
	if err != nil {
		return nil, outward(err)
	}
	if size := opened.Descriptor().Size; size != desc.Size {
		opened.Close()
		return nil, outward(fmt.Errorf("%s@%s: %w: it has %d bytes, its descriptor says %d", t.repo.Name(), desc.Digest, berth.ErrBlobUnknown, size, desc.Size))
	}
	return opened, nil
}

func (t *Target) fetchManifest(ctx context.Context, ref string) (ocispec.Descriptor, io.ReadCloser, error) {
	m, err := t.repo.FetchManifest(ctx, ref, nil)
	if err != nil {
		return ocispec.Descriptor{}, nil, outward(err)
	}
	return m.Descriptor, io.NopCloser(bytes.NewReader(m.Raw)), nil
}

func checkDigest(desc ocispec.Descriptor) error {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return both{err, errdef.ErrInvalidDigest}
	}
	return nil
}

// Exists reports whether the repository has what desc describes.
func (t *Target) Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if err := checkDigest(desc); err != nil {
		return false, err
	}
	var found ocispec.Descriptor
	var err error
	if manifest.IsManifest(desc.MediaType) {
		found, err = t.repo.Resolve(ctx, string(desc.Digest))
	} else {
		found, err = t.repo.StatBlob(ctx, desc.Digest)
	}
	if isMissing(err) {
		return false, nil
	}
	return err == nil && found.Size == desc.Size, outward(err)
}

// Push stores a blob or a manifest.
//
// Errors: content.ErrMismatchedDigest where the bytes are not what desc says; berth.ErrManifestBlobUnknown for a
// manifest whose children are not there; errdef.ErrSizeExceedsLimit for one beyond berth.MaxManifestSize.
func (t *Target) Push(ctx context.Context, desc ocispec.Descriptor, from io.Reader) error {
	if err := checkDigest(desc); err != nil {
		return err
	}
	if manifest.IsManifest(desc.MediaType) {
		return t.pushManifest(ctx, desc, from, nil)
	}
	upload, err := t.repo.NewUpload(ctx, &berth.UploadOptions{Algorithm: desc.Digest.Algorithm(), Size: desc.Size})
	if err != nil {
		return outward(err)
	}
	return t.receive(ctx, upload, desc, from)
}

// receive ends an upload with the bytes that it is for.
func (t *Target) receive(ctx context.Context, upload berth.Upload, desc ocispec.Descriptor, from io.Reader) error {
	if err := copyAll(upload, desc, from); err != nil {
		t.cancel(ctx, upload)
		return fmt.Errorf("%s@%s: %w", t.repo.Name(), desc.Digest, outward(err))
	}
	_, err := upload.Commit(ctx, desc.Digest)
	return outward(err)
}

// cancel ends an upload that has failed, also where that is because its context ended. A registry that cannot do
// that forgets it in time.
func (t *Target) cancel(ctx context.Context, upload berth.Upload) {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer done()
	upload.Cancel(ctx)
}

// copyAll copies as many bytes as desc says, and fails if there are others.
func copyAll(to io.Writer, desc ocispec.Descriptor, from io.Reader) error {
	n, err := io.Copy(to, io.LimitReader(from, desc.Size))
	if err != nil {
		return err
	}
	if n < desc.Size {
		return fmt.Errorf("%w: %d bytes came, its descriptor says %d", berth.ErrDigestInvalid, n, desc.Size)
	}
	switch more, err := io.CopyN(io.Discard, from, 1); {
	case more > 0:
		return fmt.Errorf("%w: more than the %d bytes came that its descriptor says", berth.ErrDigestInvalid, desc.Size)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

func (t *Target) pushManifest(ctx context.Context, desc ocispec.Descriptor, from io.Reader, tags []string) error {
	if desc.Size > berth.MaxManifestSize {
		return outward(fmt.Errorf("%s@%s: %w: it has %d bytes, at most %d are taken", t.repo.Name(), desc.Digest, berth.ErrSizeInvalid, desc.Size, berth.MaxManifestSize))
	}
	var raw bytes.Buffer
	if err := copyAll(&raw, desc, from); err != nil {
		return fmt.Errorf("%s@%s: %w", t.repo.Name(), desc.Digest, outward(err))
	}
	_, err := t.repo.PushManifest(ctx, raw.Bytes(), &berth.PushOptions{MediaType: desc.MediaType, Digest: desc.Digest, Tags: tags})
	return outward(err)
}

// Delete removes a blob, or a manifest with all tags that point at it.
//
// Errors: errdef.ErrNotFound, errdef.ErrUnsupported.
func (t *Target) Delete(ctx context.Context, desc ocispec.Descriptor) error {
	if err := checkDigest(desc); err != nil {
		return err
	}
	if manifest.IsManifest(desc.MediaType) {
		return outward(t.repo.DeleteManifest(ctx, desc.Digest))
	}
	return outward(t.repo.DeleteBlob(ctx, desc.Digest))
}

// Mount makes a blob of another repository of the same registry one of this. Where the registry does not do that,
// its bytes are pushed, which getContent returns.
//
// Errors: those of Push; that of getContent; errdef.ErrUnsupported where the blob is to be pushed and getContent is nil.
func (t *Target) Mount(ctx context.Context, desc ocispec.Descriptor, fromRepo string, getContent func() (io.ReadCloser, error)) error {
	if err := checkDigest(desc); err != nil {
		return err
	}
	opts := &berth.UploadOptions{Algorithm: desc.Digest.Algorithm(), Size: desc.Size, Mount: desc.Digest, From: fromRepo}
	upload, err := t.repo.NewUpload(ctx, opts)
	if errors.Is(err, berth.ErrMounted) {
		return nil
	}
	if err != nil {
		return outward(err)
	}
	if getContent == nil {
		t.cancel(ctx, upload)
		return outward(fmt.Errorf("%s@%s: %w: it cannot be mounted from %s", t.repo.Name(), desc.Digest, berth.ErrUnsupported, fromRepo))
	}
	opened, err := getContent()
	if err != nil {
		t.cancel(ctx, upload)
		return err
	}
	defer opened.Close()
	return t.receive(ctx, upload, desc, opened)
}
