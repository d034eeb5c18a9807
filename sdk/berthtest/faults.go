package berthtest

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthoci/berth"
)

// Fail answers the nth request that is meant, from now on, with a status of 400 to 599 and the error body that a registry
// sends with it. The registry does not get the request. The first one is 1; 0 is each of them. Where the status is 0,
// the connection is cut instead; net/http by itself sends a GET once more whose kept connection was cut. Where several
// mean one request, each counts it, and the last that was set decides.
func (r *Registry) Fail(which Match, nth, status int) {
	r.tb.Helper()
	if status != 0 && (status < 400 || status > 599) {
		r.tb.Fatalf("berthtest: Fail with status %d: want 400 to 599, or 0 to cut the connection", status)
	}
	r.change(which, nth, func(e *effect) { e.fails, e.status = true, status })
}

// Cut lets the registry do what the nth request asks for that is meant, from now on, and cuts the connection after so
// many bytes of the answer's body. A shorter answer is whole. After 0 bytes the client does not even hear the status. The
// first request is 1; 0 is each of them.
func (r *Registry) Cut(which Match, nth int, after int64) {
	r.tb.Helper()
	if after < 0 {
		r.tb.Fatalf("berthtest: Cut after %d bytes: want 0 or more", after)
	}
	r.change(which, nth, func(e *effect) { e.after = after })
}

// Slow keeps all requests waiting that are meant, from now on, before anything is done with them. Of several delays the
// last counts that was set; 0 is none.
func (r *Registry) Slow(which Match, delay time.Duration) {
	r.tb.Helper()
	if delay < 0 {
		r.tb.Fatalf("berthtest: Slow by %s: want 0 or more", delay)
	}
	r.change(which, 0, func(e *effect) { e.delay = delay })
}

// Limit lets so many bytes a second pass, at most, in each direction of each request that is meant, from now on. Of
// several limits the last counts that was set; 0 is none.
func (r *Registry) Limit(which Match, bytesPerSecond int64) {
	r.tb.Helper()
	if bytesPerSecond < 0 {
		r.tb.Fatalf("berthtest: Limit of %d bytes a second: want 0 or more", bytesPerSecond)
	}
	r.change(which, 0, func(e *effect) { e.rate = bytesPerSecond })
}

func (r *Registry) change(which Match, nth int, change func(*effect)) {
	r.tb.Helper()
	if nth < 0 {
		r.tb.Fatalf("berthtest: request %d: want 1 for the first one, or 0 for each", nth)
	}
	r.front.faults.add(&rule{which: which, nth: int64(nth), change: change})
}

// effect is what becomes of one request.
type effect struct {
	delay  time.Duration
	rate   int64 // bytes a second. Zero: as many as come
	fails  bool
	status int   // where it fails. Zero: the connection is cut
	after  int64 // bytes of the answer's body
}

// faults are what is to go wrong.
type faults struct {
	mu    sync.Mutex // guards the field below
	rules []*rule
}

// rule is what is to become of one request, or of each.
type rule struct {
	which  Match
	nth    int64
	seen   atomic.Int64
	change func(*effect)
}

func (f *faults) add(r *rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, r)
}

func (f *faults) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// of is what becomes of a request that has come. The test's matches are called with nothing held: they may call
// methods of the registry.
func (f *faults) of(asked Request) effect {
	f.mu.Lock()
	rules := slices.Clone(f.rules)
	f.mu.Unlock()
	e := effect{after: math.MaxInt64}
	for _, r := range rules {
		if r.which.means(asked) && (r.seen.Add(1) == r.nth || r.nth == 0) {
			r.change(&e)
		}
	}
	return e
}

// fail answers as a registry that has a bad day.
func fail(w http.ResponseWriter, r *http.Request, status int) {
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	refuse(w, r, status, failure(status, r.URL.Path))
}

// failures are the errors that go with a status, as the distribution specification has them.
var failures = map[int]error{
	http.StatusUnauthorized:                 berth.ErrUnauthorized,
	http.StatusForbidden:                    berth.ErrDenied,
	http.StatusMethodNotAllowed:             berth.ErrUnsupported,
	http.StatusPreconditionFailed:           berth.ErrPreconditionFailed,
	http.StatusRequestEntityTooLarge:        berth.ErrSizeInvalid,
	http.StatusRequestedRangeNotSatisfiable: berth.ErrRangeInvalid,
	http.StatusTooManyRequests:              berth.ErrTooManyRequests,
}

func failure(status int, path string) error {
	known := failures[status]
	switch {
	case known != nil:
		return known
	case status != http.StatusNotFound:
		return errors.New("berthtest: it fails because the test wants it to")
	case strings.Contains(path, "/manifests/"):
		return berth.ErrManifestUnknown
	case strings.Contains(path, "/blobs/uploads/"):
		return berth.ErrUploadUnknown
	case strings.Contains(path, "/blobs/"):
		return berth.ErrBlobUnknown
	}
	return berth.ErrNameUnknown
}
