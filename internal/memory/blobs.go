package memory

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// patience is how long a caller waits for an upload that another one has.
const patience = 10 * time.Second

var errOver = errors.New("upload is over, or was closed")

// blob is an open blob.
type blob struct {
	*bytes.Reader
	desc v1.Descriptor
}

func (b blob) Descriptor() v1.Descriptor { return b.desc }

func (b blob) Close() error { return nil }

func (r *repository) StatBlob(_ context.Context, d digest.Digest) (v1.Descriptor, error) {
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	content, err := r.member(d)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return describe(d, content), nil
}

func (r *repository) OpenBlob(_ context.Context, d digest.Digest) (berth.Blob, error) {
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	content, err := r.member(d)
	if err != nil {
		return nil, err
	}
	return blob{bytes.NewReader(content), describe(d, content)}, nil
}

func (r *repository) DeleteBlob(_ context.Context, d digest.Digest) error {
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	_, err := r.member(d)
	delete(r.blobs, d)
	return err
}

// member returns the content of a blob that is a member of the repository. The caller holds the mutex.
func (r *repository) member(d digest.Digest) ([]byte, error) {
	if err := berth.ValidateDigest(d); err != nil {
		return nil, err
	}
	content, member := r.blobs[d]
	if !member {
		return nil, fmt.Errorf("%s@%s: %w", r.name, d, berth.ErrBlobUnknown)
	}
	return content, nil
}

// describe describes a blob, which does not know what it is.
func describe(d digest.Digest, content []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(content))}
}

// pending is an upload that is not over.
type pending struct {
	id      string
	turn    chan struct{} // full while a caller has the upload, who alone touches the content
	content []byte
}

// upload is a pending upload in the hands of one caller.
type upload struct {
	*pending
	repo *repository
	gone bool // the caller has let go of it
}

func (r *repository) NewUpload(ctx context.Context, opts *berth.UploadOptions) (berth.Upload, error) {
	if opts == nil {
		opts = &berth.UploadOptions{}
	}
	if opts.Mount != "" {
		if err := r.mount(opts); err != nil {
			return nil, err
		}
	}
	if opts.Algorithm != "" && !opts.Algorithm.Available() {
		return nil, fmt.Errorf("%w: algorithm %.20q is not available here", berth.ErrDigestInvalid, opts.Algorithm)
	}
	p := &pending{id: rand.Text(), turn: make(chan struct{}, 1)}
	r.registry.mu.Lock()
	r.uploads[p.id] = p
	r.registry.mu.Unlock()
	return r.ResumeUpload(ctx, p.id)
}

// mount returns ErrMounted where it made a blob of another repository a member of this one. Where
// there is none to mount that is no error: then the blob is uploaded.
func (r *repository) mount(opts *berth.UploadOptions) error {
	d := opts.Mount
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	for name, source := range r.registry.repositories {
		content, member := source.blobs[d]
		if member && (opts.From == "" || opts.From == name) && (opts.MayMount == nil || opts.MayMount(name)) {
			r.blobs[d] = content
			return berth.ErrMounted
		}
	}
	return nil
}

func (r *repository) ResumeUpload(ctx context.Context, id string) (berth.Upload, error) {
	p := r.pending(id)
	if p == nil {
		return nil, r.unknownUpload(id)
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(patience):
		return nil, fmt.Errorf("upload %s: %w: another caller has it", id, berth.ErrUploadInvalid)
	}
	if r.pending(id) == nil { // it ended while we waited
		<-p.turn
		return nil, r.unknownUpload(id)
	}
	return &upload{pending: p, repo: r}, nil
}

func (r *repository) pending(id string) *pending {
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	return r.uploads[id]
}

func (r *repository) unknownUpload(id string) error {
	return fmt.Errorf("%s: %w: %.60q", r.name, berth.ErrUploadUnknown, id)
}

func (u *upload) ID() string { return u.id }

func (u *upload) Size() int64 { return int64(len(u.content)) }

func (u *upload) Write(p []byte) (int, error) {
	if u.gone {
		return 0, errOver
	}
	u.content = append(u.content, p...)
	return len(p), nil
}

func (u *upload) Commit(ctx context.Context, d digest.Digest) (v1.Descriptor, error) {
	if u.gone {
		return v1.Descriptor{}, u.repo.unknownUpload(u.id)
	}
	defer u.Cancel(ctx) // the upload is over, whatever is returned
	if err := berth.ValidateDigest(d); err != nil {
		return v1.Descriptor{}, err
	}
	if got := d.Algorithm().FromBytes(u.content); got != d {
		return v1.Descriptor{}, fmt.Errorf("upload to %s: %w: it hashes to %s, not to %s", u.repo.name, berth.ErrDigestInvalid, got, d)
	}
	u.repo.registry.mu.Lock()
	defer u.repo.registry.mu.Unlock()
	u.repo.blobs[d] = u.content
	return describe(d, u.content), nil
}

func (u *upload) Close() error {
	if !u.gone {
		u.gone = true
		<-u.turn
	}
	return nil
}

func (u *upload) Cancel(context.Context) error {
	if u.gone {
		return nil
	}
	u.repo.registry.mu.Lock()
	delete(u.repo.uploads, u.id)
	u.repo.registry.mu.Unlock()
	return u.Close()
}
