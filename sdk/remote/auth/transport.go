package auth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/berthoci/berth/internal/retry"
)

// Transport is an [http.RoundTripper] that answers the challenges of registries. The zero value is
// anonymous, and is ready to use. It may be used by many goroutines at once, and must not be
// copied after its first use; what it learnt and the tokens that it got are shared by all requests
// that go through it.
type Transport struct {
	// Base sends requests, those to token servers too. Nil: http.DefaultTransport.
	Base http.RoundTripper

	// Credentials finds the credential for a host that has sent a challenge. Nil: anonymous.
	Credentials CredentialFunc

	// UserAgent is sent with each request that does not have its own, and to token servers. Zero:
	// what Base sends.
	UserAgent string

	// AllowRealm is asked about a realm that would be refused: one that is not https, or at an
	// address that the registry may not name, because only this machine or its network can reach
	// it. True allows it for that registry, a host as in a request's address. The function must not
	// change the realm. It may be called by several goroutines at once. Nil: none is allowed.
	AllowRealm func(registry string, realm *url.URL) bool

	// AnonymousRetry asks once more without the stored credential where that is turned down, by
	// the token server or by the registry itself, so that a stale one does not get in the way of
	// what is public. It is for what only reads: tokens to pull, and GET and HEAD. Where it does not
	// help either, the error or the answer to the credential stands.
	AnonymousRetry bool

	now       func() time.Time // nil: time.Now
	exchanges flights[*token]

	mu      sync.Mutex // mu guards the fields below
	origins map[string]*origin
}

type withoutAuthKey struct{}

// WithoutAuth returns a context whose requests are sent without an Authorization header, and whose
// challenges are returned as they are. It is for an address on another host that a registry
// names and the client goes to by itself: the place of an upload, the URL of a layer.
func WithoutAuth(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutAuthKey{}, true)
}

// RoundTrip sends req, with authorisation if its host is known to want it; if the host sends a
// challenge that can be answered, it sends req again, once, and for AnonymousRetry a last time. A
// status 401 that remains is returned as the response, with its body.
//
//   - A request that has an Authorization header is sent as it is.
//   - A hop of a redirect that has left the host it began at, by scheme, name or port, is sent without
//     authorisation, also where it returns there.
//   - A request whose body cannot be had again by GetBody is not sent again, but what its challenge
//     says is remembered, so the caller's next one is authorised.
//   - Where a response of status 400 or above repeats what the request was authorised with, its body
//     has "[redacted]" in that place, and no Content-Length: such bodies end up in errors and logs.
//
// The scopes that tokens are asked for are those of [WithScopes], or those that the challenge names.
//
// Errors: *[Error] where a token could not be had; what Credentials returned; ctx.Err(); else what
// Base returned.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil {
		return t.pass(req)
	}
	if isForeign(req) {
		report(req.Context(), grant{})
		return t.send(req.Context(), req, "")
	}
	if _, own := req.Header["Authorization"]; own {
		report(req.Context(), grant{})
		return t.pass(req)
	}
	o := t.origin(req.URL)
	resp, g, err := t.attempt(req, o)
	if err == nil && t.isForgivable(req, resp, g) {
		resp, g = t.forgive(req, resp, o, g)
	}
	report(req.Context(), g)
	return resp, err
}

// CloseIdleConnections closes those of Base, as [http.Client.CloseIdleConnections] asks for.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// attempt sends req, and again if what the answer demands can be given. The grant is what the last of
// them was sent with.
func (t *Transport) attempt(req *http.Request, o *origin) (*http.Response, grant, error) {
	if !retry.HasBody(req) { // it may take long
		o.meet(req.Context())
	}
	g, err := t.first(req.Context(), o)
	if err != nil {
		o.back(false)
		retry.CloseBody(req)
		return nil, g, err
	}
	ctx, way := watch(req.Context(), req.URL)
	resp, err := t.send(ctx, req, g.header)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		o.back(err == nil || req.Context().Err() == nil)
		return resp, g, err
	}
	return t.answer(req, resp, o, g, way.reach())
}

// first authorises a request by what its host said to an earlier one.
func (t *Transport) first(ctx context.Context, o *origin) (grant, error) {
	d := o.learned()
	if d == nil {
		return grant{}, nil
	}
	need := scopesOf(ctx)
	if len(need) == 0 {
		need = d.scopes
	}
	return t.grant(ctx, o, wish{demand: d, need: need})
}

// answer sends req again if what resp demands can be given and has not been given yet. Else it
// returns resp. from is the reach of the address that resp came from.
func (t *Transport) answer(req *http.Request, resp *http.Response, o *origin, used grant, from reach) (*http.Response, grant, error) {
	o.forget(used.token)
	d, err := t.understand(req.URL, resp.Header, o, from)
	o.back(true)
	if err != nil {
		resp.Body.Close()
		return nil, used, err
	}
	if d == nil || !retry.Possible(req) {
		return resp, used, nil
	}
	need := needed(req.Context(), d)
	if used.fresh && used.token.answers(d) && covers(used.scopes, need) {
		return resp, used, nil
	}
	settle(resp)
	g, err := t.grant(req.Context(), o, wish{demand: d, need: need, after: used.outdated()})
	if err == nil && g.header == "" {
		err = d.passed
	}
	if err != nil {
		resp.Body.Close()
		return nil, used, err
	}
	if g.header == "" || g.header == used.header {
		return resp, used, nil
	}
	g.wasBare = used.header == ""
	resp, err = t.resend(req, resp, g.header)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		o.forget(g.token)
	}
	return resp, g, err
}

// understand reads the challenges of an answer and remembers what the strongest demands that can be
// answered. It returns nil if there is none. An answer without any is one that says only that the
// token has had its day: then the last demand stands.
func (t *Transport) understand(target *url.URL, h http.Header, o *origin, from reach) (*demand, error) {
	values := h.Values("WWW-Authenticate")
	if len(values) == 0 {
		return o.learned(), nil
	}
	var passed error
	for _, c := range rank(parseChallenges(values)) {
		d, err := t.demand(target, c, from)
		if err == nil {
			d.passed = passed
			o.learn(d)
			return d, nil
		}
		if passed == nil {
			passed = err
		}
	}
	return nil, passed
}

// needed returns the scopes for a request that was challenged: its own, and what the registry asks
// for besides on the same resources; or what the registry asks for, if it has none.
func needed(ctx context.Context, d *demand) []Scope {
	if own := scopesOf(ctx); len(own) > 0 {
		return widen(own, d.scopes)
	}
	return d.scopes
}

func (t *Transport) credential(ctx context.Context, host string) (Credential, error) {
	if t.Credentials == nil {
		return Credential{}, nil
	}
	c, err := t.Credentials(ctx, host)
	if err != nil {
		return Credential{}, fmt.Errorf("credential for %s: %w", host, err)
	}
	return c.resolved(), nil
}

func (t *Transport) origin(u *url.URL) *origin {
	// The host stays as it is spelt, for credentials are stored under that.
	key := strings.ToLower(u.Scheme + "://" + u.Host)
	t.mu.Lock()
	defer t.mu.Unlock()
	o, ok := t.origins[key]
	if !ok {
		if t.origins == nil {
			t.origins = make(map[string]*origin)
		}
		o = &origin{key: key, host: strings.ToLower(u.Host)}
		t.origins[key] = o
	}
	return o
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

func (t *Transport) clock() time.Time {
	if t.now == nil {
		return time.Now()
	}
	return t.now()
}
