package remote

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

const octetStream = "application/octet-stream"

// StatBlob asks for a blob's size by HEAD.
func (r *Repository) StatBlob(ctx context.Context, d digest.Digest) (v1.Descriptor, error) {
	if err := berth.ValidateDigest(d); err != nil {
		return v1.Descriptor{}, err
	}
	resp, err := r.send(ctx, exchange{request: ocirequest.Request{Kind: ocirequest.BlobHead, Digest: d}})
	if err != nil {
		return v1.Descriptor{}, err
	}
	drop(resp)
	if resp.ContentLength < 0 {
		return v1.Descriptor{}, fmt.Errorf("%s/%s@%s: the registry does not tell the blob's size", r.registry.host, r.name, d)
	}
	return v1.Descriptor{MediaType: octetStream, Digest: d, Size: resp.ContentLength}, nil
}

// OpenBlob begins to download a blob. The context governs all that is read of it.
func (r *Repository) OpenBlob(ctx context.Context, d digest.Digest) (berth.Blob, error) {
	if err := berth.ValidateDigest(d); err != nil {
		return nil, err
	}
	b := &blob{ctx: ctx, repo: r, desc: v1.Descriptor{MediaType: octetStream, Digest: d, Size: -1}}
	if err := b.open(); err != nil {
		return nil, err
	}
	return b, nil
}

// DeleteBlob removes a blob from the repository.
func (r *Repository) DeleteBlob(ctx context.Context, d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	resp, err := r.send(ctx, exchange{request: ocirequest.Request{Kind: ocirequest.BlobDelete, Digest: d}})
	if err != nil {
		return err
	}
	return drop(resp)
}

// blob reads a blob over HTTP. A seek costs a new request when the next read comes.
type blob struct {
	ctx    context.Context
	repo   *Repository
	desc   v1.Descriptor
	body   io.ReadCloser
	offset int64 // of the next read
	breaks int   // of the download since the last byte
	all    int   // breaks of the download
	hashed int64 // how much hash has seen, from the start
	hash   hash.Hash
}

func (b *blob) Descriptor() v1.Descriptor { return b.desc }

// open begins the download at offset.
func (b *blob) open() error {
	e := exchange{request: ocirequest.Request{Kind: ocirequest.BlobGet, Digest: b.desc.Digest}, header: http.Header{}}
	if b.offset > 0 {
		e.header.Set("Range", fmt.Sprintf("bytes=%d-", b.offset))
	}
	resp, err := b.repo.send(b.ctx, e)
	if err != nil {
		return err
	}
	b.body = resp.Body
	if b.offset > 0 && resp.StatusCode != http.StatusPartialContent {
		if _, err := io.CopyN(io.Discard, b.body, b.offset); err != nil {
			return b.resume(err)
		}
		return nil
	}
	if b.desc.Size < 0 && resp.ContentLength < 0 {
		b.body.Close()
		return b.failed("the registry does not tell the blob's size")
	}
	if b.desc.Size < 0 {
		b.desc.Size = resp.ContentLength
	}
	return nil
}

func (b *blob) failed(format string, args ...any) error {
	return fmt.Errorf("%s/%s@%s: %w", b.repo.registry.host, b.repo.name, b.desc.Digest, fmt.Errorf(format, args...))
}

// Read reads on, and verifies what was read from start to end.
func (b *blob) Read(p []byte) (int, error) {
	if b.offset >= b.desc.Size {
		return 0, b.verify()
	}
	for b.body == nil {
		if err := b.open(); err != nil {
			return 0, err
		}
	}
	n, err := b.body.Read(p)
	b.add(p[:n])
	switch {
	case n > 0:
		b.breaks = 0
		return n, nil // an error comes again, with the next read
	case err == nil || b.ctx.Err() != nil:
		return 0, err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return 0, b.resume(err)
}

const (
	// maxBreaks is how often in a row a download may break off without a byte.
	maxBreaks = 3
	// maxAllBreaks is how often it may break off at all.
	maxAllBreaks = 100
)

// resume has the next read begin another download, where this one has broken off.
func (b *blob) resume(err error) error {
	b.body.Close()
	b.body = nil
	b.all++
	if b.breaks++; b.breaks > maxBreaks || b.all > maxAllBreaks || b.ctx.Err() != nil {
		return b.failed("%w: the download broke off at %d of %d bytes", err, b.offset, b.desc.Size)
	}
	return nil
}

// add hashes what follows on what was hashed before.
func (b *blob) add(p []byte) {
	if b.hash == nil {
		b.hash = b.desc.Digest.Algorithm().Hash()
	}
	if b.hashed == b.offset {
		b.hash.Write(p)
		b.hashed += int64(len(p))
	}
	b.offset += int64(len(p))
}

// verify is the end of the file: the digest must hold if all of it was read in order.
func (b *blob) verify() error {
	b.add(nil)
	if b.hashed != b.desc.Size {
		return io.EOF
	}
	if got := digest.NewDigest(b.desc.Digest.Algorithm(), b.hash); got != b.desc.Digest {
		return b.failed("%w: what was received hashes to %s", berth.ErrDigestInvalid, got)
	}
	return io.EOF
}

// Seek sets where the next Read begins.
func (b *blob) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.offset
	case io.SeekEnd:
		offset += b.desc.Size
	}
	if offset < 0 {
		return 0, b.failed("cannot seek to %d", offset)
	}
	if offset != b.offset && b.body != nil {
		b.body.Close()
		b.body = nil
	}
	b.offset = offset
	return offset, nil
}

// Close ends the download.
func (b *blob) Close() error {
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}
