package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthoci/berth"
)

func TestCase07ScopesOfATokenAreThoseOfItsRequest(t *testing.T) {
	push, mount, del := Repository("a", "pull", "push"), Repository("b", "pull"), Repository("a", "delete")
	tests := []struct {
		name      string
		requests  [][]Scope
		challenge string   // the scope that the registry asks for
		want      []string // the scopes of each exchange
	}{
		{"exactly what the request needs", [][]Scope{{pullA}}, "", []string{"repository:a:pull"}},
		{"nothing piles up", [][]Scope{{pullA}, {mount}, {Catalog()}}, "",
			[]string{"repository:a:pull", "repository:b:pull", "registry:catalog:*"}},
		{"a wider token serves", [][]Scope{{push}, {pullA}}, "", []string{"repository:a:pull,push"}},
		{"a narrower one does not", [][]Scope{{pullA}, {push}, {pullA}}, "", []string{"repository:a:pull", "repository:a:pull,push"}},
		{"a mount has both repositories, push first", [][]Scope{{mount, push}, {mount}}, "",
			[]string{"repository:a:pull,push repository:b:pull"}},
		{"the challenge's, without any of its own", [][]Scope{nil, nil}, "repository:a:pull", []string{"repository:a:pull"}},
		{"what the challenge adds for the same repository", [][]Scope{{push}, {del, push}}, "repository:a:delete",
			[]string{"repository:a:delete,pull,push"}},
		{"nothing that the challenge wants elsewhere", [][]Scope{{pullA}}, "repository:secret:pull registry:catalog:*",
			[]string{"repository:a:pull"}},
		{"none at all", [][]Scope{nil, nil}, "", []string{""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			realm := &fakeRealm{}
			rt := pair(&fakeRegistry{challenges: []string{bearer + `,scope="` + tt.challenge + `"`}}, realm)
			for _, scopes := range tt.requests {
				get(t, rt, registryURL+"/v2/", scopes...)
			}
			wantEqual(t, "scopes", realm.scopesAsked(), tt.want)
		})
	}
}

func TestScopesAreSentAsOneParameterEach(t *testing.T) {
	realm := &fakeRealm{}
	rt := pair(&fakeRegistry{}, realm)
	get(t, rt, registryURL+"/v2/", Repository("a", "push"), Repository("b", "pull"))
	if n := realm.requests()[0].scopes; n != 2 {
		t.Errorf("%d scope parameters", n)
	}
}

func TestANewTokenIsWidenedWhereTheRegistryAsksForMore(t *testing.T) {
	registry, realm := &fakeRegistry{}, &fakeRealm{}
	rt := pair(registry, realm)
	get(t, rt, registryURL+"/v2/", pullA)
	registry.challenges = []string{bearer + `,scope="repository:b:delete"`}
	registry.accept = acceptOnly("Bearer canary.t3")
	if status, _ := get(t, rt, registryURL+"/v2/", Repository("b", "pull", "push")); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	wantEqual(t, "scopes", realm.scopesAsked(),
		[]string{"repository:a:pull", "repository:b:pull,push", "repository:b:delete,pull,push"})
}

func TestRequestsAtOnceShareOneExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		registry := &fakeRegistry{}
		realm := &fakeRealm{respond: func(http.ResponseWriter, *http.Request) bool { <-release; return false }}
		rt := pair(registry, realm)
		done := make(chan int, 8)
		for range 8 {
			go func() { status, _ := get(t, rt, registryURL+"/v2/", pullA); done <- status }()
		}
		synctest.Wait()
		close(release)
		for range 8 {
			if status := <-done; status != http.StatusOK {
				t.Errorf("status %d", status)
			}
		}
		wantEqual(t, "scopes", realm.scopesAsked(), []string{"repository:a:pull"})
	})
}

func TestCancellingARequestEndsItsExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		realm := &fakeRealm{respond: func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }}
		rt := pair(&fakeRegistry{}, realm)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil).WithContext(ctx))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
	}) // fails if a goroutine is left
}

func TestASilentTokenServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		realm := &fakeRealm{respond: func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }}
		rt := pair(&fakeRegistry{}, realm)
		_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) || e.Realm != "auth.example" {
			t.Errorf("error is %v", err)
		}
	})
}

func TestCase05AnIdentityTokenIsExchangedByPOST(t *testing.T) {
	for _, cred := range []Credential{{IdentityToken: canaryIdentity}, {Username: "<token>", Password: canaryIdentity}} {
		realm := &fakeRealm{}
		rt := pair(&fakeRegistry{}, realm)
		rt.Credentials = Static("registry.example", cred)
		get(t, rt, registryURL+"/v2/", Repository("a", "push"), Repository("b", "pull"))
		wantEqual(t, "request", realm.requests(), []tokenRequest{{
			method: http.MethodPost, service: "registry.example", scope: "repository:a:push repository:b:pull",
			refreshToken: canaryIdentity, grantType: "refresh_token", clientID: clientID, scopes: 1, userAgent: "",
		}})
	}
}

func TestCase05ATokenServerWithoutPOSTIsAskedByGETAndRemembered(t *testing.T) {
	for i, status := range []int{400, 401, 404, 405} {
		user := []string{"<token>", "alice"}[i%2]
		realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				w.WriteHeader(status)
			}
			return r.Method == http.MethodPost
		}}
		rt := pair(&fakeRegistry{}, realm)
		cred := Credential{IdentityToken: canaryIdentity}
		if user != tokenUser {
			cred.Username = user
		}
		rt.Credentials = Static("registry.example", cred)
		get(t, rt, registryURL+"/v2/", pullA)
		get(t, rt, registryURL+"/v2/", Repository("b", "pull"))
		var got []string
		for _, r := range realm.requests() {
			got = append(got, strings.TrimSpace(r.method+" "+r.username+" "+r.password))
		}
		wantEqual(t, fmt.Sprint("requests after ", status), got, []string{"POST", "GET " + user + " " + canaryIdentity, "GET " + user + " " + canaryIdentity})
	}
}

// An exchange that waits for another one with the same identity token ends with its own request.
func TestWaitingForATurnEndsWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		realm := &fakeRealm{respond: func(http.ResponseWriter, *http.Request) bool { <-release; return false }}
		rt := pair(&fakeRegistry{}, realm)
		rt.Credentials = Static("registry.example", Credential{IdentityToken: canaryIdentity})
		first := make(chan int, 1)
		go func() { status, _ := get(t, rt, registryURL+"/v2/", pullA); first <- status }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		second := make(chan error, 1)
		go func() {
			req := request(t, http.MethodGet, registryURL+"/v2/", nil)
			_, err := rt.RoundTrip(req.WithContext(WithScopes(ctx, Repository("b", "pull"))))
			second <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-second; !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		close(release)
		if status := <-first; status != http.StatusOK || len(realm.requests()) != 1 {
			t.Errorf("status %d after %d exchanges", status, len(realm.requests()))
		}
	})
}

func TestIdentityTokensAreFollowedWithinBounds(t *testing.T) {
	o := new(origin)
	for i := range 3 * maxRefreshes {
		if r := o.refresh("realm", fmt.Sprint(i)); r.newest != fmt.Sprint(i) || len(o.refreshes) > maxRefreshes {
			t.Errorf("%d: %q of %d", i, r.newest, len(o.refreshes))
		}
	}
}

// A server may begin to replace identity tokens while several exchanges use one.
func TestAnIdentityTokenThatWasReplacedMeanwhile(t *testing.T) {
	r := new(origin).refresh("realm", "stored")
	r.learn("stored", "")
	sent, end, err := r.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.learn("stored", "second")
	wantEqual(t, "to try instead", r.instead(sent), "second")
	end()
	wantEqual(t, "where that is refused too", r.instead("second"), "stored")
	wantEqual(t, "where all are", r.instead("stored"), "")
}

func TestABadIdentityTokenProvesNothingAboutPOST(t *testing.T) {
	realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(401); return true }}
	rt := pair(&fakeRegistry{}, realm)
	rt.Credentials = Static("registry.example", Credential{IdentityToken: "canary.expired"})
	for range 2 {
		rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
	}
	var got []string
	for _, r := range realm.requests() {
		got = append(got, r.method)
	}
	wantEqual(t, "requests", got, []string{"POST", "GET", "POST", "GET"})
}

func TestPOSTIsNotGivenUpForAServerError(t *testing.T) {
	realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true }}
	rt := pair(&fakeRegistry{}, realm)
	rt.Credentials = Static("registry.example", Credential{IdentityToken: canaryIdentity})
	if _, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil)); err == nil {
		t.Error("no error")
	}
	if n := len(realm.requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestCase11ACredentialGoesOnlyToTheRealmOfItsOwnRegistry(t *testing.T) {
	realm := &fakeRealm{}
	rt := pair(&fakeRegistry{}, realm)
	rt.Credentials = Chain(
		Static("auth.example", Credential{Username: "realm", Password: "canary.owner"}),
		Static("other.example", Credential{Username: "bob", Password: "canary.other"}),
	)
	get(t, rt, registryURL+"/v2/")
	wantEqual(t, "user name at the realm", realm.requests()[0].username, "")
}

func TestAnonymousRetryThatFailsTooNamesTheCredential(t *testing.T) {
	realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(401); return true }}
	rt := pair(&fakeRegistry{}, realm)
	rt.Credentials, rt.AnonymousRetry = alice, true
	_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
	if err == nil || !strings.Contains(err.Error(), "as alice") || len(realm.requests()) != 2 {
		t.Errorf("error is %v after %d requests", err, len(realm.requests()))
	}
}

func TestCase04TokenAnswersAreRead(t *testing.T) {
	const margin60 = 45 * time.Second
	tests := []struct {
		name, body string
		value      string // "" if there must be an error
		lasts      time.Duration
	}{
		{"token", `{"token":"a","expires_in":300}`, "a", 270 * time.Second},
		{"access_token", `{"access_token":"a","expires_in":100}`, "a", 75 * time.Second},
		{"both", `{"token":"a","access_token":"b"}`, "a", margin60},
		{"a lie in issued_at", `{"token":"a","expires_in":300,"issued_at":"1970-01-01T00:00:00Z"}`, "a", 270 * time.Second},
		{"seconds in a string", `{"token":"a","expires_in":"300"}`, "a", 270 * time.Second},
		{"half a second", `{"token":"a","expires_in":0.5}`, "a", 375 * time.Millisecond},
		{"null", `{"token":"a","expires_in":null}`, "a", margin60},
		{"negative", `{"token":"a","expires_in":-1}`, "a", margin60},
		{"no number", `{"token":"a","expires_in":{"x":1}}`, "a", margin60},
		{"NaN", `{"token":"a","expires_in":"NaN"}`, "a", margin60},
		{"for ever", `{"token":"a","expires_in":1e300}`, "a", 24*time.Hour - 30*time.Second},
		{"no token", `{"expires_in":300}`, "", 0},
		{"a header in the token", `{"token":"a\r\nX-Evil: 1"}`, "", 0},
		{"a blank in the token", `{"token":"a b"}`, "", 0},
		{"not JSON", `<html>`, "", 0},
		{"nothing", ``, "", 0},
	}
	now := newClock().Now()
	x := exchange{registry: "registry.example", realm: &url.URL{Scheme: "https", Host: "auth.example"}}
	for _, tt := range tests {
		tok, _, err := x.parse(200, []byte(tt.body), now)
		if tt.value == "" {
			if !errors.Is(err, berth.ErrUnauthorized) {
				t.Errorf("%s: error is %v", tt.name, err)
			}
			continue
		}
		if err != nil || tok.value != tt.value || tok.expires.Sub(now) != tt.lasts {
			t.Errorf("%s: got %+v, %v; want %q for %v", tt.name, tok, err, tt.value, tt.lasts)
		}
	}
}

func TestAnAnswerWithoutEndIsCutOff(t *testing.T) {
	realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool {
		io.WriteString(w, `{"token":"`+strings.Repeat("x", maxTokenAnswer)+`"}`)
		return true
	}}
	_, err := pair(&fakeRegistry{}, realm).RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
	if err == nil || !strings.Contains(err.Error(), "1 MiB") {
		t.Errorf("error is %v", err)
	}
}

func TestFailedExchangesAreToldApart(t *testing.T) {
	sentinels := []error{berth.ErrUnauthorized, berth.ErrDenied, berth.ErrTooManyRequests}
	tests := []struct {
		status int
		body   string
		is     error
		text   string
	}{
		{401, `{"errors":[{"code":"UNAUTHORIZED","message":"token expired"}]}`, berth.ErrUnauthorized, "401 Unauthorized: UNAUTHORIZED: token expired"},
		{401, `{"details":"incorrect username or password"}`, berth.ErrUnauthorized, "401 Unauthorized: incorrect username or password"},
		{403, `{"errors":[{"code":"DENIED"},{"message":"pay first"}]}`, berth.ErrDenied, "403 Forbidden: DENIED; pay first"},
		{400, `{"error":"invalid_grant","error_description":"revoked"}`, berth.ErrUnauthorized, "400 Bad Request: invalid_grant: revoked"},
		{404, `{"message":"no such realm"}`, berth.ErrUnauthorized, "404 Not Found: no such realm"},
		{429, "slow\n\tdown \x1b[31m", berth.ErrTooManyRequests, "429 Too Many Requests: slow down [31m"},
		{503, "", nil, "503 Service Unavailable"},
		{500, `{"unknown":"shape"}`, nil, `500 Internal Server Error: {"unknown":"shape"}`},
		{599, "odd", nil, "599: odd"},
	}
	for _, tt := range tests {
		realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
			return true
		}}
		rt := pair(&fakeRegistry{}, realm)
		rt.Credentials = alice
		_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
		wantEqual(t, "text", fmt.Sprint(err), "token for registry.example from auth.example as alice: "+tt.text)
		for _, s := range sentinels {
			if errors.Is(err, s) != (s == tt.is) {
				t.Errorf("status %d: errors.Is(err, %v) is %v", tt.status, s, errors.Is(err, s))
			}
		}
	}
}

func TestAnUnreachableTokenServerIsTheErrorBelow(t *testing.T) {
	down := errors.New("no route to host")
	registry := &fakeRegistry{challenges: []string{bearer}, accept: acceptBearer}
	reach := network{registryURL: registry}
	rt := &Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == "auth.example" {
			return nil, down
		}
		return reach.RoundTrip(req)
	})}
	_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
	if !errors.Is(err, down) || errors.Is(err, berth.ErrUnauthorized) {
		t.Errorf("error is %v", err)
	}
	wantEqual(t, "text", fmt.Sprint(err), "token for registry.example from auth.example as anonymous: no route to host")
}

func TestDiagnosticsAreBoundedAndHoldNoSecret(t *testing.T) {
	const password, identity = "canary.p@ss word/é", "canary.identity.token"
	secrets := []string{password, url.QueryEscape(password), identity, base64.StdEncoding.EncodeToString([]byte("alice:" + password))}
	for _, cred := range []Credential{{Username: "alice", Password: password}, {IdentityToken: identity}} {
		realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool {
			user, pass, _ := r.BasicAuth()
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "you sent %s %s and %s %s %s, %s", user, pass, url.QueryEscape(pass), r.Header.Get("Authorization"),
				r.PostForm.Encode(), strings.Repeat("é ", 1<<16))
			return true
		}}
		rt := pair(&fakeRegistry{}, realm)
		rt.Credentials = Static("registry.example", cred)
		_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
		var e *Error
		if !errors.As(err, &e) || len(e.Message) > maxMessage+len("…") {
			t.Errorf("error is %v", err)
		}
		if i := slices.IndexFunc(secrets, func(s string) bool { return strings.Contains(err.Error(), s) }); i >= 0 {
			t.Errorf("error has a secret: %v", err)
		}
	}
}

func TestAMessageIsCutBetweenCharacters(t *testing.T) {
	for n := range 3 {
		got := line(strings.Repeat("a", n) + strings.Repeat("€", 100))
		if strings.ContainsRune(got, '\uFFFD') || len(got) > maxMessage+len("…") {
			t.Errorf("cut to %q", got)
		}
	}
}

func TestTokensKeptAreBounded(t *testing.T) {
	o, now := new(origin), newClock().Now()
	d := &demand{realm: &url.URL{Scheme: "https", Host: "auth.example"}}
	var first *token
	for i := range maxTokens + 10 {
		tok := &token{realm: d.realmText(), scopes: []Scope{Repository(fmt.Sprint("r", i), "pull")}, expires: now.Add(time.Hour)}
		o.keep(tok, now)
		if first == nil {
			first = tok
		}
	}
	if len(o.tokens) != maxTokens || o.find(wish{demand: d, need: first.scopes}, now) != nil {
		t.Errorf("%d tokens are kept", len(o.tokens))
	}
	o.keep(&token{realm: d.realmText(), scopes: []Scope{pullA}, expires: now.Add(3 * time.Hour)}, now.Add(2*time.Hour))
	if len(o.tokens) != 1 {
		t.Errorf("%d tokens are left after all but one have expired", len(o.tokens))
	}
}
