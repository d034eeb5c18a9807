package hostile

import (
	"io"
	"net/http"
	"strings"
)

// strike lets the fault befall a request: it answers it, which is then over, or returns what it is to be
// served with. A nil fault does nothing.
func (f *Fault) strike(w http.ResponseWriter, r *http.Request, closing <-chan struct{}) (http.ResponseWriter, *http.Request, bool) {
	if f == nil {
		return w, r, false
	}
	if f.Status != 0 {
		f.answer(w)
		return w, r, true
	}
	if f.Lose {
		return loser{w}, r, false
	}
	if !f.Cut && !f.Stall {
		return w, r, false
	}
	b := &breaker{fault: f, left: f.After, w: w, r: r, closing: closing}
	if f.After == 0 {
		b.end()
	}
	if r.ContentLength == 0 {
		return b, r, false
	}
	r = r.WithContext(r.Context())
	r.Body = breakingBody{r.Body, b}
	return w, r, false
}

// loser is the writer of an answer that does not arrive.
type loser struct{ http.ResponseWriter }

func (loser) WriteHeader(int)           { panic(http.ErrAbortHandler) }
func (loser) Write([]byte) (int, error) { panic(http.ErrAbortHandler) }

func (f *Fault) answer(w http.ResponseWriter) {
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	w.Header().Set("Content-Type", "text/plain")
	if strings.HasPrefix(f.Body, "{") {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(f.Status)
	io.WriteString(w, f.Body)
}

// breaker ends a connection, or lets it stand, when enough bytes have gone over it. It is the writer
// of a response.
type breaker struct {
	fault   *Fault
	left    int64
	w       http.ResponseWriter
	r       *http.Request
	closing <-chan struct{}
}

// end does not return: the handler ends, and with it the connection.
func (b *breaker) end() {
	if b.fault.Stall {
		select {
		case <-b.r.Context().Done():
		case <-b.closing:
		}
	}
	panic(http.ErrAbortHandler)
}

func (b *breaker) Header() http.Header { return b.w.Header() }

func (b *breaker) WriteHeader(status int) { b.w.WriteHeader(status) }

func (b *breaker) Write(p []byte) (int, error) {
	n, err := b.w.Write(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == nil && b.left == 0 {
		http.NewResponseController(b.w).Flush()
		b.end()
	}
	return n, err
}

// breakingBody is the body of a request.
type breakingBody struct {
	io.ReadCloser
	b *breaker
}

func (b breakingBody) Read(p []byte) (int, error) {
	if b.b.left == 0 {
		b.b.end()
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.b.left)])
	b.b.left -= int64(n)
	return n, err
}
