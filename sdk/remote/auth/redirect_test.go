package auth

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

// serve is a server that keeps the Authorization of each request in the order they came.
func serve(t *testing.T, h http.HandlerFunc) (server *httptest.Server, seen *[]string) {
	seen = new([]string)
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*seen = append(*seen, r.URL.Path+" "+r.Header.Get("Authorization"))
		h(w, r)
	}))
	t.Cleanup(server.Close)
	return server, seen
}

// redirecting is a client of a registry at a loopback address that wants a token.
func redirecting(t *testing.T, location func(registry string) string) (client *http.Client, registry *httptest.Server, seen *[]string) {
	realm := httptest.NewServer(&fakeRealm{})
	t.Cleanup(realm.Close)
	registry, seen = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm.URL+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/blob":
			http.Redirect(w, r, location("http://"+r.Host), http.StatusTemporaryRedirect)
		default:
			io.WriteString(w, "here")
		}
	})
	return &http.Client{Transport: &Transport{Credentials: alice}}, registry, seen
}

func TestCase12ARedirectToAnotherOriginCarriesNoAuthorization(t *testing.T) {
	cdn, seen := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "layer") })
	client, registry, _ := redirecting(t, func(string) string { return cdn.URL + "/layer" })
	resp, err := client.Get(registry.URL + "/blob")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "layer" {
		t.Errorf("body is %q", body)
	}
	wantEqual(t, "the other origin saw", *seen, []string{"/layer "})
}

func TestARedirectWithinTheOriginKeepsItsAuthorization(t *testing.T) {
	client, registry, seen := redirecting(t, func(registry string) string { return registry + "/layer" })
	resp, err := client.Get(registry.URL + "/blob")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	wantEqual(t, "the registry saw", *seen, []string{"/blob ", "/blob Bearer canary.t1", "/layer Bearer canary.t1"})
}

func TestCase12TheChallengeOfARedirectTargetIsNotAnswered(t *testing.T) {
	for _, challenge := range []string{`Basic realm="give"`, `Bearer realm="/token"`} {
		cdn, seen := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		})
		client, registry, _ := redirecting(t, func(string) string { return cdn.URL + "/layer" })
		resp, err := client.Get(registry.URL + "/blob")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("status %d", resp.StatusCode)
		}
		wantEqual(t, "the other origin saw", *seen, []string{"/layer "})
	}
}

func TestCase12ARedirectThatComesBackHasNoAuthorization(t *testing.T) {
	var back string
	cdn, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, back+"/return", http.StatusTemporaryRedirect)
	})
	client, registry, seen := redirecting(t, func(string) string { return cdn.URL })
	back = registry.URL
	usual := registry.Config.Handler
	registry.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/return" {
			*seen = append(*seen, "/return "+r.Header.Get("Authorization"))
			http.Redirect(w, r, "/delete-all", http.StatusTemporaryRedirect)
			return
		}
		usual.ServeHTTP(w, r)
	})
	resp, err := client.Get(registry.URL + "/blob")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	wantEqual(t, "the registry saw", *seen, []string{"/blob ", "/blob Bearer canary.t1", "/return ", "/delete-all "})
}

func TestCase12ARedirectDropsTheCallersOwnAuthorizationToo(t *testing.T) {
	// Same host name, another port: http.Client would keep the header.
	cdn, seen := serve(t, func(http.ResponseWriter, *http.Request) {})
	client, registry, _ := redirecting(t, func(string) string { return cdn.URL + "/layer" })
	req := request(t, http.MethodGet, registry.URL+"/blob", nil)
	req.Header.Set("Authorization", "Bearer canary.mine")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	wantEqual(t, "the other origin saw", *seen, []string{"/layer "})
}

func TestCase13ARequestWithoutAuthIsSentBareAndItsChallengeReturned(t *testing.T) {
	registry := &fakeRegistry{}
	rt := pair(registry, &fakeRealm{})
	get(t, rt, registryURL+"/v2/")
	req := request(t, http.MethodGet, registryURL+"/v2/", nil)
	status, _ := roundTrip(t, rt, req.WithContext(WithoutAuth(req.Context())))
	if status != http.StatusUnauthorized {
		t.Errorf("status %d", status)
	}
	wantEqual(t, "authorizations", registry.authorizations(), []string{"", "Bearer canary.t1", ""})
}

func TestCase11ARealmsRedirectToAnotherOriginIsNotFollowed(t *testing.T) {
	for _, cred := range []Credential{{}, {Username: "alice", Password: "canary.hunter2"}, {IdentityToken: canaryIdentity}} {
		thief, seen := serve(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"stolen"}`) })
		realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
			return true
		}}
		rt := pair(&fakeRegistry{}, realm)
		rt.Credentials = Static("registry.example", cred)
		_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
		if err == nil || !strings.Contains(err.Error(), "redirect") {
			t.Errorf("%v: error is %v", cred, err)
		}
		if len(*seen) != 0 {
			t.Errorf("%v: the other origin saw %q", cred, *seen)
		}
	}
}

func TestARealmsRedirectWithinItsOriginIsFollowed(t *testing.T) {
	realm := &fakeRealm{respond: func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			http.Redirect(w, r, "/token/v2?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}}
	rt := pair(&fakeRegistry{}, realm)
	rt.Credentials = alice
	if status, _ := get(t, rt, registryURL+"/v2/"); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	wantEqual(t, "password", realm.requests()[1].password, "canary.hunter2")
}

// oneAtATime lets one exchange go on at a time: until its body is closed.
type oneAtATime struct {
	base http.RoundTripper
	free chan struct{}
}

func (o oneAtATime) RoundTrip(req *http.Request) (*http.Response, error) {
	select {
	case <-o.free:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	resp, err := o.base.RoundTrip(req)
	if err != nil {
		o.free <- struct{}{}
		return nil, err
	}
	resp.Body = joined{resp.Body, closerFunc(func() error { o.free <- struct{}{}; return nil })}
	return resp, nil
}

func TestA401HoldsNoPlaceThatTheTokenExchangeNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := pair(&fakeRegistry{}, &fakeRealm{})
		limited := oneAtATime{base: rt.Base, free: make(chan struct{}, 1)}
		limited.free <- struct{}{}
		rt.Base = limited
		if status, _ := get(t, rt, registryURL+"/v2/"); status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	})
}
