package server

import (
	"io"
	"log/slog"
	"net/http"
	"time"
)

// logged serves a request and writes one line about it.
func (h *handler) logged(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	answer := &answer{ResponseWriter: w}
	method, path := r.Method, r.URL.Path
	h.serveHTTP(answer, r)
	h.opts.AccessLog.LogAttrs(r.Context(), slog.LevelInfo, "request",
		slog.String("method", method),
		slog.String("path", path),
		slog.Int("status", answer.status),
		slog.Int64("bytes", answer.bytes),
		slog.Float64("ms", float64(time.Since(begin).Microseconds())/1000),
		slog.String("client", r.RemoteAddr),
		slog.String("agent", r.UserAgent()),
	)
}

// answer counts what is sent.
type answer struct {
	http.ResponseWriter
	status int // 0: the client was gone before it
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begin()
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// ReadFrom lets the kernel send a file although its bytes are counted.
func (a *answer) ReadFrom(src io.Reader) (int64, error) {
	a.begin()
	n, err := io.Copy(a.ResponseWriter, src)
	a.bytes += n
	return n, err
}

func (a *answer) begin() {
	if a.status == 0 {
		a.status = http.StatusOK
	}
}
