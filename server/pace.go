package server

import (
	"io"
	"net/http"
	"time"
)

// piece is how much of a body must move before a client gets more time, in bytes: so one that sends or
// takes a byte now and then does not stay for ever.
const piece = 256 << 10

// pacedBody is a request's body with a deadline for each piece of it.
type pacedBody struct {
	io.ReadCloser
	client *client
	stall  time.Duration
	moved  int           // of this piece
	waited time.Duration // for it
}

// pace gives the client its time for the first piece of the body, also where nobody reads it: the
// server then reads on for a while to save the connection. The time for the answer, which a WriteTimeout
// counts from the head of the request on, does not run out meanwhile. It returns a copy of the request,
// because net/http looks at the type of the body in its own.
func pace(c *client, r *http.Request, stall time.Duration) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	body := &pacedBody{ReadCloser: r.Body, client: c, stall: stall}
	body.extend()
	c.conn.SetWriteDeadline(time.Time{})
	paced := *r
	paced.Body = body
	return &paced
}

func (b *pacedBody) extend() {
	b.moved, b.waited = 0, 0
	b.client.conn.SetReadDeadline(time.Now().Add(b.stall)) // what has no deadlines is not a network connection
}

func (b *pacedBody) Read(p []byte) (int, error) {
	begin := time.Now()
	b.client.awaits(b.waited)
	n, err := b.ReadCloser.Read(p)
	b.client.moved()
	b.waited += time.Since(begin)
	if b.moved += n; b.moved >= piece {
		b.extend()
	}
	if err == io.EOF {
		// From here on the server looks whether the client is still there, and must find no deadline.
		b.client.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// pacedWriter sends a blob with a deadline for each piece of it.
type pacedWriter struct {
	http.ResponseWriter
	client *client
	stall  time.Duration
}

func (c *call) paced() *pacedWriter {
	return &pacedWriter{c.w, &c.client, c.limiter.stall}
}

// Unwrap is for http.ResponseController.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ReadFrom hands a file on in pieces, as the one layer above the file that the kernel's sending allows.
func (w *pacedWriter) ReadFrom(src io.Reader) (total int64, err error) {
	left, limited := src.(*io.LimitedReader)
	if !limited {
		left = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	for left.N > 0 {
		w.client.conn.SetWriteDeadline(time.Now().Add(w.stall))
		next := &io.LimitedReader{R: left.R, N: min(left.N, sendPiece)}
		w.client.awaits(0)
		n, err := io.Copy(w.ResponseWriter, next)
		w.client.moved()
		total += n
		left.N -= n
		if err != nil || next.N > 0 {
			return total, err
		}
	}
	return total, nil
}

// sendPiece is the piece in which blobs are sent, in bytes.
const sendPiece = 1 << 20
