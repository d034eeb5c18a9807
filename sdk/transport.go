package sdk

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/internal/retry"
)

const (
	// maxRepeats bounds how often a request or a push is repeated, each time at another plugin.
	maxRepeats = 20
	// maxKept bounds the answers that are read before they are passed on, in bytes: manifests and lists.
	maxKept = 8 << 20
)

// transport sends the requests to the layout's registry to whatever plugin serves the layout at the time. Where
// a plugin ends before it has answered, the request is sent again to the next one, if it may be done twice.
type transport struct {
	base    *http.Transport
	session *host.Session
	token   string // is sent unasked: there is nobody else at the other end
}

func newTransport(session *host.Session, token string) *transport {
	base := &http.Transport{ // without a proxy: it is on this machine
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true, // a blob's bytes must arrive as they are
		// No HTTP/2, which would be set up before the first request, and is for https alone.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
	return &transport{base, session, token}
}

func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	for repeats := 0; ; repeats++ {
		hold, err := t.session.Hold(ctx)
		if err != nil {
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, err
		}
		resp, err := t.send(req, hold)
		if err == nil || !mayRepeat(req, err) || repeats == maxRepeats || !t.session.Lost(ctx, hold) {
			return settled(req, resp, repeats), err
		}
		if req, err = retry.Request(req); err != nil {
			return nil, err
		}
	}
}

// send sends a request to one plugin, and reads its answer, unless that is a blob.
func (t *transport) send(req *http.Request, to *host.Hold) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Host, req.Host = to.Endpoint().Address, ""
	if t.token != "" {
		req.Header.Set("Authorization", "Bearer "+t.token)
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil || strings.Contains(req.URL.Path, "/blobs/") || resp.ContentLength > maxKept {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKept))
	if err == nil && len(body) < maxKept {
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return resp, nil
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
	return resp, nil
}

// mayRepeat reports whether a request that has failed can be sent again: if it was not sent, or does the same when
// it is done twice. A push with a condition does not, for what it was to change may be changed already.
func mayRepeat(req *http.Request, failed error) bool {
	if !retry.Possible(req) {
		return false
	}
	var dial *net.OpError
	if errors.As(failed, &dial) && dial.Op == "dial" {
		return true
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete:
		return true
	case http.MethodPatch: // its bytes follow on those that came before
		return false
	}
	return req.Header.Get("If-Match") == "" && req.Header.Get("If-None-Match") == ""
}

// settled takes it for done that what was to be deleted is not there any more, where that was asked for twice.
func settled(req *http.Request, resp *http.Response, repeats int) *http.Response {
	if resp != nil && repeats > 0 && req.Method == http.MethodDelete && resp.StatusCode == http.StatusNotFound {
		resp.StatusCode, resp.Status = http.StatusAccepted, "202 Accepted"
	}
	return resp
}

// steadily does something that may be done twice, and that leaves what it has brought. It is done again if the
// plugin has ended meanwhile that it was done with.
func (r *Registry) steadily(ctx context.Context, work func() error) error {
	for repeats := 0; ; repeats++ {
		hold, err := r.session.Hold(ctx)
		if err != nil {
			return err
		}
		err = work()
		if err == nil || repeats == maxRepeats || !r.isFault(ctx, hold, err) {
			return err
		}
	}
}

// isFault reports whether something has failed because a plugin has ended. An error that a registry has sent can
// be the next plugin's, which does not know what the last one had begun.
func (r *Registry) isFault(ctx context.Context, hold *host.Hold, err error) bool {
	if hold.Ended() {
		return ctx.Err() == nil
	}
	var answered *berth.Error
	return !errors.As(err, &answered) && r.session.Lost(ctx, hold)
}
