package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
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

	// AllowRealm is asked about a realm that would be refused: one that is not https, or a private
	// address named by a registry that is not private itself. True allows it for that registry, a
	// host as in a request's address. The function must not change the realm. Nil: none is allowed.
	AllowRealm func(registry string, realm *url.URL) bool

	// AnonymousRetry asks for an anonymous token where the stored credential is turned down, so
	// that a stale one does not get in the way of what is public.
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
// challenge that can be answered, it sends req again, once. A status 401 that remains is returned
// as the response, with its body.
//
//   - A request that has an Authorization header is sent as it is.
//   - A hop of a redirect that has left the host it began at, by scheme, name or port, is sent without
//     authorisation, also where it returns there.
//   - A request whose body cannot be had again by GetBody is not sent again, but what its challenge
//     says is remembered, so the caller's next one is authorised.
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
		return t.send(req, "")
	}
	if _, own := req.Header["Authorization"]; own {
		return t.pass(req)
	}
	o := t.origin(req.URL)
	g, err := t.first(req.Context(), o)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.send(req, g.header)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	return t.answer(req, resp, o, g)
}

// CloseIdleConnections closes those of Base, as [http.Client.CloseIdleConnections] asks for.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// grant is what one request is sent with.
type grant struct {
	header string  // the value of Authorization; "" is none
	token  *token  // nil unless the header has one
	fresh  bool    // the token was got for this request
	scopes []Scope // what the token was wanted for
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
	return t.grant(ctx, o, d, need)
}

// answer sends req again if what resp demands can be given and has not been given yet. Else it
// returns resp.
func (t *Transport) answer(req *http.Request, resp *http.Response, o *origin, used grant) (*http.Response, error) {
	o.forget(used.token)
	d, err := t.understand(req.URL, resp.Header, o)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	if d == nil || !canResend(req) {
		return resp, nil
	}
	need := needed(req.Context(), d)
	if used.fresh && used.token.answers(d) && covers(used.scopes, need) {
		return resp, nil
	}
	settle(resp)
	g, err := t.grant(req.Context(), o, d, need)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	if g.header == "" || g.header == used.header {
		return resp, nil
	}
	resp, err = t.resend(req, resp, g.header)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		o.forget(g.token)
	}
	return resp, err
}

// understand reads the challenges of an answer and remembers what the chosen one demands. It
// returns nil if none can be answered. An answer without any is one that says only that the
// token has had its day: then the last demand stands.
func (t *Transport) understand(target *url.URL, h http.Header, o *origin) (*demand, error) {
	values := h.Values("WWW-Authenticate")
	if len(values) == 0 {
		return o.learned(), nil
	}
	c, ok := choose(parseChallenges(values))
	if !ok {
		return nil, nil
	}
	d, err := t.demand(target, c)
	if err != nil {
		return nil, err
	}
	o.learn(d)
	return d, nil
}

// needed returns the scopes for a request that was challenged: its own, and what the registry asks
// for besides on the same resources; or what the registry asks for, if it has none.
func needed(ctx context.Context, d *demand) []Scope {
	if own := scopesOf(ctx); len(own) > 0 {
		return widen(own, d.scopes)
	}
	return d.scopes
}

// grant returns what satisfies d. The header is empty if there is nothing to satisfy it with.
func (t *Transport) grant(ctx context.Context, o *origin, d *demand, need []Scope) (grant, error) {
	if d.scheme == schemeBasic {
		return t.grantBasic(ctx, o)
	}
	if tok := o.find(d, need, t.clock()); tok != nil {
		return grant{header: "Bearer " + tok.value, token: tok, scopes: need}, nil
	}
	key := strings.Join([]string{o.key, d.realmText(), d.service, scopeText(need)}, "\n")
	tok, err := t.exchanges.do(ctx, key, func(ctx context.Context) (*token, error) {
		return t.fetch(ctx, o, d, need)
	})
	if err != nil || tok == nil {
		return grant{}, err
	}
	return grant{header: "Bearer " + tok.value, token: tok, fresh: true, scopes: need}, nil
}

func (t *Transport) grantBasic(ctx context.Context, o *origin) (grant, error) {
	cred, err := t.credential(ctx, o.host)
	if err != nil || cred.Username == "" && cred.Password == "" {
		return grant{}, err
	}
	pair := base64.StdEncoding.EncodeToString([]byte(cred.Username + ":" + cred.Password))
	return grant{header: "Basic " + pair}, nil
}

// fetch gets a token and keeps it. It looks for one first: the flight that was just over when this
// one began may have left it. A token that is itself the credential is not kept, for only its
// owner knows how long it is good.
func (t *Transport) fetch(ctx context.Context, o *origin, d *demand, need []Scope) (*token, error) {
	if tok := o.find(d, need, t.clock()); tok != nil {
		return tok, nil
	}
	cred, err := t.credential(WithScopes(ctx, need...), o.host)
	if err != nil {
		return nil, err
	}
	if cred.AccessToken != "" {
		return &token{value: cred.AccessToken}, nil
	}
	if d.realm == nil {
		return nil, nil
	}
	tok, err := t.obtain(ctx, o, exchange{registry: o.host, realm: d.realm, service: d.service, scopes: need, cred: cred})
	if err != nil {
		return nil, err
	}
	o.keep(tok, t.clock())
	return tok, nil
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
