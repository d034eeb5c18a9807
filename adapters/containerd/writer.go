package containerd

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// Writer begins to write a blob under a ref, or goes on with it. One Writer has a ref at a time.
//
// Errors: errdefs.ErrAlreadyExists where the descriptor's digest is there; errdefs.ErrUnavailable where another
// Writer has the ref; errdefs.ErrInvalidArgument without a ref, and for what is no digest.
func (s *Store) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Ref == "" {
		return nil, fmt.Errorf("writer without a ref: %w", errdefs.ErrInvalidArgument)
	}
	if o.Desc.Digest != "" {
		if err := s.checkAbsent(ctx, o.Desc.Digest); err != nil {
			return nil, err
		}
	}
	in, err := s.take(o.Ref)
	if err != nil {
		return nil, err
	}
	w := &writer{ctx: ctx, store: s, ref: o.Ref, in: in}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err = in.open(ctx, o.Desc); err != nil {
		s.release(o.Ref, in)
		return nil, w.failed(err)
	}
	return w, nil
}

// checkAbsent returns errdefs.ErrAlreadyExists for content that is there.
func (s *Store) checkAbsent(ctx context.Context, d digest.Digest) error {
	_, err := s.Info(ctx, d)
	if isMissing(err) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%s@%s: %w", s.repo.Name(), d, errdefs.ErrAlreadyExists)
	}
	return err
}

// writer writes under a ref that it alone has.
type writer struct {
	ctx   context.Context
	store *Store
	ref   string
	in    *ingest

	closed bool          // guarded by in.mu
	digest digest.Digest // of what was committed; guarded by in.mu
}

var (
	errClosed  = both{errors.New("the writer is closed"), errdefs.ErrFailedPrecondition}
	errAborted = both{errors.New("the writing was aborted"), errdefs.ErrAborted}
	errNoWay   = both{errors.New("the upload could not begin anew"), errdefs.ErrFailedPrecondition}
)

// usable is called with the ingest's mu held.
func (w *writer) usable() error {
	switch {
	case w.closed:
		return w.failed(errClosed)
	case w.in.over:
		return w.failed(errAborted)
	case w.in.upload == nil:
		return w.failed(errNoWay)
	}
	return nil
}

func (w *writer) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ref %q: %w", w.ref, outward(err))
}

func (w *writer) Write(p []byte) (int, error) {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	if err := w.usable(); err != nil {
		return 0, err
	}
	n, err := w.in.write(p)
	return n, w.failed(err)
}

func (w *writer) Status() (content.Status, error) {
	status := *w.in.status.Load()
	status.Ref = w.ref
	return status, nil
}

// Digest is that of what was written so far.
func (w *writer) Digest() digest.Digest {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	if w.digest != "" {
		return w.digest
	}
	return w.in.digester.Digest()
}

// Truncate takes zero alone: the upload begins anew.
func (w *writer) Truncate(size int64) error {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	if size != 0 {
		return w.failed(fmt.Errorf("truncate to %d bytes, which is possible to none alone: %w", size, errdefs.ErrNotImplemented))
	}
	return w.failed(w.in.begin(w.ctx, *w.in.status.Load()))
}

// Close keeps what was written, for the next Writer of the ref.
func (w *writer) Close() error {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	if w.closed {
		return nil
	}
	return w.failed(w.end())
}

func (w *writer) end() error {
	w.closed = true
	defer w.store.release(w.ref, w.in)
	return w.in.leave()
}

// Commit makes a blob of what was written. A digest that is not that of the bytes, and a size that is not theirs, are
// refused before the registry is asked: then the next Writer of the ref goes on. Whatever the registry itself
// refuses is lost.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	w.in.mu.Lock()
	defer w.in.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	err := w.commit(ctx, size, expected, opts)
	return w.failed(errors.Join(err, w.end()))
}

func (w *writer) commit(ctx context.Context, size int64, expected digest.Digest, opts []content.Opt) error {
	d, err := w.check(size, expected, opts)
	if err != nil {
		return err
	}
	if err := w.store.checkAbsent(ctx, d); err != nil {
		if errors.Is(err, errdefs.ErrAlreadyExists) {
			w.in.over = true
			err = errors.Join(err, w.in.discard(ctx))
		}
		return err
	}
	if err := w.in.send(); err != nil {
		return err
	}
	w.in.over = true
	upload := w.in.upload
	w.in.upload = nil
	if _, err = upload.Commit(ctx, d); err != nil {
		return corrupt(err)
	}
	w.digest = d
	return nil
}

// check compares what was written with what its writer says of it. A digest of another algorithm than the one that
// was announced is the registry's to compare.
func (w *writer) check(size int64, expected digest.Digest, opts []content.Opt) (digest.Digest, error) {
	for _, opt := range opts {
		if err := opt(&content.Info{}); err != nil {
			return "", err
		}
	}
	if size > 0 && size != w.in.offset {
		return "", fmt.Errorf("%d bytes were written, and %d are to be committed: %w", w.in.offset, size, errdefs.ErrFailedPrecondition)
	}
	written := w.in.digester.Digest()
	if expected == "" {
		return written, nil
	}
	if err := checkDigest(expected); err != nil {
		return "", err
	}
	if expected.Algorithm() == written.Algorithm() && expected != written {
		return "", corrupt(fmt.Errorf("%w: what was written hashes to %s, not to %s", berth.ErrDigestInvalid, written, expected))
	}
	return expected, nil
}

// corrupt makes an error about a digest that is not that of the bytes one of containerd's.
func corrupt(err error) error {
	if errors.Is(err, berth.ErrDigestInvalid) {
		return both{err, errdefs.ErrFailedPrecondition}
	}
	return err
}
