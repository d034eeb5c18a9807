package berthtest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Request is one that came to [Registry.Host].
type Request struct {
	Method string
	// Path is that of the URL, like "/v2/team/app/manifests/v1".
	Path   string
	Query  url.Values
	Header http.Header
	// Status of the answer. Zero: none has been given yet, or none arrives because the connection was cut.
	Status int
	// Authenticated tells that it showed what RequireBasic or RequireToken ask for. Where nothing is asked for, nothing
	// is looked at.
	Authenticated bool
}

// Match decides which requests are meant. Status and Authenticated are not known yet where it decides what is to
// become of a request. Nil means all of them.
type Match func(Request) bool

// On means requests by their path, or by METHOD and path with a space between them. A star stands for any text, slashes
// too, or for any method: "PUT /v2/*/manifests/*", "GET *", "/v2/team/*". GET does not mean HEAD. It panics for a path
// that begins with neither a slash nor a star, and for a method that is not in upper case: no request would be meant.
func On(pattern string) Match {
	method, path, given := strings.Cut(pattern, " ")
	if !given {
		method, path = "*", pattern
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "*") || method == "" || method != strings.ToUpper(method) {
		panic("berthtest: pattern " + pattern + ": want PATH or METHOD PATH, like \"GET /v2/*/blobs/*\"")
	}
	parts := strings.Split(path, "*")
	return func(r Request) bool { return (method == "*" || method == r.Method) && matches(parts, r.Path) }
}

// matches reports whether a path consists of these parts, with any text between them.
func matches(parts []string, path string) bool {
	last := len(parts) - 1
	if last == 0 {
		return path == parts[0]
	}
	rest, ok := strings.CutPrefix(path, parts[0])
	for _, part := range parts[1:last] {
		if ok {
			_, rest, ok = strings.Cut(rest, part)
		}
	}
	return ok && strings.HasSuffix(rest, parts[last])
}

func (m Match) means(r Request) bool { return m == nil || m(r) }

// Requests are those that came to [Registry.Host], in the order in which they came. Those for tokens are among them.
// When a client has an answer, its status is there.
func (r *Registry) Requests() []Request { return r.front.log.all() }

// Count is how many requests came that are meant.
func (r *Registry) Count(which Match) int {
	return len(slices.DeleteFunc(r.Requests(), func(one Request) bool { return !which.means(one) }))
}

// Reset forgets the requests that came, and what Fail, Cut, Slow and Limit have said of those to come. What the registry
// holds stays, and who may ask it.
func (r *Registry) Reset() {
	r.front.log.forget()
	r.front.faults.forget()
}

// requestLog is what was asked.
type requestLog struct {
	mu      sync.Mutex // guards the field below, and what becomes of each entry
	entries []*entry
}

// entry is one request. What was asked never changes.
type entry struct {
	log           *requestLog
	asked         Request
	status        int
	authenticated bool
}

func (l *requestLog) begin(r *http.Request) *entry {
	e := &entry{log: l, asked: Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone()}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	return e
}

func (e *entry) answered(status int) {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	e.status = status
}

func (e *entry) isAnswered() bool {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	return e.status != 0
}

func (e *entry) authenticate() {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	e.authenticated = true
}

func (l *requestLog) all() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Request
	for _, e := range l.entries {
		one := e.asked
		one.Status, one.Authenticated = e.status, e.authenticated
		all = append(all, one)
	}
	return all
}

func (l *requestLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = nil
}
