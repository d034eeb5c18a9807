package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/retry"
)

const (
	// maxResent is up to which size a blob is sent again from its start, by whoever finds that it has to be. A larger one goes
	// on where it was.
	maxResent = 1 << 20
	// maxChunk and minChunk bound the parts that a blob is sent in where the registry does not take it at once.
	maxChunk = 16 << 20
	minChunk = 1 << 20
	// maxSetbacks is how often in a row a push may fail without having brought anything.
	maxSetbacks = 8
	// maxUploads is how often a push may begin from the start.
	maxUploads = 5
	// abandonTime is how long the end of an upload may take that nobody waits for any more.
	abandonTime = 2 * time.Second
)

// BlobOptions say how a blob is pushed. Nil is the zero value.
type BlobOptions struct {
	// Upload is the ID of an upload that was begun earlier, also by another process: it is continued, if the registry still
	// has it. Zero: a new one is begun.
	Upload string
	// Began is told the ID of each upload that is begun. May be nil.
	Began func(id string)
	// Sent is told how many bytes more were given to the connection, and where in the blob they end, from one goroutine at a
	// time. May be nil.
	Sent func(n int, end int64)
}

// PushBlob uploads a blob whose digest and size are known: in one request after the one that begins the upload, or, where
// the registry does not take that, in chunks. A push that breaks off goes on from where the registry says that it
// was. open gives the blob's bytes from the start; it is called once more for each time that something has to be sent again.
//
// A push that fails for good cancels its upload. One whose context ends leaves it to who continues it, if Began was told of it,
// and cancels it otherwise. When it returns nothing is read of the blob any more, and Sent is not called, unless the blob's
// reader takes more than two seconds to return.
//
// Errors: those of Commit; berth.ErrDigestInvalid where the bytes are not what desc says; those of open.
func (r *Repository) PushBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error), opts *BlobOptions) error {
	p := &push{repo: r, desc: desc, open: open}
	if opts != nil {
		p.opts = *opts
	}
	err := p.run(ctx)
	p.drop(ctx)
	if err != nil && p.up != nil && (p.opts.Began == nil || ctx.Err() == nil) {
		p.up.abandon(ctx)
	}
	return err
}

// abandon ends an upload that has failed, also where that is because its context has ended. A registry that cannot be
// asked forgets it in time.
func (u *upload) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	_ = u.Cancel(ctx)
}

// errTooMany is what an upload is no good for any more.
var errTooMany = fmt.Errorf("%w: the registry has more bytes of it than there are", berth.ErrUploadInvalid)

// errStuck is what an upload is no good for any more whose chunks are dropped.
var errStuck = fmt.Errorf("%w: the registry takes a chunk, and has no more than before", berth.ErrUploadInvalid)

// push is one blob on its way.
type push struct {
	repo *Repository
	desc v1.Descriptor
	open func() (io.ReadCloser, error)
	opts BlobOptions

	up       *upload
	stale    *upload // one that another has taken the place of
	uploads  int     // that were begun
	parts    int     // in which the upload was sent so far
	length   int64   // of the last of them
	best     int64   // most that the registry has had of the upload
	lost     bool    // what the registry has of it is not known
	any      bool    // something was sent, so that it may be there
	expired  error   // a token has ended while something was sent
	setbacks int
	troubled bool      // there was a setback
	atOnce   bool      // in chunks it has gone wrong
	since    time.Time // the setbacks in a row, during which nothing was sent

	mu      sync.Mutex // guards the fields below, which the transport changes
	body    *pushBody  // that is being sent
	given   int64      // how far the upload was given to the transport
	moved   bool       // something was sent since the last setback
	reading error      // of the source
}

// run pushes until the blob is there, or nothing more can be done.
func (p *push) run(ctx context.Context) error {
	if p.opts.Upload != "" {
		p.resume(ctx)
	}
	for {
		done, err := p.try(ctx)
		if err != nil && ctx.Err() != nil { // what could have been mended is not what has ended it
			return fmt.Errorf("%s/%s: %w", p.repo.registry.host, p.repo.name, ctx.Err())
		}
		if done || err == nil {
			return err
		}
		wait, err := p.recover(err)
		if err != nil {
			return err
		}
		retry.Wait(ctx, wait) // if that is called off, so is what follows
	}
}

// resume takes an upload on that was begun earlier. If there is none any more, that is no failure.
func (p *push) resume(ctx context.Context) {
	up, err := p.repo.ResumeUpload(ctx, p.opts.Upload)
	if err != nil {
		return
	}
	p.up = up.(*upload)
	p.any, p.parts, p.given, p.best = true, 1, p.up.size, p.up.size
}

// try does what is next: begin, ask how far it is, send. It is done where another try would not help.
func (p *push) try(ctx context.Context) (done bool, err error) {
	switch {
	case p.up == nil:
		err = p.begin(ctx)
	case p.lost:
		if err = p.ask(ctx); errors.Is(err, berth.ErrUnauthorized) {
			return true, err // the token of this request was new
		}
	}
	if err == nil && p.up != nil {
		err = p.send(ctx)
	}
	return err == nil || p.unread() != nil, err
}

// unread is what is wrong with the source.
func (p *push) unread() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reading
}

// begin begins an upload, unless the one that was lost sight of has come to its end after all.
func (p *push) begin(ctx context.Context) error {
	if p.any {
		if got, err := p.repo.StatBlob(ctx, p.desc.Digest); err == nil && got.Size == p.desc.Size {
			return nil
		}
	}
	p.drop(ctx)
	up, err := p.repo.begin(ctx, &berth.UploadOptions{Algorithm: p.desc.Digest.Algorithm()})
	if err != nil {
		return err
	}
	p.up, p.lost, p.parts, p.best, p.expired = up, false, 0, 0, nil
	p.mu.Lock()
	p.given = 0
	p.mu.Unlock()
	p.uploads++
	if p.opts.Began != nil {
		p.opts.Began(up.ID())
	}
	return nil
}

// drop cancels an upload that is of no use any more.
func (p *push) drop(ctx context.Context) {
	if p.stale != nil {
		p.stale.abandon(ctx)
		p.stale = nil
	}
}

// ask has the registry say how far the upload is. It cannot have more of it than it was sent: there are registries that tell the
// number of bytes where the offset of the last is meant.
func (p *push) ask(ctx context.Context) error {
	before := p.up.size
	if err := p.up.ask(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	p.up.size = min(p.up.size, p.given)
	p.mu.Unlock()
	p.lost = false
	p.advance()
	if expired := p.expired; expired != nil && p.up.size <= before && !p.cut() {
		return expired
	}
	p.expired = nil
	return nil
}

// advance notes that the upload has come further, if it has.
func (p *push) advance() {
	if p.up.size > p.best {
		p.best, p.setbacks = p.up.size, 0
	}
}

// send brings the rest: at once, or in as many chunks as it takes.
func (p *push) send(ctx context.Context) error {
	if p.up.size > p.desc.Size {
		return fmt.Errorf("%s: %w", p.desc.Digest, errTooMany)
	}
	chunk := p.chunk()
	for chunk > 0 && p.desc.Size-p.up.size > chunk {
		if err := p.sendChunk(ctx, chunk); err != nil {
			return err
		}
	}
	return p.finish(ctx)
}

// chunk is how much goes in one request; zero: all.
func (p *push) chunk() int64 {
	if p.whole() {
		return 0
	}
	chunk := p.repo.registry.learnt.chunk.Load()
	if chunk > 0 {
		chunk = max(chunk, int64(p.up.least))
	}
	return chunk
}

// whole reports whether the registry has to be sent a blob in one request.
func (p *push) whole() bool {
	return p.atOnce || p.repo.registry.quirks.whole || p.repo.registry.learnt.whole.isYes()
}

func (p *push) sendChunk(ctx context.Context, length int64) error {
	body, err := p.next(length)
	if err != nil {
		return err
	}
	before := p.up.size
	resp, err := p.exchange(ctx, p.up.part(body, length), length)
	if err != nil {
		return err
	}
	defer drop(resp)
	if err := p.up.follow(resp); err != nil {
		return err
	}
	p.lost = false
	if p.up.took(before, length); p.up.size <= before {
		return fmt.Errorf("%s: %w", p.desc.Digest, errStuck)
	}
	p.advance()
	return nil
}

// finish sends what remains, with the digest, which ends the upload.
func (p *push) finish(ctx context.Context) error {
	e := p.up.finish(p.desc.Digest)
	rest := p.desc.Size - p.up.size
	e.body = http.NoBody
	if rest > 0 {
		body, err := p.next(rest)
		if err != nil {
			return err
		}
		e.body, e.length, e.once = body, rest, true
		e.header.Set("Content-Type", octetStream)
	}
	if p.up.size > 0 && rest > 0 {
		e.header.Set("Content-Range", fmt.Sprintf("%d-%d", p.up.size, p.desc.Size-1))
	}
	if rest > 0 && p.up.size == 0 && p.desc.Size <= maxResent {
		e.again = func() (io.ReadCloser, error) { return p.next(rest) }
	}
	resp, err := p.exchange(ctx, e, rest)
	if err != nil {
		return err
	}
	p.up.over = true
	p.conclude()
	return drop(resp)
}

// exchange sends a part of the blob. When it returns the transport is done with the part's body.
func (p *push) exchange(ctx context.Context, e exchange, length int64) (*http.Response, error) {
	p.lost, p.length = true, length
	resp, err := p.repo.send(ctx, e)
	p.mu.Lock()
	body := p.body
	p.body = nil
	p.mu.Unlock()
	if body != nil {
		body.wait()
	}
	return resp, err
}

// next is what follows on what the registry has.
func (p *push) next(length int64) (io.ReadCloser, error) {
	content, err := p.open()
	if err == nil && p.up.size > 0 {
		err = skip(content, p.up.size)
		if err != nil {
			content.Close()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.reading = err
		return nil, err
	}
	p.any = true
	p.parts++
	p.body = &pushBody{push: p, content: content, offset: p.up.size, end: p.up.size + length, closed: make(chan struct{})}
	return p.body, nil
}

// sent notes what the transport has read, and tells what it is to be told.
func (p *push) sent(b *pushBody, n int, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.body != b {
		return errNotWanted
	}
	if n > 0 {
		p.moved, p.given = true, max(p.given, b.offset)
	}
	if n > 0 && p.opts.Sent != nil {
		p.opts.Sent(n, b.offset)
	}
	if err != nil && err != io.EOF {
		p.reading = err
	}
	return err
}

// errNotWanted ends the reading of a body after its request.
var errNotWanted = errors.New("the request is over")

// skip passes over what is not wanted.
func skip(content io.Reader, n int64) error {
	if seeker, ok := content.(io.Seeker); ok {
		if _, err := seeker.Seek(n, io.SeekStart); err == nil {
			return nil
		}
	}
	_, err := io.CopyN(io.Discard, content, n)
	return err
}

// pushBody is a part of a blob. It finds out what is wrong with the source, which no registry can mend.
type pushBody struct {
	push        *push
	content     io.ReadCloser
	offset, end int64 // in the blob; offset is where the next Read begins

	once   sync.Once
	closed chan struct{}
}

func hasMore(r io.Reader) bool {
	n, _ := io.ReadFull(r, make([]byte, 1))
	return n > 0
}

func (b *pushBody) Read(p []byte) (int, error) {
	if b.offset == b.end {
		return 0, io.EOF
	}
	n, err := b.content.Read(p[:min(int64(len(p)), b.end-b.offset)])
	b.offset += int64(n)
	desc := b.push.desc
	switch {
	case b.offset == desc.Size && hasMore(b.content):
		n, err = 0, fmt.Errorf("%s: %w: its source has more than its %d bytes", desc.Digest, berth.ErrDigestInvalid, desc.Size)
	case errors.Is(err, io.EOF) && b.offset < b.end:
		err = fmt.Errorf("%s: %w: its source ends %d bytes too early", desc.Digest, berth.ErrDigestInvalid, desc.Size-b.offset)
	case errors.Is(err, io.EOF):
		err = io.EOF
	}
	return n, b.push.sent(b, n, err)
}

func (b *pushBody) Close() error {
	err := b.content.Close()
	b.once.Do(func() { close(b.closed) })
	return err
}

// wait returns when the transport has closed the body, which it may do after its request is over.
func (b *pushBody) wait() {
	timer := time.NewTimer(abandonTime)
	defer timer.Stop()
	select {
	case <-b.closed:
	case <-timer.C:
	}
}
