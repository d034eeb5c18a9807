package berthtest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/berthoci/berth"
)

const (
	// tokenPath is where tokens are given.
	tokenPath = "/token"
	// tokenLife is how long one is good.
	tokenLife = 5 * time.Minute
	// service is what the registry calls itself to clients that ask for a token.
	service = "berthtest"
)

// RequireBasic asks all who come to [Registry.Host] from now on for a user and a password, by Basic authentication
// (RFC 7617).
func (r *Registry) RequireBasic(user, password string) { r.front.gate.set(user, password, false) }

// RequireToken asks all who come to [Registry.Host] from now on for a Bearer token, which they get at /token there for a
// user and a password (distribution's "Token Authentication Specification"). A token is good for five minutes, and for
// what it was asked for. Those that were given before are not good any more.
func (r *Registry) RequireToken(user, password string) { r.front.gate.set(user, password, true) }

// RequireNothing lets all come from now on who want to, as it was in the beginning.
func (r *Registry) RequireNothing() { r.front.gate.open() }

// ExpireTokens ends all tokens that were given: who has one needs another.
func (r *Registry) ExpireTokens() { r.front.gate.expire() }

// gate is who may come in. The zero gate is open.
type gate struct {
	mu             sync.Mutex // guards the fields below
	user, password string
	isShut         bool
	tokens         bool
	given          map[string]token
}

// token is what somebody was given.
type token struct {
	ends time.Time
	good rights
}

func (g *gate) set(user, password string, tokens bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.user, g.password, g.isShut, g.tokens, g.given = user, password, true, tokens, map[string]token{}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.user, g.password, g.isShut, g.tokens = "", "", false, false
}

func (g *gate) credentials() (user, password string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.user, g.password
}

func (g *gate) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, t := range g.given {
		t.ends = time.Time{}
		g.given[name] = t
	}
}

func (g *gate) givesTokens() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tokens
}

// admit returns the WWW-Authenticate header for who may not come in, and whether who may has shown who they are.
func (g *gate) admit(r *http.Request) (challenge string, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.isShut:
		return "", false
	case g.tokens:
		challenge = g.admitToken(r)
	case !g.knows(r):
		challenge = basicChallenge
	}
	return challenge, challenge == ""
}

const basicChallenge = `Basic realm="` + service + `"`

// knows reports whether a request shows user and password. The lock is held.
func (g *gate) knows(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	return ok && user == g.user && password == g.password
}

// admitToken is admit where tokens are asked for (RFC 6750, 3). The lock is held.
func (g *gate) admitToken(r *http.Request) (challenge string) {
	need := needs(r)
	challenge = fmt.Sprintf(`Bearer realm="http://%s%s",service="%s"`, r.Host, tokenPath, service)
	if len(need) > 0 {
		challenge += fmt.Sprintf(`,scope="%s"`, need)
	}
	scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	t, ok := g.given[shown]
	switch {
	case !strings.EqualFold(scheme, "Bearer"):
		return challenge
	case !ok || time.Now().After(t.ends):
		return challenge + `,error="invalid_token"`
	case !t.good.cover(need):
		return challenge + `,error="insufficient_scope"`
	}
	return ""
}

// serveToken gives a token to who shows user and password, for all that it is asked for: there is one user, who may do
// everything.
func (g *gate) serveToken(w *answer, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		refuse(w, r, http.StatusMethodNotAllowed, berth.ErrUnsupported)
		return
	}
	name, known := g.give(r)
	if !known {
		w.Header().Set("WWW-Authenticate", basicChallenge)
		refuse(w, r, http.StatusUnauthorized, berth.ErrUnauthorized)
		return
	}
	w.entry.authenticate()
	w.Header().Set("Cache-Control", "no-store")
	answerJSON(w, http.StatusOK, map[string]any{"token": name, "access_token": name, "expires_in": int(tokenLife.Seconds())})
}

func (g *gate) give(r *http.Request) (name string, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.knows(r) {
		return "", false
	}
	name = rand.Text()
	g.given[name] = token{time.Now().Add(tokenLife), parseRights(r.URL.Query()["scope"])}
	return name, true
}
