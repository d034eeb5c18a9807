package auth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

var pullA = Repository("a", "pull")

func alice(context.Context, string) (Credential, error) {
	return Credential{Username: "alice", Password: "canary.hunter2"}, nil
}

func TestZeroTransportGetsAnAnonymousToken(t *testing.T) {
	realm := httptest.NewServer(&fakeRealm{})
	defer realm.Close()
	registry := &fakeRegistry{challenges: []string{`Bearer realm="` + realm.URL + `"`}, accept: acceptOnly("Bearer canary.t1")}
	server := httptest.NewServer(registry)
	defer server.Close()
	status, body := get(t, &Transport{}, server.URL+"/v2/")
	if status != http.StatusOK || body != "welcome" {
		t.Errorf("got %d, %q", status, body)
	}
}

func TestALearntChallengeAuthorisesLaterRequestsUpFront(t *testing.T) {
	registry, realm := &fakeRegistry{}, &fakeRealm{}
	rt := pair(registry, realm)
	get(t, rt, registryURL+"/v2/a/tags/list", pullA)
	get(t, rt, registryURL+"/v2/a/manifests/v1", pullA)
	get(t, rt, registryURL+"/v2/b/manifests/v1", Repository("b", "pull"))
	wantEqual(t, "authorizations", registry.authorizations(), []string{"", "Bearer canary.t1", "Bearer canary.t1", "Bearer canary.t2"})
	wantEqual(t, "scopes", realm.scopesAsked(), []string{"repository:a:pull", "repository:b:pull"})
}

func TestHostsAreLearntApart(t *testing.T) {
	registry, other := &fakeRegistry{}, &fakeRegistry{accept: acceptOnly("")}
	rt := pair(registry, &fakeRealm{})
	rt.Base.(network)[registryURL+":8443"] = other
	get(t, rt, registryURL+"/v2/", pullA)
	get(t, rt, registryURL+":8443/v2/", pullA)
	wantEqual(t, "authorizations at the other port", other.authorizations(), []string{""})
}

func TestBasicIsSentOnlyAfterABasicChallenge(t *testing.T) {
	registry := &fakeRegistry{challenges: []string{`Basic realm="r"`}, accept: acceptOnly("Basic YWxpY2U6Y2FuYXJ5Lmh1bnRlcjI=")}
	rt := pair(registry, nil)
	rt.Credentials = alice
	for range 2 {
		if status, _ := get(t, rt, registryURL+"/v2/"); status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	}
	wantEqual(t, "authorizations", registry.authorizations(),
		[]string{"", "Basic YWxpY2U6Y2FuYXJ5Lmh1bnRlcjI=", "Basic YWxpY2U6Y2FuYXJ5Lmh1bnRlcjI="})
}

func TestChallengesThatCannotBeAnsweredAreReturnedAsTheyAre(t *testing.T) {
	nobody := func(string, *http.Request) bool { return false }
	tests := []struct {
		name        string
		challenges  []string
		credentials CredentialFunc
		sent        int // by two requests
	}{
		{"another scheme", []string{`Negotiate, Digest realm="r", nonce="n"`}, alice, 2},
		{"a broken challenge", []string{`="`}, alice, 2},
		{"no challenge", []string{}, alice, 2},
		{"Basic without a credential", []string{`Basic realm="r"`}, nil, 2},
		{"Basic with only an identity token", []string{`Basic realm="r"`}, Static("registry.example", Credential{IdentityToken: "canary.i"}), 2},
		{"Basic with a wrong password", []string{`Basic realm="r"`}, alice, 3},
		{"Bearer without a realm", []string{`Bearer service="s"`}, alice, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			registry := &fakeRegistry{challenges: tt.challenges, accept: nobody}
			rt := pair(registry, &fakeRealm{})
			rt.Credentials = tt.credentials
			for range 2 {
				status, body := get(t, rt, registryURL+"/v2/")
				if status != http.StatusUnauthorized || body != "no entry" {
					t.Errorf("got %d, %q", status, body)
				}
			}
			if n := len(registry.authorizations()); n != tt.sent {
				t.Errorf("%d requests were sent, want %d", n, tt.sent)
			}
		})
	}
}

func TestCase04TokensAreRefreshedAheadOfTheirExpiry(t *testing.T) {
	tests := []struct {
		name      string
		expiresIn any
		lasts     time.Duration // the last moment at which the token is used, but for a nanosecond
	}{
		{"300 seconds", 300, 270 * time.Second},
		{"not said", nil, 45 * time.Second},
		{"nought", 0, 45 * time.Second},
		{"20 seconds", 20, 15 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			registry, realm, now := &fakeRegistry{}, &fakeRealm{expiresIn: tt.expiresIn}, newClock()
			rt := pair(registry, realm)
			rt.now = now.Now
			get(t, rt, registryURL+"/v2/", pullA)
			now.advance(tt.lasts - 1)
			get(t, rt, registryURL+"/v2/", pullA)
			now.advance(1)
			get(t, rt, registryURL+"/v2/", pullA)
			wantEqual(t, "authorizations", registry.authorizations(), []string{"", "Bearer canary.t1", "Bearer canary.t1", "Bearer canary.t2"})
		})
	}
}

func TestARefusedOldTokenIsReplacedOnceAndTheBodySentAgain(t *testing.T) {
	for _, challenged := range []bool{true, false} {
		registry := &fakeRegistry{challenges: []string{bearer}}
		rt := pair(registry, &fakeRealm{})
		get(t, rt, registryURL+"/v2/", pullA)

		registry.accept = acceptOnly("Bearer canary.t2")
		if !challenged {
			registry.challenges = nil
		}
		req := request(t, http.MethodPut, registryURL+"/v2/a/blobs/uploads/1", strings.NewReader("layer"), pullA)
		if status, _ := roundTrip(t, rt, req); status != http.StatusOK {
			t.Errorf("challenged %v: status %d", challenged, status)
		}
		puts := registry.seen[2:]
		for i, want := range []string{"Bearer canary.t1", "Bearer canary.t2"} {
			if puts[i].authorization != want || puts[i].body != "layer" {
				t.Errorf("challenged %v: request %d was %+v", challenged, i, puts[i])
			}
		}
	}
}

func TestCase06ARefusedNewTokenIsReturnedAsTheResponse(t *testing.T) {
	registry, realm := &fakeRegistry{accept: acceptOnly("nothing")}, &fakeRealm{}
	rt := pair(registry, realm)
	for range 2 {
		status, body := get(t, rt, registryURL+"/v2/", pullA)
		if status != http.StatusUnauthorized || body != "no entry" {
			t.Errorf("got %d, %q", status, body)
		}
	}
	get(t, rt, registryURL+"/v2/", Repository("b", "pull"))
	wantEqual(t, "authorizations", registry.authorizations(), []string{"", "Bearer canary.t1", "Bearer canary.t2", "Bearer canary.t3"})
}

func TestATokenThatWasRefusedIsNotKept(t *testing.T) {
	registry := &fakeRegistry{accept: acceptOnly("Bearer canary.t2")}
	rt := pair(registry, &fakeRealm{})
	get(t, rt, registryURL+"/v2/", pullA)
	if status, _ := get(t, rt, registryURL+"/v2/", pullA); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

func TestRequestsWithoutScopesUseThoseOfTheLastChallenge(t *testing.T) {
	registry := &fakeRegistry{challenges: []string{bearer + `,scope="repository:a:pull"`}}
	rt := pair(registry, &fakeRealm{})
	get(t, rt, registryURL+"/v2/a/tags/list")
	get(t, rt, registryURL+"/v2/b/tags/list", Repository("b", "pull"))
	get(t, rt, registryURL+"/v2/a/tags/list")
	wantEqual(t, "authorizations", registry.authorizations(), []string{"", "Bearer canary.t1", "Bearer canary.t2", "Bearer canary.t1"})
}

func TestATokenThatAnotherFlightLeftIsNotGotAgain(t *testing.T) {
	realm := &fakeRealm{}
	rt := pair(&fakeRegistry{}, realm)
	get(t, rt, registryURL+"/v2/", pullA)
	target := request(t, http.MethodGet, registryURL, nil).URL
	o := rt.origin(target)
	tok, err := rt.fetch(t.Context(), o, wish{demand: o.learned(), need: []Scope{pullA}})
	if err != nil || tok.value != "canary.t1" || len(realm.requests()) != 1 {
		t.Errorf("got %v, %v after %d exchanges", tok, err, len(realm.requests()))
	}
}

func TestTokensOfOneRealmDoNotAnswerForAnother(t *testing.T) {
	registry, elsewhere := &fakeRegistry{}, &fakeRealm{given: 100}
	rt := pair(registry, &fakeRealm{})
	rt.Base.(network)["https://auth2.example"] = elsewhere
	get(t, rt, registryURL+"/v2/", pullA)
	registry.challenges = []string{`Bearer realm="https://auth2.example/token"`}
	registry.accept = acceptOnly("Bearer canary.t101")
	if status, _ := get(t, rt, registryURL+"/v2/", Repository("b", "pull")); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	registry.accept = acceptOnly("Bearer canary.t102")
	get(t, rt, registryURL+"/v2/", pullA)
	wantEqual(t, "authorizations", registry.authorizations(),
		[]string{"", "Bearer canary.t1", "Bearer canary.t2", "Bearer canary.t101", "Bearer canary.t102"})
}

func TestABodyThatCannotBeHadAgainIsSentOnce(t *testing.T) {
	registry := &fakeRegistry{}
	rt := pair(registry, &fakeRealm{})
	once := func() *http.Request {
		return request(t, http.MethodPatch, registryURL+"/v2/a/blobs/uploads/1", io.MultiReader(strings.NewReader("chunk")), pullA)
	}
	status, body := roundTrip(t, rt, once())
	if status != http.StatusUnauthorized || body != "no entry" {
		t.Errorf("got %d, %q", status, body)
	}
	if status, _ := roundTrip(t, rt, once()); status != http.StatusOK {
		t.Errorf("the next request got %d: nothing was learnt", status)
	}
	wantEqual(t, "authorizations", registry.authorizations(), []string{"", "Bearer canary.t1"})
}

func TestABodyThatFailsToComeAgainLeavesTheResponse(t *testing.T) {
	rt := pair(&fakeRegistry{}, &fakeRealm{})
	req := request(t, http.MethodPut, registryURL+"/v2/", strings.NewReader("x"), pullA)
	req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
	if status, body := roundTrip(t, rt, req); status != http.StatusUnauthorized || body != "no entry" {
		t.Errorf("got %d, %q", status, body)
	}
}

// closeCounter is a body that counts how often it was opened and closed.
type closeCounter struct {
	mu           sync.Mutex // mu guards the fields below
	open, closed int
}

func (c *closeCounter) body() (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	var once sync.Once
	return joined{Reader: strings.NewReader("body"), Closer: closerFunc(func() error {
		once.Do(func() { c.mu.Lock(); c.closed++; c.mu.Unlock() })
		return nil
	})}, nil
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

func TestRequestBodiesAreClosedOnEveryPath(t *testing.T) {
	broken := func(context.Context, string) (Credential, error) { return Credential{}, errors.New("keychain locked") }
	tests := []struct {
		name  string
		learn bool // send another request first
		set   func(rt *Transport, registry *fakeRegistry)
	}{
		{"accepted at once", false, func(_ *Transport, r *fakeRegistry) { r.accept = acceptOnly("") }},
		{"sent again", false, func(*Transport, *fakeRegistry) {}},
		{"authorised up front", true, func(*Transport, *fakeRegistry) {}},
		{"returned 401", false, func(_ *Transport, r *fakeRegistry) { r.accept = acceptOnly("nothing") }},
		{"credential fails after 401", false, func(rt *Transport, _ *fakeRegistry) { rt.Credentials = broken }},
		{"credential fails up front", true, func(rt *Transport, _ *fakeRegistry) { rt.Credentials = broken }},
		{"network fails", false, func(rt *Transport, _ *fakeRegistry) { delete(rt.Base.(network), registryURL) }},
		{"realm is gone", true, func(rt *Transport, _ *fakeRegistry) { delete(rt.Base.(network), realmURL) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			registry := &fakeRegistry{}
			rt := pair(registry, &fakeRealm{})
			if tt.learn {
				get(t, rt, registryURL+"/v2/", Repository("other", "pull"))
			}
			tt.set(rt, registry)
			var count closeCounter
			req := request(t, http.MethodPut, registryURL+"/v2/", nil, pullA)
			req.GetBody = count.body
			req.Body, _ = count.body()
			if resp, err := rt.RoundTrip(req); err == nil {
				resp.Body.Close()
			}
			if count.closed != count.open {
				t.Errorf("%d of %d bodies are closed", count.closed, count.open)
			}
		})
	}
}

func TestTheCallersRequestIsNotChanged(t *testing.T) {
	rt := pair(&fakeRegistry{}, &fakeRealm{})
	rt.UserAgent = "tool/1"
	req := request(t, http.MethodPut, registryURL+"/v2/", strings.NewReader("x"), pullA)
	req.Header.Set("X-Own", "1")
	body, header := req.Body, req.Header.Clone()
	for _, what := range []string{"challenged", "authorised up front"} {
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if !reflect.DeepEqual(req.Header, header) || req.Body != body {
			t.Errorf("%s: header is %v", what, req.Header)
		}
		if resp.Request != req {
			t.Errorf("%s: the response is to another request, which shows a token", what)
		}
	}
}

func TestAnAuthorizationOfTheCallersOwnIsLeftAlone(t *testing.T) {
	registry := &fakeRegistry{accept: acceptOnly("nothing")}
	rt := pair(registry, &fakeRealm{})
	rt.Credentials = alice
	req := request(t, http.MethodGet, registryURL+"/v2/", nil)
	req.Header.Set("Authorization", "Bearer canary.mine")
	if status, _ := roundTrip(t, rt, req); status != http.StatusUnauthorized {
		t.Errorf("status %d", status)
	}
	wantEqual(t, "authorizations", registry.authorizations(), []string{"Bearer canary.mine"})
}

func TestTheUserAgentIsSentToRegistryAndRealm(t *testing.T) {
	registry, realm := &fakeRegistry{}, &fakeRealm{}
	rt := pair(registry, realm)
	rt.UserAgent = "tool/1"
	get(t, rt, registryURL+"/v2/")
	own := request(t, http.MethodGet, registryURL+"/v2/", nil)
	own.Header.Set("User-Agent", "own/2")
	roundTrip(t, rt, own)
	wantEqual(t, "at the registry", []string{registry.seen[0].userAgent, registry.seen[2].userAgent}, []string{"tool/1", "own/2"})
	wantEqual(t, "at the realm", realm.requests()[0].userAgent, "tool/1")
}

type idleCloser struct {
	http.RoundTripper
	closed bool
}

func (c *idleCloser) CloseIdleConnections() { c.closed = true }

func TestIdleConnectionsBelowAreClosed(t *testing.T) {
	base := &idleCloser{}
	(&http.Client{Transport: &Transport{Base: base}}).CloseIdleConnections()
	if !base.closed {
		t.Error("the base was not told")
	}
	(&Transport{Base: network{}}).CloseIdleConnections() // has no such method
}

func TestACredentialThatCannotBeReadFailsTheRequestAndNamesTheHost(t *testing.T) {
	locked := errors.New("keychain locked")
	for _, challenge := range []string{bearer, `Basic realm="r"`} {
		rt := pair(&fakeRegistry{challenges: []string{challenge}, accept: acceptOnly("nothing")}, &fakeRealm{})
		rt.Credentials = func(context.Context, string) (Credential, error) { return Credential{}, locked }
		_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
		if !errors.Is(err, locked) || !strings.Contains(err.Error(), "registry.example") {
			t.Errorf("error is %v", err)
		}
	}
}

func TestAnAccessTokenIsSentAsItIsAndAskedForEachTime(t *testing.T) {
	registry, realm := &fakeRegistry{}, &fakeRealm{}
	rt := pair(registry, realm)
	calls := 0
	rt.Credentials = func(context.Context, string) (Credential, error) {
		calls++
		return Credential{AccessToken: "canary." + strings.Repeat("x", calls)}, nil
	}
	get(t, rt, registryURL+"/v2/", pullA)
	get(t, rt, registryURL+"/v2/", pullA)
	wantEqual(t, "authorizations", registry.authorizations(), []string{"", "Bearer canary.x", "Bearer canary.xx"})
	if n := len(realm.requests()); n != 0 {
		t.Errorf("the realm was asked %d times", n)
	}
}

func TestAnAccessTokenServesAChallengeWithoutARealm(t *testing.T) {
	rt := pair(&fakeRegistry{challenges: []string{"Bearer"}, accept: acceptOnly("Bearer canary.mine")}, nil)
	rt.Credentials = Static("registry.example", Credential{AccessToken: "canary.mine"})
	if status, _ := get(t, rt, registryURL+"/v2/"); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

func TestCredentialsAreAskedWithTheScopesOfTheToken(t *testing.T) {
	registry := &fakeRegistry{challenges: []string{bearer + `,scope="repository:a:pull"`}}
	rt := pair(registry, &fakeRealm{})
	var scopes, host string
	rt.Credentials = func(ctx context.Context, h string) (Credential, error) {
		scopes, host = scopeText(scopesOf(ctx)), h
		return Credential{}, nil
	}
	rt.Base.(network)["https://REGISTRY.example"] = registry
	get(t, rt, "https://REGISTRY.example/v2/")
	wantEqual(t, "scopes", scopes, "repository:a:pull")
	wantEqual(t, "host", host, "registry.example")
}

func TestALongOrBrokenBodyOfA401IsStillReadAsItCame(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), maxHeld/5)
	broken := errors.New("connection reset")
	tests := []struct {
		name string
		body io.Reader
		want []byte
		err  error
	}{
		{"long", bytes.NewReader(long), long, nil},
		{"as long as is held", bytes.NewReader(long[:maxHeld]), long[:maxHeld], nil},
		{"broken", io.MultiReader(strings.NewReader("no en"), failing{err: broken}), []byte("no en"), broken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			closed := false
			rt := &Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				return &http.Response{
					StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {"Bearer"}},
					Body: joined{tt.body, closerFunc(func() error { closed = true; return nil })},
				}, nil
			})}
			resp, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if !bytes.Equal(got, tt.want) || err != tt.err {
				t.Errorf("read %d bytes and %v, want %d and %v", len(got), err, len(tt.want), tt.err)
			}
			resp.Body.Close()
			if !closed {
				t.Error("the body is not closed")
			}
		})
	}
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
