package berthtest_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/berthtest"
	"github.com/berthoci/berth/sdk/remote/auth"
)

const (
	user     = "ada"
	password = "canary.lovelace's: own"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// demands are the ways to ask for a password.
var demands = map[string]func(*berthtest.Registry){
	"Basic": func(r *berthtest.Registry) { r.RequireBasic(user, password) },
	"Token": func(r *berthtest.Registry) { r.RequireToken(user, password) },
}

func TestClientsLogIn(t *testing.T) {
	for what, demand := range demands {
		registry := berthtest.New(t)
		want := registry.PushImage("app:v1", nil)
		demand(registry)
		for _, c := range []struct {
			user, password string
			want           error
		}{
			{user, password, nil},
			{user, "canary.wrong", berth.ErrUnauthorized},
			{"bob", password, berth.ErrUnauthorized},
			{"", "", berth.ErrUnauthorized},
		} {
			registry.Reset()
			got, err := client(c.user, c.password).Resolve(t.Context(), registry.Host()+"/app:v1")
			if !errors.Is(err, c.want) || err == nil && got.Digest != want.Digest {
				t.Errorf("%s: %s, %s: got %v, %v", what, c.user, c.password, got, err)
			}
			known := registry.Count(func(r berthtest.Request) bool { return r.Authenticated && r.Path == manifestV1 })
			if (known == 1) != (c.want == nil) {
				t.Errorf("%s: %s, %s: authenticated is %+v", what, c.user, c.password, registry.Requests())
			}
		}
		if got, err := registry.Resolve(t.Context(), "app:v1"); err != nil || got.Digest != want.Digest {
			t.Errorf("%s: the test itself: %v, %v", what, got, err)
		}
		pushThrough(t, registry)
		registry.RequireNothing()
		if _, err := client("", "").Resolve(t.Context(), registry.Host()+"/app:v1"); err != nil {
			t.Errorf("%s: open again: %v", what, err)
		}
	}
}

// Programs find what they need in the files that they know.
func TestTheEndpointHasWhatIsAskedFor(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", nil)
	if got := registry.Endpoint(); got.Username != "" || got.Password != "" || got.Host != registry.Host() || got.URL != "http://"+got.Host {
		t.Errorf("before: %+v", got)
	}
	for what, demand := range demands {
		demand(registry)
		if got := registry.Endpoint(); got.Username != user || got.Password != password {
			t.Errorf("%s: %+v", what, got)
		}
		t.Setenv("DOCKER_CONFIG", registry.DockerConfig())
		images := sdk.NewImages(&sdk.Options{Credentials: auth.Docker()})
		if _, err := images.Resolve(t.Context(), registry.Host()+"/app:v1"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestBasicChallenge(t *testing.T) {
	registry := berthtest.New(t)
	registry.RequireBasic(user, password)
	got := ask(t.Context(), registry, http.MethodGet, "/v2/", basic(user, "canary.wrong"), "")
	if got.status != http.StatusUnauthorized || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic realm=") || !strings.Contains(got.body, `"UNAUTHORIZED"`) {
		t.Errorf("got %+v", got)
	}
	if got := ask(t.Context(), registry, http.MethodGet, "/token", basic(user, password), ""); got.status != http.StatusNotFound {
		t.Errorf("there are tokens: %+v", got)
	}
}

func TestTokenChallengeSaysWhatIsNeeded(t *testing.T) {
	registry := berthtest.New(t)
	registry.RequireToken(user, password)
	for _, c := range []struct{ method, path, scope string }{
		{"GET", "/v2/", ""},
		{"GET", "/v2/_catalog", "registry:catalog:*"},
		{"GET", "/v2/team/app/manifests/v1", "repository:team/app:pull"},
		{"HEAD", "/v2/app/blobs/sha256:" + strings.Repeat("0", 64), "repository:app:pull"},
		{"GET", "/v2/app/tags/list", "repository:app:pull"},
		{"PUT", "/v2/app/manifests/v1", "repository:app:pull,push"},
		{"POST", "/v2/app/blobs/uploads/", "repository:app:pull,push"},
		{"PATCH", "/v2/app/blobs/uploads/1", "repository:app:pull,push"},
		{"POST", "/v2/app/blobs/uploads/?from=base&mount=sha256:" + strings.Repeat("0", 64), "repository:app:pull,push repository:base:pull"},
		{"DELETE", "/v2/app/manifests/v1", "repository:app:delete"},
	} {
		want := `Bearer realm="` + registry.URL() + `/token",service="berthtest"`
		if c.scope != "" {
			want += `,scope="` + c.scope + `"`
		}
		got := ask(t.Context(), registry, c.method, c.path, basic(user, password), "")
		if got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != want {
			t.Errorf("%s %s: got %+v, want %s", c.method, c.path, got, want)
		}
	}
}

// token gets a token for scopes.
func token(t *testing.T, registry *berthtest.Registry, scopes ...string) string {
	t.Helper()
	got := ask(t.Context(), registry, http.MethodGet, "/token?"+url.Values{"scope": scopes}.Encode(), basic(user, password), "")
	var answer struct {
		Token   string `json:"token"`
		Expires int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || got.status != http.StatusOK || answer.Token == "" || answer.Expires < 60 {
		t.Fatalf("got %+v, %v", got, err)
	}
	return "Bearer " + answer.Token
}

func TestATokenIsGoodForItsScopes(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", nil)
	registry.RequireToken(user, password)
	mount := "/v2/app/blobs/uploads/?from=base&mount=sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct {
		scopes       []string
		method, path string
		allowed      bool
	}{
		{nil, "GET", "/v2/", true},
		{nil, "GET", manifestV1, false},
		{[]string{"repository:app:pull"}, "GET", manifestV1, true},
		{[]string{"repository:app:*"}, "DELETE", "/v2/app/manifests/v2", true},
		{[]string{"repository:app:pull"}, "POST", "/v2/app/blobs/uploads/", false},
		{[]string{"repository:app:push"}, "POST", "/v2/app/blobs/uploads/", false},
		{[]string{"repository:app:pull,push"}, "POST", "/v2/app/blobs/uploads/", true},
		{[]string{"repository:app:pull,push"}, "DELETE", "/v2/app/manifests/v2", false},
		{[]string{"repository:app:pull,push"}, "POST", mount, false},
		{[]string{"repository:app:pull,push", "repository:base:pull"}, "POST", mount, true},
		{[]string{"repository:app:pull repository:base:pull"}, "GET", manifestV1, true},
		{[]string{"repository:other:pull"}, "GET", manifestV1, false},
		{[]string{"repository:ap:pull"}, "GET", manifestV1, false},
		{[]string{"nonsense", ":", "repository:app:pull"}, "GET", manifestV1, true},
	} {
		got := ask(t.Context(), registry, c.method, c.path, token(t, registry, c.scopes...), "")
		if (got.status != http.StatusUnauthorized) != c.allowed {
			t.Errorf("%q, %s %s: got %+v", c.scopes, c.method, c.path, got)
		}
		if challenge := got.header.Get("WWW-Authenticate"); !c.allowed && !strings.HasSuffix(challenge, `,error="insufficient_scope"`) {
			t.Errorf("%q, %s %s: it says %s", c.scopes, c.method, c.path, challenge)
		}
	}
}

func TestTokensAreForWhoLogsIn(t *testing.T) {
	registry := berthtest.New(t)
	registry.RequireToken(user, password)
	for _, credentials := range []string{"", basic(user, "canary.wrong"), basic("bob", password), "Bearer x"} {
		if got := ask(t.Context(), registry, http.MethodGet, "/token", credentials, ""); got.status != http.StatusUnauthorized || !strings.Contains(got.body, `"UNAUTHORIZED"`) {
			t.Errorf("%q: got %+v", credentials, got)
		}
	}
	known := func(r berthtest.Request) bool { return r.Authenticated }
	if n := registry.Count(known); n != 0 {
		t.Errorf("%d of them are known", n)
	}
	if token(t, registry); registry.Count(known) != 1 {
		t.Errorf("who got one is not known: %+v", registry.Requests())
	}
	if got := ask(t.Context(), registry, http.MethodPost, "/token", basic(user, password), ""); got.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %+v", got)
	}
}

func TestTokensEnd(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", nil)
	registry.RequireToken(user, password)
	old := token(t, registry, "repository:app:pull")
	images, ref := client(user, password), registry.Host()+"/app:v1"
	resolve := func(what string, wantTokens int) {
		t.Helper()
		registry.Reset()
		if _, err := images.Resolve(t.Context(), ref); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := registry.Count(berthtest.On("GET /token")); got != wantTokens {
			t.Errorf("%s: %d tokens were asked for, want %d", what, got, wantTokens)
		}
	}
	resolve("at first", 1)
	resolve("with that token", 0)
	registry.ExpireTokens()
	resolve("when it has ended", 1)
	registry.RequireToken(user, password)
	resolve("when all begins anew", 1)
	for _, shown := range []string{old, "Bearer never given"} {
		got := ask(t.Context(), registry, http.MethodGet, manifestV1, shown, "")
		if got.status != http.StatusUnauthorized || !strings.HasSuffix(got.header.Get("WWW-Authenticate"), `,error="invalid_token"`) {
			t.Errorf("%s: got %+v", shown, got)
		}
	}
}
