package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/berthoci/berth/internal/retry"
)

const (
	// quiet is how long nothing may travel in either direction while a request is under way.
	quiet = 30 * time.Second
	// digesting is how long a host may take to answer a request that has brought it something, or that takes something away,
	// beyond quiet: it may have to hash a blob that came in many parts.
	digesting = 5 * time.Minute
)

// errSilent is what ends a request during which nothing travels any more.
var errSilent = errors.New("the registry has fallen silent: nothing came for too long")

// watched sends a request, and ends it where nothing travels for too long: neither its body, nor the answer, nor the
// answer's body. How long the caller takes, to give what is to be sent or to take what has come, is not the host's fault.
func watched(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := newWatch(ctx, cancel)
	out := req.Clone(ctx)
	switch {
	case retry.HasBody(req):
		out.Body = &sentBody{ReadCloser: req.Body, watch: w}
	case req.Method == http.MethodPut || req.Method == http.MethodDelete:
		w.within(quiet + digesting)
	}
	resp, err := base.RoundTrip(out)
	if err != nil {
		err = w.reason(err)
		w.end()
		return nil, err
	}
	w.answer()
	resp.Request = req
	resp.Body = &receivedBody{ReadCloser: resp.Body, watch: w}
	return resp, nil
}

// watch ends a request when its time is up.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu       sync.Mutex // guards the fields below
	timer    *time.Timer
	answered bool // what is still sent is of no account
	over     bool
}

func newWatch(ctx context.Context, cancel context.CancelCauseFunc) *watch {
	return &watch{ctx: ctx, cancel: cancel, timer: time.AfterFunc(quiet, func() { cancel(errSilent) })}
}

// within has the request end, unless something happens before the limit is over. Zero: the host has all the time.
func (w *watch) within(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set(limit)
}

// sending is within for what is sent, which does not count any more when the answer is there.
func (w *watch) sending(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.answered {
		w.set(limit)
	}
}

// set has the timer run for a time. The caller holds mu.
func (w *watch) set(limit time.Duration) {
	w.timer.Stop()
	if limit > 0 && !w.over {
		w.timer.Reset(limit)
	}
}

// answer notes that the answer has begun. From then on its reader has the time that it takes.
func (w *watch) answer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered = true
	w.set(0)
}

func (w *watch) end() {
	w.mu.Lock()
	w.over = true
	w.set(0)
	w.mu.Unlock()
	w.cancel(nil)
}

// reason is why a request has failed: its context does not tell who has ended it.
func (w *watch) reason(err error) error {
	if context.Cause(w.ctx) == errSilent {
		return errSilent
	}
	return err
}

// sentBody is the body of a request.
type sentBody struct {
	io.ReadCloser
	watch *watch
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.watch.sending(0)
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
		b.watch.sending(quiet)
		return n, nil
	case err != io.EOF:
		err = &sourceError{err}
	}
	b.watch.sending(quiet + digesting)
	return n, err
}

// receivedBody is the body of an answer. The request is over when it is closed.
type receivedBody struct {
	io.ReadCloser
	watch *watch
}

func (b *receivedBody) Read(p []byte) (int, error) {
	b.watch.within(quiet)
	n, err := b.ReadCloser.Read(p)
	b.watch.within(0)
	if err != nil && err != io.EOF {
		err = b.watch.reason(err)
	}
	return n, err
}

func (b *receivedBody) Close() error {
	err := b.ReadCloser.Close()
	b.watch.end()
	return err
}
