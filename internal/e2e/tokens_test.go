//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/berthoci/berth/internal/canary"
)

const (
	tokenIssuer  = "e2e issuer"
	tokenService = "e2e registry"
)

// tokenServer gives tokens for a distribution registry, as that registry's specification says: to
// one user, for the actions that are granted now, of those that are asked for.
type tokenServer struct {
	*shell
	server *httptest.Server
	key    jose.JSONWebKey
	life   time.Duration // of a token

	mu      sync.Mutex // guards the fields below
	granted []string
	asked   []string
}

func (s *shell) tokenServer() *tokenServer {
	s.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.check(err)
	t := &tokenServer{shell: s, granted: []string{"pull", "push"}, life: 5 * time.Minute}
	t.key = jose.JSONWebKey{Key: private, KeyID: "e2e", Algorithm: string(jose.ES256), Use: "sig"}
	t.server = httptest.NewServer(http.HandlerFunc(t.answer))
	s.Cleanup(t.server.Close)
	return t
}

// config makes a registry trust this server. crane asks no server for tokens whose host is an address
// of this machine, but one with a name.
func (t *tokenServer) config() string {
	t.Helper()
	realm := strings.Replace(t.server.URL, "127.0.0.1", "localhost", 1) + "/token"
	file := t.path("registry", "jwks.json")
	t.write(file, string(t.encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{t.key.Public()}})))
	return fmt.Sprintf("auth:\n  token: {realm: %q, service: %q, issuer: %q, jwks: %q}\n", realm, tokenService, tokenIssuer, file)
}

// grant sets what may be done from now on.
func (t *tokenServer) grant(actions ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.granted = actions
}

// forget begins the record anew.
func (t *tokenServer) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = nil
}

// requests are the scopes that were asked for.
func (t *tokenServer) requests() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.asked)
}

func (t *tokenServer) gave(scope string) bool { return slices.Contains(t.requests(), scope) }

func (t *tokenServer) answer(w http.ResponseWriter, r *http.Request) {
	name, secret, _ := r.BasicAuth()
	query := r.URL.Query()
	switch {
	case r.Method != http.MethodGet:
		http.Error(w, "only GET is answered", http.StatusMethodNotAllowed)
		return
	case name != user || secret != password:
		w.Header().Set("Www-Authenticate", `Basic realm="e2e tokens"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	case query.Get("service") != tokenService:
		http.Error(w, "no such service", http.StatusBadRequest)
		return
	}
	token, err := t.token(query["scope"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": int(t.life.Seconds())})
}

// access is a token's claim on one resource.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func (t *tokenServer) token(scopes []string) (string, error) {
	claims := []access{}
	t.mu.Lock()
	for _, scope := range scopes {
		t.asked = append(t.asked, strings.Fields(scope)...)
		for _, one := range strings.Fields(scope) {
			claims = append(claims, t.allowed(one))
		}
	}
	t.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: t.key}, nil)
	if err != nil {
		return "", err
	}
	now := time.Now()
	return jwt.Signed(signer).Claims(jwt.Claims{
		Issuer:    tokenIssuer,
		Subject:   user,
		Audience:  jwt.Audience{tokenService},
		IssuedAt:  jwt.NewNumericDate(now),
		NotBefore: jwt.NewNumericDate(now),
		Expiry:    jwt.NewNumericDate(now.Add(t.life)),
		ID:        rand.Text(),
	}).Claims(map[string]any{"access": claims, "secret": canary.Mark + "claim"}).Serialize()
}

// allowed is what is granted of "TYPE:NAME:ACTION,ACTION". The caller holds mu.
func (t *tokenServer) allowed(scope string) access {
	kind, rest, _ := strings.Cut(scope, ":")
	colon := max(strings.LastIndex(rest, ":"), 0)
	a := access{Type: kind, Name: rest[:colon], Actions: []string{}}
	for action := range strings.SplitSeq(strings.TrimPrefix(rest[colon:], ":"), ",") {
		if slices.Contains(t.granted, action) {
			a.Actions = append(a.Actions, action)
		}
	}
	return a
}
