package hostile

import (
	"net/http"
	"net/url"
	"sync"
)

// Request is one that was received.
type Request struct {
	Method string
	Host   string
	Path   string
	Query  url.Values
	Header http.Header
	// Length of the body, in bytes; -1 if it was not told.
	Length int64
}

// Authorization is the header of that name.
func (r Request) Authorization() string { return r.Header.Get("Authorization") }

// String is method and path: "GET /v2/".
func (r Request) String() string { return r.Method + " " + r.Path }

// journal keeps what was received, in the order in which it came.
type journal struct {
	mu       sync.Mutex // mu guards the field below
	received []Request
}

func (j *journal) note(r *http.Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.received = append(j.received, Request{
		Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone(), Length: r.ContentLength,
	})
}

// Requests returns what was received so far.
func (j *journal) Requests() []Request {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Request(nil), j.received...)
}

// Count returns how many of a method had a path that contains a text; "" is any. See [On].
func (j *journal) Count(method, path string) int {
	n := 0
	for _, r := range j.Requests() {
		if On(method, path)(&http.Request{Method: r.Method, URL: &url.URL{Path: r.Path}}) {
			n++
		}
	}
	return n
}
