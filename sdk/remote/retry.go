package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// defaultPatience is how long a request is repeated, where the caller does not say.
	defaultPatience = 2 * time.Minute
	// maxFaults is how often in a row a host may answer that it has failed.
	maxFaults = 4
	// firstBackoff is the middle of the first wait; each next is twice as long, up to maxBackoff.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second

	// quiet is how long nothing may travel in either direction while a request is under way.
	quiet = 30 * time.Second
	// digesting is how long a host may take to answer a request that has brought it something, beyond quiet: it may have to
	// hash a blob that came in many parts.
	digesting = 5 * time.Minute
)

// patient sends requests to hosts that have bad moments: it keeps to the limits of each, and repeats what may be repeated.
//
//   - 429, and 503, hold all requests to the host back for as long as Retry-After says, and slow down those that follow.
//   - 408, 500, 502 and 504, and connections that break, are tried again after a while that grows, and that chance varies.
//   - A host that has never answered is not waited for: its name is probably mistyped.
//
// What may be repeated are requests that do the same when they are done twice (RFC 9110, 9.2.2), and have no body or one that
// can be had again; and whatever a host has refused for its limits, which it has not looked at. A request that has a
// condition is not repeated where it may have been carried out.
type patient struct {
	base      http.RoundTripper
	requests  int
	perSecond float64
	patience  time.Duration // negative: none

	mu    sync.Mutex // guards the field below
	gates map[string]*gate
}

func newPatient(base http.RoundTripper, opts *Options) *patient {
	p := &patient{base: base, requests: opts.Requests, perSecond: opts.RequestsPerSecond, patience: opts.Patience, gates: map[string]*gate{}}
	if p.requests <= 0 {
		p.requests = defaultRequests
	}
	if p.patience == 0 {
		p.patience = defaultPatience
	}
	return p
}

func (p *patient) CloseIdleConnections() {
	if c, ok := p.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (p *patient) gate(host string) *gate {
	p.mu.Lock()
	defer p.mu.Unlock()
	host = strings.ToLower(host)
	g := p.gates[host]
	if g == nil {
		g = newGate(p.requests, p.perSecond)
		p.gates[host] = g
	}
	return g
}

// RoundTrip sends a request, again where that may help, and returns the last answer.
func (p *patient) RoundTrip(req *http.Request) (*http.Response, error) {
	g := p.gate(req.URL.Host)
	t := trial{patient: p, gate: g, deadline: time.Now().Add(p.patience)}
	for {
		resp, err := p.once(g, req)
		wait, again := t.judge(req, resp, err)
		if !again {
			return resp, err
		}
		next, rewindErr := rewound(req)
		if rewindErr != nil {
			return resp, err
		}
		if resp != nil {
			drop(resp)
		}
		if err := sleep(req.Context(), wait); err != nil {
			closeBody(next)
			return nil, err
		}
		req = next
	}
}

// once sends a request when its host may be asked.
func (p *patient) once(g *gate, req *http.Request) (*http.Response, error) {
	if err := g.enter(req.Context()); err != nil {
		closeBody(req)
		return nil, err
	}
	defer g.leave()
	if p.patience < 0 {
		return p.base.RoundTrip(req)
	}
	return watched(p.base, req)
}

// trial is one request on its way through its repetitions.
type trial struct {
	*patient
	gate     *gate
	deadline time.Time
	faults   int
}

// judge says whether an answer, or that there is none, is a reason to ask again, and after what time.
func (t *trial) judge(req *http.Request, resp *http.Response, err error) (wait time.Duration, again bool) {
	now := time.Now()
	switch {
	case req.Context().Err() != nil || t.patience < 0:
		return 0, false
	case err != nil:
		wait, again = backoff(t.faults), t.gate.known() && passing(err) && repeatable(req)
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
		asked, told := retryAfter(resp.Header, now)
		if !told {
			asked = backoff(t.faults)
		}
		t.gate.refused(now, min(asked, t.patience), resp.Header)
		wait, again = asked, rewindable(req)
	case faulty(resp.StatusCode):
		wait, again = backoff(t.faults), t.faults+1 < maxFaults && repeatable(req)
	default:
		t.gate.took(now, resp.Header)
	}
	t.faults++
	return wait, again && now.Add(wait).Before(t.deadline)
}

// faulty reports whether a status tells of a fault that may pass.
func faulty(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// repeatable reports whether a request that may have been carried out can be sent once more.
func repeatable(req *http.Request) bool {
	if !rewindable(req) || req.Header.Get("If-Match") != "" || req.Header.Get("If-None-Match") != "" {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		return true
	case http.MethodPost: // of the beginning of an upload one more may be forgotten; what has a body asks for a token
		return !hasBody(req)
	}
	return false
}

func rewindable(req *http.Request) bool { return !hasBody(req) || req.GetBody != nil }

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// rewound is a request with its body from the start.
func rewound(req *http.Request) (*http.Request, error) {
	if !hasBody(req) {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	again := req.WithContext(req.Context())
	again.Body = body
	return again, nil
}

// backoff is how long to wait after so many faults: half to one and a half of a time that doubles.
func backoff(faults int) time.Duration {
	middle := min(maxBackoff, firstBackoff<<min(faults, 10))
	return middle/2 + rand.N(middle)
}

// errSilent is what ends a request during which nothing travels any more.
var errSilent = errors.New("the registry has fallen silent: nothing came for too long")

// passing reports whether a request that had no answer may have one later.
func passing(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var alert tls.AlertError
	var source *sourceError
	return !errors.As(err, &untrusted) && !errors.As(err, &plain) && !errors.As(err, &alert) && !errors.As(err, &source) && !speaksPlain(err)
}

// sourceError is what is wrong with a body that was to be sent. No network has done that.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// speaksPlain reports whether a host has answered in http where it was spoken to in https. There is no value for that error.
func speaksPlain(err error) bool {
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// watched sends a request, and ends it where nothing travels for too long: neither its body, nor the answer, nor the
// answer's body.
func watched(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{limit: quiet, cancel: cancel}
	w.timer = time.AfterFunc(w.limit, func() { cancel(errSilent) })
	out := req.Clone(ctx)
	if hasBody(req) {
		out.Body = &watchedBody{ReadCloser: req.Body, watch: w, sent: true}
	} else if req.Method == http.MethodPut {
		w.timer.Reset(quiet + digesting)
	}
	resp, err := base.RoundTrip(out)
	if err != nil {
		w.end()
		if context.Cause(ctx) == errSilent {
			err = errSilent
		}
		return nil, err
	}
	w.timer.Reset(quiet)
	resp.Request = req
	resp.Body = &watchedBody{ReadCloser: resp.Body, watch: w, ends: true}
	return resp, nil
}

// watch ends a request when its time is up.
type watch struct {
	limit  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// watchedBody is a body whose bytes set the watch back.
type watchedBody struct {
	io.ReadCloser
	watch *watch
	sent  bool // it is a request's, after whose end the host may take its time
	ends  bool // the request is over when it is closed
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	limit := b.watch.limit
	if err != nil && b.sent {
		limit += digesting
	}
	b.watch.timer.Reset(limit)
	if err != nil && err != io.EOF && b.sent {
		err = &sourceError{err}
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	if b.ends {
		b.watch.end()
	}
	return err
}
