package containerd

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// step is how many bytes are sent together: each step is a request of its own.
const step = 4 << 20

// ingest is what was written under one ref, by one writer after the other.
type ingest struct {
	repo berth.Repository
	held bool // a writer has it; guarded by the store

	// status is what is told of it, also while a request is under way; nil: it has not begun.
	status atomic.Pointer[content.Status]

	mu       sync.Mutex   // guards the fields below, for as long as a request takes
	upload   berth.Upload // nil between two writers
	id       string       // of the upload; empty: there is none
	digester digest.Digester
	offset   int64  // how many bytes were taken
	pending  []byte // the last of them, which the registry is not known to have
	over     bool   // committed or aborted
}

// open begins the upload, or goes on with it. It is called with mu held, as all methods are.
func (i *ingest) open(ctx context.Context, desc ocispec.Descriptor) error {
	if i.over {
		return errAborted // between its being taken and now
	}
	if i.id != "" && i.fits(desc) {
		resumed, err := i.resume(ctx)
		if resumed || err != nil {
			return err
		}
	}
	return i.begin(ctx, content.Status{Total: max(desc.Size, 0), Expected: desc.Digest, StartedAt: time.Now()})
}

// fits reports whether what was written so far can become what desc says.
func (i *ingest) fits(desc ocispec.Descriptor) bool {
	total := i.status.Load().Total
	sameSize := desc.Size <= 0 || total == 0 || desc.Size == total
	return sameSize && (desc.Digest == "" || desc.Digest.Algorithm() == i.digester.Digest().Algorithm())
}

func algorithm(d digest.Digest) digest.Algorithm {
	if d == "" {
		return digest.Canonical
	}
	return d.Algorithm()
}

// resume asks how far the registry is, and keeps what it lacks to be sent. It reports false where it has lost what
// nobody else has.
func (i *ingest) resume(ctx context.Context) (bool, error) {
	upload, err := i.repo.ResumeUpload(ctx, i.id)
	if errors.Is(err, berth.ErrUploadUnknown) {
		i.id = ""
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lacking := i.offset - upload.Size()
	if lacking < 0 || lacking > int64(len(i.pending)) {
		i.upload = upload // for begin to discard
		return false, nil
	}
	i.upload = upload
	i.pending = i.pending[int64(len(i.pending))-lacking:]
	return true, nil
}

// begin begins an upload in the place of the one that may be there.
func (i *ingest) begin(ctx context.Context, status content.Status) error {
	if err := i.discard(ctx); err != nil {
		return err
	}
	upload, err := i.repo.NewUpload(ctx, &berth.UploadOptions{Algorithm: algorithm(status.Expected), Size: status.Total})
	if err != nil {
		return err
	}
	i.upload, i.id = upload, upload.ID()
	i.digester, i.offset, i.pending = algorithm(status.Expected).Digester(), 0, nil
	status.Offset, status.UpdatedAt = 0, time.Now()
	i.status.Store(&status)
	return nil
}

// write takes bytes, and sends what makes a step. What was not sent stays for the next writer.
func (i *ingest) write(p []byte) (taken int, err error) {
	for len(p) > 0 && err == nil {
		n := min(len(p), step-len(i.pending))
		i.pending = append(i.pending, p[:n]...)
		i.digester.Hash().Write(p[:n])
		i.offset, taken, p = i.offset+int64(n), taken+n, p[n:]
		if len(i.pending) == step {
			err = i.send()
		}
	}
	status := *i.status.Load()
	status.Offset, status.UpdatedAt = i.offset, time.Now()
	i.status.Store(&status)
	return taken, err
}

// send sends what is pending.
func (i *ingest) send() error {
	if len(i.pending) == 0 {
		return nil
	}
	n, err := i.upload.Write(i.pending)
	i.pending = i.pending[:copy(i.pending, i.pending[n:])]
	return err
}

// leave lets go of the upload, for the next writer to go on with.
func (i *ingest) leave() error {
	if i.upload == nil {
		return nil
	}
	upload := i.upload
	i.upload, i.id = nil, upload.ID()
	return upload.Close()
}

// discard ends the upload, wherever it is.
func (i *ingest) discard(ctx context.Context) (err error) {
	upload := i.upload
	if upload == nil && i.id != "" {
		upload, err = i.repo.ResumeUpload(ctx, i.id)
	}
	i.upload, i.id, i.pending = nil, "", nil
	if upload != nil && err == nil {
		err = cancel(ctx, upload)
	}
	if errors.Is(err, berth.ErrUploadUnknown) {
		return nil
	}
	return err
}

// cancel ends an upload. A registry that cannot do that forgets it in time.
func cancel(ctx context.Context, upload berth.Upload) error {
	err := upload.Cancel(ctx)
	if errors.Is(err, berth.ErrUnsupported) || errors.Is(err, berth.ErrUploadUnknown) {
		return nil
	}
	return err
}
