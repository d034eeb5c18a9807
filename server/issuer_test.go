package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/server"
)

const accessFile = `rules:
  - users: [ada]
    repositories: ["app/**"]
    actions: ["*"]
    catalog: true
  - users: [bob]
    repositories: ["app/**"]
    actions: [pull]
  - users: [bob]
    repositories: ["bob/*"]
    actions: [pull, push]
    classes: ["application/vnd.oci.image.*"]
  - users: ["*"]
    repositories: ["team/*"]
    actions: [pull]
  - anonymous: true
    repositories: ["public/*"]
    actions: [pull]
`

func rules(tb testing.TB) server.Rules {
	tb.Helper()
	parsed, err := server.ParseRules(strings.NewReader(accessFile))
	if err != nil {
		tb.Fatal(err)
	}
	return parsed
}

func issuer(tb testing.TB) *server.Issuer {
	tb.Helper()
	i, err := server.NewIssuer(rules(tb), people(tb, "ada", "bob"))
	if err != nil {
		tb.Fatal(err)
	}
	return i
}

func withTokens(t *testing.T) *fixture { return serve(t, &server.Options{Authorizer: issuer(t)}) }

// given is what the token endpoint answers with.
type given struct {
	Token       string
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	IssuedAt    string `json:"issued_at"`
	Scope       string
	Refresh     string `json:"refresh_token"`
}

func (f *fixture) given(resp *http.Response) given {
	f.Helper()
	var g given
	f.want(resp, http.StatusOK, "Content-Type", "application/json", "Cache-Control", "no-store")
	if err := json.Unmarshal([]byte(f.body(resp)), &g); err != nil {
		f.Fatal(err)
	}
	return g
}

// token asks for one by GET; nobody is anonymous.
func (f *fixture) token(user string, scopes ...string) given {
	f.Helper()
	target := server.TokenPath + "?" + url.Values{"service": {"berth"}, "scope": scopes, "account": {user}}.Encode()
	if user == "" {
		return f.given(f.do("GET", target, ""))
	}
	return f.given(f.do("GET", target, "", "Authorization", basic(user, user+"'s own")))
}

func (f *fixture) form(values url.Values) *http.Response {
	f.Helper()
	return f.do("POST", server.TokenPath, values.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// access is what a token says, once its signature is set aside.
func (f *fixture) access(token string) (claims jwt.Claims, access []map[string]any) {
	f.Helper()
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		f.Fatal(err)
	}
	var more struct {
		Access []map[string]any `json:"access"`
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&claims, &more); err != nil {
		f.Fatal(err)
	}
	return claims, more.Access
}

func TestChallengesNameTheScope(t *testing.T) {
	f := withTokens(t)
	blob := "sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct{ method, target, scope string }{
		{"GET", "/v2/", ""},
		{"GET", "/nowhere", ""},
		{"GET", "/v2/_catalog", "registry:catalog:*"},
		{"GET", "/v2/app/hello/manifests/v1", "repository:app/hello:pull"},
		{"HEAD", "/v2/app/hello/blobs/" + blob, "repository:app/hello:pull"},
		{"GET", "/v2/app/hello/tags/list", "repository:app/hello:pull"},
		{"GET", "/v2/app/hello/referrers/" + blob, "repository:app/hello:pull"},
		{"PUT", "/v2/app/hello/manifests/v1", "repository:app/hello:pull,push"},
		{"POST", "/v2/app/hello/blobs/uploads/", "repository:app/hello:pull,push"},
		{"PATCH", "/v2/app/hello/blobs/uploads/id", "repository:app/hello:pull,push"},
		{"POST", "/v2/app/hello/blobs/uploads/?mount=" + blob, "repository:app/hello:pull,push"},
		{"POST", "/v2/app/hello/blobs/uploads/?mount=" + blob + "&from=app/base", "repository:app/hello:pull,push repository:app/base:pull"},
		{"POST", "/v2/app/hello/blobs/uploads/?mount=" + blob + "&from=app/hello", "repository:app/hello:pull,push"},
		{"DELETE", "/v2/app/hello/manifests/v1", "repository:app/hello:delete"},
		{"DELETE", "/v2/app/hello/blobs/" + blob, "repository:app/hello:delete"},
	} {
		want := `Bearer realm="http://localhost:5000/token",service="berth"`
		if tt.scope != "" {
			want += `,scope="` + tt.scope + `"`
		}
		resp := f.want(f.do(tt.method, tt.target, ""), http.StatusUnauthorized, "Www-Authenticate", want)
		if tt.method != "HEAD" && f.codes(resp) != "UNAUTHORIZED" {
			t.Errorf("%s %s: another code", tt.method, tt.target)
		}
	}
	f.want(f.do("GET", "/v2/", "", "Authorization", basic("ada", "ada's own")), 401, "Www-Authenticate", `Bearer realm="http://localhost:5000/token",service="berth"`)
	f.want(f.do("GET", "/v2/", "", "Host", "[::1]:80"), 401, "Www-Authenticate", `Bearer realm="http://[::1]:80/token",service="berth"`)
	f.want(f.do("GET", server.TokenPath, "", "Host", "evil.test"), http.StatusForbidden)
}

// The realm is where the client is already: by its name for the server, in the scheme that it speaks.
func TestTheRealmIsTheServerItself(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0", &server.Options{Authorizer: issuer(t), Hosts: []string{"registry.test"}})
	l.StartTLS()
	for _, host := range []string{"localhost:" + l.port(), "registry.test"} {
		got := l.ask("GET", "/v2/", "Host", host).Header.Get("Www-Authenticate")
		if !strings.HasPrefix(got, `Bearer realm="https://`+host+`/token",`) {
			t.Errorf("%s: %s", host, got)
		}
	}
}

func TestTokensByGET(t *testing.T) {
	f := withTokens(t)
	for _, tt := range []struct {
		user   string
		scopes []string
		want   string
	}{
		{"ada", []string{"repository:app/hello:pull,push"}, "repository:app/hello:pull,push"},
		{"ada", []string{"repository:app/hello:push", "repository:app/base:pull"}, "repository:app/hello:push repository:app/base:pull"},
		{"ada", []string{"repository:app/hello:pull repository:app/hello:push,delete"}, "repository:app/hello:pull,push,delete"},
		{"ada", []string{"repository:app/hello:*"}, "repository:app/hello:pull,push,delete"},
		{"ada", []string{"registry:catalog:*"}, "registry:catalog:*"},
		{"ada", []string{"registry:catalog:pull", "registry:other:*"}, ""},
		{"ada", []string{"repository(plugin):app/hello:pull"}, "repository(plugin):app/hello:pull"},
		{"ada", []string{"repository:other:pull", "repository:app/x:admin", "volume:app/x:pull"}, ""},
		{"ada", []string{"repository:localhost:5000/app/x:pull"}, ""},
		{"ada", []string{"repository:app/x:"}, ""},
		{"ada", []string{""}, ""},
		{"ada", nil, ""},
		{"bob", []string{"repository:app/hello:pull,push,delete", "registry:catalog:*"}, "repository:app/hello:pull"},
		{"bob", []string{"repository:bob/x:*", "repository:bob/x/y:*"}, "repository:bob/x:pull,push"},
		{"bob", []string{"repository:team/x:*", "repository:public/x:*"}, "repository:team/x:pull repository:public/x:pull"},
		{"", []string{"repository:public/x:*", "repository:team/x:pull", "repository:app/x:pull", "registry:catalog:*"}, "repository:public/x:pull"},
	} {
		g := f.token(tt.user, tt.scopes...)
		if g.Scope != tt.want {
			t.Errorf("%s asks for %q and gets %q, want %q", tt.user, tt.scopes, g.Scope, tt.want)
		}
		issued, err := time.Parse(time.RFC3339, g.IssuedAt)
		if err != nil || g.Token == "" || g.Token != g.AccessToken || g.ExpiresIn < 60 || g.TokenType != "Bearer" || g.Refresh != "" || issued.IsZero() {
			t.Errorf("the answer is %+v, %v", g, err)
		}
		f.want(f.do("GET", "/v2/", "", "Authorization", "Bearer "+g.Token), http.StatusOK)
	}
}

func TestWhatATokenSays(t *testing.T) {
	f := withTokens(t)
	first := f.token("ada", "repository(image):app/hello:pull,push")
	claims, access := f.access(first.Token)
	if claims.Issuer != "berth" || !claims.Audience.Contains("berth") || claims.Subject != "ada" || claims.ID == "" ||
		claims.Expiry.Time().Sub(claims.IssuedAt.Time()) != time.Duration(first.ExpiresIn)*time.Second || !claims.NotBefore.Time().Equal(claims.IssuedAt.Time()) {
		t.Errorf("the claims are %+v", claims)
	}
	if got := fmt.Sprint(access); got != "[map[actions:[pull push] class:image name:app/hello type:repository]]" {
		t.Errorf("the access is %s", got)
	}
	again, _ := f.access(f.token("ada").Token)
	anonymous, access := f.access(f.token("").Token)
	if again.ID == claims.ID || anonymous.Subject != "" || access == nil || len(access) != 0 {
		t.Errorf("got %+v, %+v, %v", again, anonymous, access)
	}
}

func TestTokensByPOST(t *testing.T) {
	f := withTokens(t)
	login := func(change ...string) url.Values {
		form := url.Values{
			"grant_type": {"password"}, "client_id": {"docker"}, "service": {"berth"}, "access_type": {"offline"},
			"username": {"bob"}, "password": {"bob's own"}, "scope": {"repository:app/hello:pull,push repository:bob/x:push"},
		}
		for i := 0; i < len(change); i += 2 {
			form.Set(change[i], change[i+1])
		}
		return form
	}
	g := f.given(f.form(login()))
	if g.Scope != "repository:app/hello:pull repository:bob/x:push" || g.Refresh != "" {
		t.Errorf("the answer is %+v", g)
	}
	f.want(f.do("GET", "/v2/", "", "Authorization", "Bearer "+g.AccessToken), http.StatusOK)
	for _, tt := range []struct {
		form   url.Values
		status int
		says   string
	}{
		{login("password", "wrong"), 401, "invalid_grant"},
		{login("username", "nobody"), 401, "invalid_grant"},
		{login("username", ""), 401, "invalid_grant"},
		{login("grant_type", "refresh_token", "refresh_token", g.Token), 400, "unsupported_grant_type"},
		{login("grant_type", ""), 400, "unsupported_grant_type"},
		{login("service", "another"), 400, "invalid_request"},
		{login("scope", "nonsense"), 400, "invalid_scope"},
		{login("password", strings.Repeat("x", 100<<10)), 400, "invalid_request"},
	} {
		resp := f.want(f.form(tt.form), tt.status)
		body := f.body(resp)
		if !strings.Contains(body, `"error":"`+tt.says+`"`) || !strings.Contains(body, `"errors":[{"code":"`) || strings.Contains(body, "own") {
			t.Errorf("%d: %.300s", tt.status, body)
		}
	}
	// What stands in the address is no login.
	f.want(f.do("POST", server.TokenPath+"?"+login().Encode(), "", "Content-Type", "application/x-www-form-urlencoded"), http.StatusBadRequest)
	f.want(f.do("POST", server.TokenPath, login().Encode(), "Content-Type", "application/json"), http.StatusBadRequest)
}

func TestTokensThatAreNotGiven(t *testing.T) {
	f := withTokens(t)
	for _, tt := range []struct {
		query, authorization string
		status               int
		says                 string
	}{
		{"", basic("ada", "wrong"), 401, "user name or password is wrong"},
		{"", basic("nobody", "ada's own"), 401, "user name or password is wrong"},
		{"", basic("", ""), 401, "user name or password is wrong"},
		{"", "Basic !", 401, "user name or password is wrong"},
		{"", "Bearer x", 401, "user name or password is wrong"},
		{"?service=another", "", 400, "another"},
		{"?scope=repository", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=repository:x", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=Repository:x:pull", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=repository:x:PULL", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=repository(:x:pull", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=repository():x:pull", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=repository::pull", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=repository:" + strings.Repeat("x", 301) + ":pull", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=repository:x%0Ay%00:pull", "", 400, "want TYPE:NAME:ACTION"},
		{"?scope=%zz", "", 400, "does not parse"},
		{"?" + strings.Repeat("scope=repository:x:pull&", 1000), "", 200, ""},
		{"?" + manyScopes(64), "", 200, ""},
		{"?" + manyScopes(65), "", 400, "at most 64"},
	} {
		header := []string{}
		if tt.authorization != "" {
			header = []string{"Authorization", tt.authorization}
		}
		resp := f.want(f.do("GET", server.TokenPath+tt.query, "", header...), tt.status)
		if body := f.body(resp); !strings.Contains(body, tt.says) || tt.status != 200 && len(body) > 600 {
			t.Errorf("%.60s: %s", tt.query, body)
		}
		if asks := resp.Header.Get("Www-Authenticate"); (asks != "") != (tt.status == 401) || asks != "" && !strings.HasPrefix(asks, "Basic ") {
			t.Errorf("%.60s: it asks for %q", tt.query, asks)
		}
	}
	f.want(f.do("DELETE", server.TokenPath, ""), http.StatusMethodNotAllowed, "Allow", "GET, POST")
	f.want(f.do("GET", server.TokenPath+"/", ""), http.StatusUnauthorized)
	f.want(serve(t, nil).do("GET", server.TokenPath, ""), http.StatusNotFound)
}

func manyScopes(n int) string {
	query := url.Values{}
	for i := range n {
		query.Add("scope", fmt.Sprintf("repository:public/%s%d:pull", strings.Repeat("x", 240), i))
	}
	return query.Encode()
}

// The largest token that can be asked for is taken.
func TestTheLargestToken(t *testing.T) {
	f := withTokens(t)
	g := f.given(f.do("GET", server.TokenPath+"?"+manyScopes(64), ""))
	if len(strings.Fields(g.Scope)) != 64 {
		t.Fatalf("it is for %d scopes", len(strings.Fields(g.Scope)))
	}
	f.want(f.do("GET", "/v2/", "", "Authorization", "Bearer "+g.Token), http.StatusOK)
}

func TestWhatATokenIsGoodFor(t *testing.T) {
	f := withTokens(t)
	blob := digest.FromString("x")
	for _, tt := range []struct {
		user, scope, method, target string
		status                      int
		challenge                   string // what it says beyond the scope
	}{
		{"ada", "repository:app/hello:pull,push", "PUT", "/v2/app/hello/manifests/v1", 201, ""},
		{"ada", "repository:app/hello:pull,push", "GET", "/v2/app/hello/manifests/v1", 200, ""},
		{"ada", "repository:app/hello:push", "GET", "/v2/app/hello/manifests/v1", 401, "insufficient_scope"},
		{"ada", "repository:app/hello:pull", "PUT", "/v2/app/hello/manifests/v1", 401, "insufficient_scope"},
		{"ada", "repository:app/hello:pull,push", "GET", "/v2/app/other/manifests/v1", 401, "insufficient_scope"},
		{"ada", "repository:app/hello:pull,push", "DELETE", "/v2/app/hello/manifests/v1", 401, "insufficient_scope"},
		{"ada", "repository:app/hello:pull", "GET", "/v2/_catalog", 401, "insufficient_scope"},
		{"ada", "registry:catalog:*", "GET", "/v2/_catalog", 200, ""},
		{"ada", "registry:catalog:*", "GET", "/v2/app/hello/manifests/v1", 401, "insufficient_scope"},
		{"ada", "repository:app/hello:delete", "DELETE", "/v2/app/hello/manifests/v1", 202, ""},
		{"ada", "repository:other:pull", "GET", "/v2/other/manifests/v1", 403, ""},
		{"bob", "repository:app/hello:pull,push", "POST", "/v2/app/hello/blobs/uploads/", 403, ""},
		{"bob", "repository:app/hello:*", "DELETE", "/v2/app/hello/blobs/" + string(blob), 403, ""},
		{"bob", "registry:catalog:*", "GET", "/v2/_catalog", 403, ""},
		{"bob", "repository:app/hello:pull", "GET", "/v2/app/hello/blobs/" + string(blob), 404, ""},
		{"", "repository:public/x:pull", "GET", "/v2/public/x/tags/list", 404, ""},
		{"", "repository:public/x:pull,push", "PUT", "/v2/public/x/manifests/v1", 401, "insufficient_scope"},
		{"", "repository:app/hello:pull", "GET", "/v2/app/hello/tags/list", 401, "insufficient_scope"},
	} {
		t.Run(fmt.Sprintf("%s with %s: %s %s", tt.user, tt.scope, tt.method, tt.target), func(t *testing.T) {
			f.T = t
			resp := f.want(f.do(tt.method, tt.target, emptyIndex, "Authorization", "Bearer "+f.token(tt.user, tt.scope).Token), tt.status)
			challenge := resp.Header.Get("Www-Authenticate")
			if (challenge == "") != (tt.challenge == "") || !strings.HasSuffix(challenge, tt.challenge+`"`) && challenge != "" {
				t.Errorf("the challenge is %q", challenge)
			}
			if tt.status == 403 && f.codes(resp) != "DENIED" {
				t.Error("the code is another")
			}
		})
	}
}

func TestTokensThatAreNotBelieved(t *testing.T) {
	f, other := withTokens(t), withTokens(t)
	good := f.token("ada", "repository:app/hello:pull").Token
	head, rest, _ := strings.Cut(good, ".")
	payload, _, _ := strings.Cut(rest, ".")
	for name, shown := range map[string]string{
		"of another process":   other.token("ada").Token,
		"with nothing":         "",
		"with nonsense":        "x.y.z",
		"changed":              good[:len(good)-4] + "AAAA",
		"without a signature":  head + "." + payload + ".",
		"of no algorithm":      "eyJhbGciOiJub25lIn0." + payload + ".",
		"too large":            good + strings.Repeat("A", 100<<10),
		"with a second part":   good + " " + good,
		"encoded as something": basic("ada", "ada's own"),
	} {
		resp := f.want(f.do("GET", "/v2/app/hello/tags/list", "", "Authorization", "Bearer "+shown), http.StatusUnauthorized)
		if got := resp.Header.Get("Www-Authenticate"); !strings.HasSuffix(got, `,scope="repository:app/hello:pull",error="invalid_token"`) {
			t.Errorf("a token %s: %s", name, got)
		}
		if body := f.body(resp); len(shown) > 8 && strings.Contains(body, shown) || !strings.Contains(body, "get another") {
			t.Errorf("a token %s: %s", name, body)
		}
	}
}

// Without users there is nobody but who is anonymous.
func TestTokensWithoutUsers(t *testing.T) {
	i, err := server.NewIssuer(rules(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, &server.Options{Authorizer: i})
	if g := f.token("", "repository:public/x:pull,push"); g.Scope != "repository:public/x:pull" {
		t.Errorf("it is for %q", g.Scope)
	}
	f.want(f.do("GET", server.TokenPath, "", "Authorization", basic("ada", "ada's own")), http.StatusUnauthorized)
	f.want(f.form(url.Values{"grant_type": {"password"}, "username": {"ada"}, "password": {"ada's own"}}), http.StatusUnauthorized)
}

func TestAnIssuerOfBadRules(t *testing.T) {
	if _, err := server.NewIssuer(server.Rules{{Users: []string{"ada"}}}, nil); err == nil || !strings.Contains(err.Error(), "rule 1") {
		t.Errorf("got %v", err)
	}
}

// A mount needs pull where it takes from, in the token that is shown. Without, it is an upload.
func TestMountsNeedPull(t *testing.T) {
	f := withTokens(t)
	ask := func(method, target, body string, scopes ...string) *http.Response {
		return f.do(method, target, body, "Authorization", "Bearer "+f.token("bob", scopes...).Token)
	}
	d := digest.FromString("shared")
	f.want(f.do("POST", "/v2/app/hello/blobs/uploads/?digest="+string(d), "shared", "Authorization", "Bearer "+f.token("ada", "repository:app/hello:push").Token), 201)
	f.want(f.do("POST", "/v2/app/secret/blobs/uploads/?digest="+string(d), "shared", "Authorization", "Bearer "+f.token("ada", "repository:app/secret:push").Token), 201)
	mount := "/v2/bob/x/blobs/uploads/?mount=" + string(d) + "&from="
	both := []string{"repository:bob/x:pull,push", "repository:app/hello:pull"}
	f.want(ask("POST", mount+"app/hello", "", both[0]), http.StatusAccepted, "Range", "0-0")
	f.want(ask("POST", mount+"app/secret", "", both...), http.StatusAccepted)
	f.want(ask("POST", mount+"nowhere", "", both...), http.StatusAccepted)
	f.want(ask("HEAD", "/v2/bob/x/blobs/"+string(d), "", both...), http.StatusNotFound)
	f.want(ask("POST", mount+"app/hello", "", both...), http.StatusCreated)
	f.want(ask("HEAD", "/v2/bob/x/blobs/"+string(d), "", both...), http.StatusOK)
	// The upload that a mount becomes can be gone on with.
	at := f.want(ask("POST", strings.Replace(mount, "bob/x", "bob/y", 1)+"app/secret", "", "repository:bob/y:push"), 202).Header.Get("Location")
	f.want(ask("PUT", at+"?digest="+string(d), "shared", "repository:bob/y:push"), http.StatusCreated)
}

func TestNothingIsToldWithoutAToken(t *testing.T) {
	f := serve(t, &server.Options{Authorizer: issuer(t), ReadOnly: true})
	for _, request := range [][2]string{{"GET", "/v2/x/tags/list"}, {"GET", "/nowhere"}, {"OPTIONS", "/v2/"}, {"GET", "/v2/UP/tags/list"}, {"PUT", "/v2/x/manifests/v1"}} {
		f.want(f.do(request[0], request[1], ""), http.StatusUnauthorized)
	}
	push := f.token("ada", "repository:app/hello:push").Token
	f.want(f.do("PUT", "/v2/app/hello/manifests/v1", emptyIndex, "Authorization", "Bearer "+push), http.StatusMethodNotAllowed)
}
