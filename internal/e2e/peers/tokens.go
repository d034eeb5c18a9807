//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	tokenIssuer  = "peers issuer"
	tokenService = "peers registry"
	tokenLife    = 5 * time.Minute
	// tokenUser and tokenPassword are the only ones that get tokens.
	tokenUser     = "builder"
	tokenPassword = "canary.row-Twelve-40"
)

// tokenServer gives one user tokens to pull and to push, as the distribution registry wants them.
type tokenServer struct {
	address string
	keys    string // file with the public key
	signer  jose.Signer
	server  http.Server
	ended   chan struct{}
	asked   atomic.Int64
}

// newTokenServer serves until it is closed. It writes its public key to a file.
func newTokenServer(keys string) (*tokenServer, error) {
	t := &tokenServer{keys: keys, ended: make(chan struct{})}
	if err := t.makeKey(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the token server: %w", err)
	}
	t.address = listener.Addr().String()
	t.server.Handler, t.server.ReadHeaderTimeout = http.HandlerFunc(t.answer), startTimeout
	go func() {
		defer close(t.ended)
		t.server.Serve(listener)
	}()
	return t, nil
}

func (t *tokenServer) close() {
	t.server.Close()
	<-t.ended
}

func (t *tokenServer) makeKey() error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key := jose.JSONWebKey{Key: private, KeyID: "peers", Algorithm: string(jose.ES256), Use: "sig"}
	t.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	return errors.Join(err, os.WriteFile(t.keys, raw, 0o600))
}

// answer takes the user's name as those send it who ask by GET, and those who ask by POST.
func (t *tokenServer) answer(w http.ResponseWriter, r *http.Request) {
	t.asked.Add(1)
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	name, secret, basic := r.BasicAuth()
	if !basic {
		name, secret = r.PostFormValue("username"), r.PostFormValue("password")
	}
	if name != tokenUser || secret != tokenPassword || r.FormValue("service") != tokenService {
		http.Error(w, "who are you, and what is that?", http.StatusUnauthorized)
		return
	}
	token, err := t.token(r.Form["scope"]...)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": int(tokenLife.Seconds())})
}

// claim is a token's on one resource.
type claim struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// token is one for scopes, each of them TYPE:NAME:ACTION,ACTION.
func (t *tokenServer) token(scopes ...string) (string, error) {
	claims := []claim{}
	for _, scope := range strings.Fields(strings.Join(scopes, " ")) {
		kind, rest, _ := strings.Cut(scope, ":")
		name, actions, _ := strings.Cut(rest, ":")
		claims = append(claims, claim{kind, name, strings.Split(actions, ",")})
	}
	now := time.Now()
	return jwt.Signed(t.signer).Claims(jwt.Claims{
		Issuer:   tokenIssuer,
		Subject:  tokenUser,
		Audience: jwt.Audience{tokenService},
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(tokenLife)),
		ID:       rand.Text(),
	}).Claims(map[string]any{"access": claims}).Serialize()
}
