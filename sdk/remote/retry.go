package remote

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/berthoci/berth/internal/retry"
)

const (
	// defaultPatience is how long a request is repeated, where the caller does not say.
	defaultPatience = 2 * time.Minute
	// maxFaults is how often in a row a host may answer that it has failed.
	maxFaults = 4
	// firstBackoff is the middle of the first wait; each next is twice as long, up to maxBackoff.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

// patient sends requests to hosts that have bad moments: it keeps to the limits of each, and repeats what may be repeated.
//
//   - 429, and 503, hold all requests to the host back for as long as Retry-After says, and slow down those that follow.
//   - 408, 500, 502 and 504, and connections that break, are tried again after a while that grows, and that chance varies.
//   - A host that has never answered is not waited for: its name is probably mistyped.
//
// What may be repeated are requests that do the same when they are done twice (RFC 9110, 9.2.2), and have no body or one that
// can be had again; and whatever a host has refused for its limits, which it has not looked at. A request that has a
// condition is not repeated where it may have been carried out. That may be so after a 503, too, unless it has a Retry-After:
// proxies say so of connections that have broken behind them.
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

// RoundTrip sends a request, again where that may help, and returns the last answer. While it is repeated it counts as one of
// those that the host is sent at once, so that those that come later are not before it.
func (p *patient) RoundTrip(req *http.Request) (*http.Response, error) {
	g := p.gate(req.URL.Host)
	if err := g.enter(req.Context()); err != nil {
		retry.CloseBody(req)
		return nil, err
	}
	defer g.leave()
	t := trial{patient: p, gate: g}
	for {
		resp, err := t.once(req)
		var held *heldError
		if errors.As(err, &held) {
			return held.response(req), nil
		}
		wait, again := t.judge(req, resp, err)
		if !again {
			return t.result(req, resp), err
		}
		next, rewindErr := retry.Request(req)
		if rewindErr != nil {
			return resp, err
		}
		if resp != nil {
			t.keep(resp)
		}
		if err := retry.Wait(req.Context(), wait); err != nil {
			retry.CloseBody(next)
			return nil, err
		}
		req = next
	}
}

// trial is one request on its way through its repetitions.
type trial struct {
	*patient
	gate    *gate
	end     time.Time // of its patience; zero: nothing has gone wrong yet
	faults  int
	perhaps bool           // it may have been carried out already
	fault   *http.Response // the last one that told of a fault of the host, with what of its body is read of an error; may be nil
}

// keep ends an answer after which the request is repeated.
func (t *trial) keep(resp *http.Response) {
	if faulty(resp.StatusCode) {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		kept := *resp
		kept.Body, kept.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		t.fault = &kept
	}
	drop(resp)
}

// deadline is until when the request is repeated. The time begins with the first time that it is asked for.
func (t *trial) deadline(now time.Time) time.Time {
	if t.end.IsZero() {
		t.end = now.Add(max(0, t.patience))
	}
	return t.end
}

// once sends a request when its host may be asked.
func (t *trial) once(req *http.Request) (*http.Response, error) {
	if err := t.gate.turn(req.Context(), t); err != nil {
		retry.CloseBody(req)
		return nil, err
	}
	if t.patience < 0 {
		return t.base.RoundTrip(req)
	}
	return watched(t.base, req)
}

// result is the last answer. What is not there any more, after a deletion that may have been carried out, was deleted by it. An
// upload that is not there any more, after its end has failed, has gone with that: the fault says why.
func (t *trial) result(req *http.Request, resp *http.Response) *http.Response {
	if t.fault != nil && resp != nil && req.Method == http.MethodPut && resp.StatusCode == http.StatusNotFound && strings.Contains(req.URL.Path, "/uploads/") {
		drop(resp)
		return t.fault
	}
	if t.perhaps && resp != nil && req.Method == http.MethodDelete && resp.StatusCode == http.StatusNotFound {
		drop(resp)
		resp.StatusCode, resp.Status, resp.Body, resp.ContentLength = http.StatusAccepted, "202 Accepted", http.NoBody, 0
	}
	return resp
}

// judge says whether an answer, or that there is none, is a reason to ask again, and after what time.
func (t *trial) judge(req *http.Request, resp *http.Response, err error) (wait time.Duration, again bool) {
	now := time.Now()
	if resp != nil {
		t.gate.note(resp.Header)
	}
	switch {
	case req.Context().Err() != nil || t.patience < 0:
		return 0, false
	case err != nil:
		wait, again = backoff(t.faults), t.mayAnswer(err) && repeatable(req)
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
		wait, again = t.refusal(now, req, resp)
	case faulty(resp.StatusCode):
		wait, again = backoff(t.faults), t.faults+1 < maxFaults && repeatable(req)
	default:
		t.gate.took(now)
		return 0, false
	}
	t.faults++
	t.perhaps = t.perhaps || resp == nil || resp.StatusCode != http.StatusTooManyRequests
	return wait, again && now.Add(wait).Before(t.deadline(now))
}

// mayAnswer reports whether a host that has not answered a request may answer the next.
func (t *trial) mayAnswer(err error) bool {
	return passing(err) && (t.gate.known() || isBroken(err) && t.faults+1 < maxFaults)
}

// refusal is what follows on an answer that the host has had too much.
func (t *trial) refusal(now time.Time, req *http.Request, resp *http.Response) (wait time.Duration, again bool) {
	wait, told := retryAfter(resp.Header, now)
	if !told {
		wait = backoff(t.faults)
	}
	t.gate.refused(now, wait, resp.StatusCode)
	switch {
	case !told && resp.StatusCode == http.StatusTooManyRequests && t.gate.spent(t.patience):
		return wait, false
	case !told && resp.StatusCode == http.StatusServiceUnavailable:
		return wait, repeatable(req)
	}
	return wait, retry.Possible(req)
}

// faulty reports whether a status tells of a fault that may pass.
func faulty(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// onceKey marks the context of a request that is not repeated where it may have been carried out: the caller finds out first.
type onceKey struct{}

// repeatable reports whether a request that may have been carried out can be sent once more.
func repeatable(req *http.Request) bool {
	if !retry.Possible(req) || req.Context().Value(onceKey{}) != nil || req.Header.Get("If-Match") != "" || req.Header.Get("If-None-Match") != "" {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		return true
	case http.MethodPost: // of the beginning of an upload one more may be forgotten; what has a body asks for a token
		return !retry.HasBody(req)
	}
	return false
}

// backoff is how long to wait after so many faults: half to one and a half of a time that doubles.
func backoff(faults int) time.Duration {
	middle := min(maxBackoff, firstBackoff<<min(faults, 10))
	return middle/2 + rand.N(middle)
}

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
