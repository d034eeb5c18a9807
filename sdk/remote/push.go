package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
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
	// Sent is told how many bytes more were given to the connection, from one goroutine at a time. May be nil.
	Sent func(n int)
}

// PushBlob uploads a blob whose digest and size are known: in one request after the one that begins the upload, or, where
// the registry does not take that, in chunks. A push that breaks off goes on from where the registry says that it
// was. open gives the blob's bytes from the start; it is called once more for each time that something has to be sent again.
//
// A push that fails for good cancels its upload. One whose context ends leaves it to who continues it, if Began was told of it,
// and cancels it otherwise.
//
// Errors: those of Commit; berth.ErrDigestInvalid where the bytes are not what desc says; those of open.
func (r *Repository) PushBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error), opts *BlobOptions) error {
	p := &push{repo: r, desc: desc, open: open, moved: time.Now()}
	if opts != nil {
		p.opts = *opts
	}
	err := p.run(ctx)
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

// push is one blob on its way.
type push struct {
	repo *Repository
	desc v1.Descriptor
	open func() (io.ReadCloser, error)
	opts BlobOptions

	up       *upload
	lost     bool // what the registry has of it is not known
	any      bool // something was sent, so that it may be there
	setbacks int
	moved    time.Time // when it has last come further
	reading  error     // of the source
}

// run pushes until the blob is there, or nothing more can be done.
func (p *push) run(ctx context.Context) error {
	if p.opts.Upload != "" {
		p.resume(ctx)
	}
	for {
		done, err := p.try(ctx)
		if done || err == nil {
			return err
		}
		wait, err := p.recover(err)
		if err != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("%s/%s: %w", p.repo.registry.host, p.repo.name, err)
		}
	}
}

// resume takes an upload on that was begun earlier. If there is none any more, that is no failure.
func (p *push) resume(ctx context.Context) {
	up, err := p.repo.ResumeUpload(ctx, p.opts.Upload)
	if err != nil {
		return
	}
	p.up = up.(*upload)
	p.any = true
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
	return err == nil || ctx.Err() != nil || p.reading != nil, err
}

// begin begins an upload, unless the one that was lost sight of has come to its end after all.
func (p *push) begin(ctx context.Context) error {
	if p.any {
		if got, err := p.repo.StatBlob(ctx, p.desc.Digest); err == nil && got.Size == p.desc.Size {
			return nil
		}
	}
	up, err := p.repo.begin(ctx, &berth.UploadOptions{Algorithm: p.desc.Digest.Algorithm()})
	if err != nil {
		return err
	}
	p.up, p.lost = up, false
	if p.opts.Began != nil {
		p.opts.Began(up.ID())
	}
	return nil
}

// ask has the registry say how far the upload is.
func (p *push) ask(ctx context.Context) error {
	before := p.up.size
	e := exchange{request: ocirequest.Request{Kind: ocirequest.UploadStatus}, location: p.up.location}
	resp, err := p.repo.send(ctx, e)
	if err != nil {
		return err
	}
	defer drop(resp)
	p.up.size = 0
	if err := p.up.follow(resp); err != nil {
		return err
	}
	p.lost = false
	if p.up.size > before {
		p.setbacks, p.moved = 0, time.Now()
	}
	return nil
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
	if p.repo.registry.quirks.whole {
		return 0
	}
	chunk := p.repo.registry.learnt.chunk.Load()
	if chunk > 0 {
		chunk = max(chunk, int64(p.up.least))
	}
	return chunk
}

func (p *push) sendChunk(ctx context.Context, length int64) error {
	body, err := p.body(length)
	if err != nil {
		return err
	}
	e := p.up.part(body, length)
	p.lost = true
	before := p.up.size
	resp, err := p.repo.send(ctx, e)
	if err != nil {
		return err
	}
	defer drop(resp)
	if err := p.up.follow(resp); err != nil {
		return err
	}
	if p.up.size == before { // it does not say
		p.up.size = before + length
	}
	p.lost, p.setbacks, p.moved = false, 0, time.Now()
	return nil
}

// finish sends what remains, with the digest, which ends the upload.
func (p *push) finish(ctx context.Context) error {
	e := p.up.finish(p.desc.Digest)
	rest := p.desc.Size - p.up.size
	e.body = http.NoBody
	if rest > 0 {
		body, err := p.body(rest)
		if err != nil {
			return err
		}
		e.body, e.length = body, rest
		e.header.Set("Content-Type", octetStream)
	}
	if p.up.size > 0 && rest > 0 {
		e.header.Set("Content-Range", fmt.Sprintf("%d-%d", p.up.size, p.desc.Size-1))
	}
	if rest > 0 && p.up.size == 0 && p.desc.Size <= maxResent {
		e.again = func() (io.ReadCloser, error) { return p.body(rest) }
	}
	p.lost = true
	resp, err := p.repo.send(ctx, e)
	if err != nil {
		return err
	}
	p.up.over = true
	return drop(resp)
}

// body is what follows on what the registry has.
func (p *push) body(length int64) (io.ReadCloser, error) {
	content, err := p.open()
	if err == nil && p.up.size > 0 {
		err = skip(content, p.up.size)
		if err != nil {
			content.Close()
		}
	}
	if err != nil {
		p.reading = err
		return nil, err
	}
	p.any = true
	return &pushBody{push: p, content: content, left: length, last: p.up.size+length == p.desc.Size}, nil
}

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

// pushBody is a part of a blob. It remembers what is wrong with the source, which no registry can mend.
type pushBody struct {
	push    *push
	content io.ReadCloser
	left    int64
	last    bool // it is the blob's end
}

func hasMore(r io.Reader) bool {
	n, _ := io.ReadFull(r, make([]byte, 1))
	return n > 0
}

func (b *pushBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.content.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if b.left == 0 && b.last && hasMore(b.content) {
		err = fmt.Errorf("%s: %w: its source has more than its %d bytes", b.push.desc.Digest, berth.ErrDigestInvalid, b.push.desc.Size)
		b.push.reading = err
		return 0, err
	}
	if b.push.opts.Sent != nil && n > 0 {
		b.push.opts.Sent(n)
	}
	switch {
	case errors.Is(err, io.EOF) && b.left > 0:
		err = fmt.Errorf("%s: %w: its source ends %d bytes too early", b.push.desc.Digest, berth.ErrDigestInvalid, b.left)
		b.push.reading = err
	case err != nil && !errors.Is(err, io.EOF):
		b.push.reading = err
	}
	return n, err
}

func (b *pushBody) Close() error { return b.content.Close() }
