package berthtest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// steps is in how many parts a second's bytes go where they are limited.
const steps = 20

// errCut is what the writer of an answer hears that is cut. It goes no further.
var errCut = errors.New("the answer is cut here")

// answer notes the status before the client can see it, and passes on as much as is wanted and as fast.
type answer struct {
	http.ResponseWriter
	entry *entry
	pace  pace
	left  int64 // bytes of the body until the connection is cut
}

func (a *answer) WriteHeader(status int) {
	if a.left == 0 {
		return
	}
	if status >= http.StatusOK { // others come before the answer
		a.entry.answered(status)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		if a.left == 0 {
			return n, errCut
		}
		part := p[n:]
		part = part[:min(int64(a.pace.atOnce(len(part))), a.left)]
		var m int
		m, err = a.ResponseWriter.Write(part)
		n, a.left = n+m, a.left-int64(m)
		if err == nil && (a.pace.rate > 0 || a.left == 0) {
			err = errors.Join(a.FlushError(), a.pace.wait(m))
		}
	}
	return n, err
}

// FlushError is for what streams an answer. Of one that is cut before its head nothing may get out.
func (a *answer) FlushError() error {
	if a.entry.isAnswered() {
		return http.NewResponseController(a.ResponseWriter).Flush()
	}
	return nil
}

// slowBody is the body of a request, as fast as is wanted.
type slowBody struct {
	io.ReadCloser
	pace pace
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:b.pace.atOnce(len(p))])
	if ended := b.pace.wait(n); ended != nil {
		return n, ended
	}
	return n, err // io.EOF as it is
}

// pace is how fast bytes may pass while a context lasts.
type pace struct {
	ctx  context.Context
	rate int64 // bytes a second. Zero: any
}

// atOnce is how many of n bytes may pass before the next wait.
func (p pace) atOnce(n int) int {
	if p.rate == 0 {
		return n
	}
	return int(min(int64(n), max(p.rate/steps, 1)))
}

// wait lasts as long as n bytes take.
func (p pace) wait(n int) error {
	if p.rate == 0 {
		return nil
	}
	return sleep(p.ctx, time.Duration(float64(n)/float64(p.rate)*float64(time.Second)))
}

// sleep waits, but not for longer than the context lasts.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
