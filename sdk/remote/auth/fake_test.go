package auth

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// network is a RoundTripper to handlers in this process, by "scheme://host": registries and token
// servers can have any name and address.
type network map[string]http.Handler

func (n network) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	h, ok := n[req.URL.Scheme+"://"+req.URL.Host]
	if !ok {
		return nil, fmt.Errorf("no host %s", req.URL.Host)
	}
	in := req.Clone(req.Context())
	in.Host = req.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, in)
	resp := rec.Result()
	resp.Request = req
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return resp, nil
}

// fakeRegistry wants what its challenges say, and takes what its accept says.
type fakeRegistry struct {
	challenges []string
	challenge  func(*http.Request) string // in place of challenges
	accept     func(authorization string, r *http.Request) bool

	mu   sync.Mutex // mu guards the fields below
	seen []seenRequest
}

type seenRequest struct{ method, path, authorization, body, userAgent string }

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	authorization := r.Header.Get("Authorization")
	f.mu.Lock()
	f.seen = append(f.seen, seenRequest{r.Method, r.URL.Path, authorization, string(body), r.UserAgent()})
	f.mu.Unlock()
	if f.accept(authorization, r) {
		io.WriteString(w, "welcome")
		return
	}
	for _, c := range f.challenges {
		w.Header().Add("WWW-Authenticate", c)
	}
	if f.challenge != nil {
		w.Header().Set("WWW-Authenticate", f.challenge(r))
	}
	w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(w, "no entry")
}

func (f *fakeRegistry) authorizations() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.seen {
		out = append(out, s.authorization)
	}
	return out
}

func acceptOnly(want string) func(string, *http.Request) bool {
	return func(got string, _ *http.Request) bool { return got == want }
}

func acceptBearer(got string, _ *http.Request) bool { return strings.HasPrefix(got, "Bearer ") }

// fakeRealm gives the tokens t1, t2, ... and keeps what it was asked.
type fakeRealm struct {
	respond   func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	expiresIn any

	mu    sync.Mutex // mu guards the fields below
	asked []tokenRequest
	given int
}

type tokenRequest struct {
	method, service, scope, username, password, refreshToken, grantType, clientID, userAgent string
	scopes                                                                                   int
}

func (f *fakeRealm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	username, password, _ := r.BasicAuth()
	f.mu.Lock()
	f.asked = append(f.asked, tokenRequest{
		method: r.Method, service: r.Form.Get("service"), scope: strings.Join(r.Form["scope"], " "),
		username: username, password: password, refreshToken: r.PostForm.Get("refresh_token"),
		grantType: r.PostForm.Get("grant_type"), clientID: r.PostForm.Get("client_id"),
		userAgent: r.UserAgent(), scopes: len(r.Form["scope"]),
	})
	f.mu.Unlock()
	if f.respond != nil && f.respond(w, r) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.given++
	answer := map[string]any{"token": fmt.Sprint("canary.t", f.given)}
	if f.expiresIn != nil {
		answer["expires_in"] = f.expiresIn
	}
	json.NewEncoder(w).Encode(answer)
}

func (f *fakeRealm) requests() []tokenRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]tokenRequest(nil), f.asked...)
}

func (f *fakeRealm) scopesAsked() []string {
	var out []string
	for _, r := range f.requests() {
		out = append(out, r.scope)
	}
	return out
}

// clock is a time that moves when it is told to.
type clock struct {
	mu  sync.Mutex // mu guards the field below
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const (
	registryURL = "https://registry.example"
	realmURL    = "https://auth.example"
	bearer      = `Bearer realm="https://auth.example/token",service="registry.example"`
)

// pair is a registry and its token server, and a Transport that reaches both.
func pair(registry *fakeRegistry, realm *fakeRealm) *Transport {
	if registry.challenges == nil && registry.challenge == nil {
		registry.challenges = []string{bearer}
	}
	if registry.accept == nil {
		registry.accept = acceptBearer
	}
	return &Transport{Base: network{registryURL: registry, realmURL: realm}}
}

// get sends a GET with scopes and returns status and body.
func get(t *testing.T, rt http.RoundTripper, url string, scopes ...Scope) (int, string) {
	t.Helper()
	req := request(t, http.MethodGet, url, nil, scopes...)
	return roundTrip(t, rt, req)
}

func request(t *testing.T, method, url string, body io.Reader, scopes ...Scope) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(WithScopes(t.Context(), scopes...), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func roundTrip(t *testing.T, rt http.RoundTripper, req *http.Request) (int, string) {
	t.Helper()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func wantEqual[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	g, w := fmt.Sprintf("%q", any(got)), fmt.Sprintf("%q", any(want))
	if g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}
