package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

const imageClass = "application/vnd.oci.image.config.v1+json"

func newIssuer(t *testing.T, rules ...Rule) *Issuer {
	t.Helper()
	i, err := NewIssuer(rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// showing is a request that shows a token.
func showing(t *testing.T, token string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/v2/x/manifests/v1", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// A token is good until it ends, and a little longer, for the clock may have been set.
func TestTokensEnd(t *testing.T) {
	i := newIssuer(t, Rule{Anonymous: true, Repositories: []string{"x"}, Actions: []string{"pull"}})
	begin := time.Now()
	token, err := i.sign(anonymous, begin, []scope{{Type: "repository", Name: "x", Actions: []string{"pull"}}})
	if err != nil {
		t.Fatal(err)
	}
	for after, good := range map[time.Duration]bool{
		-time.Minute: false, -tokenLeeway / 2: true, 0: true, tokenLife: true, tokenLife + tokenLeeway/2: true,
		tokenLife + 2*tokenLeeway: false, 24 * time.Hour: false,
	} {
		i.now = func() time.Time { return begin.Add(after) }
		access := Access{Repository: "x", Action: "pull"}
		err := i.Authorize(showing(t, token), access)
		if (err == nil) != good {
			t.Errorf("after %v: %v", after, err)
		}
		if err != nil && !strings.HasSuffix(i.Challenge(showing(t, token), access, err), `error="invalid_token"`) {
			t.Errorf("after %v: the challenge does not tell", after)
		}
	}
}

// What is signed with the key is believed only if it is what the issuer signs.
func TestOnlyTheIssuersOwnTokens(t *testing.T) {
	i := newIssuer(t, Rule{Anonymous: true, Catalog: true})
	now := jwt.NewNumericDate(time.Now())
	end := jwt.NewNumericDate(time.Now().Add(time.Minute))
	own := jwt.Claims{Issuer: tokenService, Audience: jwt.Audience{tokenService}, Expiry: end, NotBefore: now, IssuedAt: now}
	for name, change := range map[string]func(*jwt.Claims){
		"its own":          func(*jwt.Claims) {},
		"another issuer":   func(c *jwt.Claims) { c.Issuer = "another" },
		"no issuer":        func(c *jwt.Claims) { c.Issuer = "" },
		"another audience": func(c *jwt.Claims) { c.Audience = jwt.Audience{"another"} },
		"no audience":      func(c *jwt.Claims) { c.Audience = nil },
		"no end":           func(c *jwt.Claims) { c.Expiry = nil },
		"of tomorrow":      func(c *jwt.Claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(24 * time.Hour)) },
	} {
		claims := own
		change(&claims)
		token := sign(t, jose.HS256, i.key, claims)
		if _, err := i.verify(token); (err == nil) != (name == "its own") {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := slices.Concat(i.key, i.key) // each algorithm wants a key of its own length
	for alg, key := range map[jose.SignatureAlgorithm][]byte{jose.HS384: long, jose.HS512: long} {
		if _, err := i.verify(sign(t, alg, key, own)); err == nil {
			t.Errorf("algorithm %s is believed", alg)
		}
	}
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key []byte, claims jwt.Claims) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestPolicy(t *testing.T) {
	const index, plugin = "application/vnd.oci.image.index.v1+json", "application/vnd.docker.plugin.v1+json"
	for _, tt := range []struct {
		policy Policy
		class  string
		says   string // "" where it is taken
	}{
		{Policy{}, imageClass, ""},
		{Policy{}, "anything", ""},
		{Policy{Allow: []string{"**"}}, plugin, ""},
		{Policy{Allow: []string{"application/*"}}, plugin, ""},
		{Policy{Allow: []string{"*"}}, plugin, "allowed are *"},
		{Policy{Allow: []string{imageClass}}, imageClass, ""},
		{Policy{Allow: []string{imageClass}}, index, "allowed are " + imageClass},
		{Policy{Allow: []string{"Application/VND.oci.image.*"}}, index, ""},
		{Policy{Allow: []string{"a/x", "a/y"}}, plugin, "allowed are a/x, a/y"},
		{Policy{Deny: []string{plugin}}, plugin, "denied are " + plugin},
		{Policy{Deny: []string{plugin}}, imageClass, ""},
		{Policy{Allow: []string{"**"}, Deny: []string{"*/vnd.docker.plugin.*"}}, plugin, "denied are"},
		{Policy{Allow: []string{"["}}, plugin, "allowed are ["},
		{Policy{Deny: []string{"["}}, plugin, "denied are ["},
		{Policy{Allow: slices.Repeat([]string{"a/x"}, 100)}, plugin, "and more"},
	} {
		err := tt.policy.check(tt.class)
		switch {
		case (err == nil) != (tt.says == ""):
			t.Errorf("%+v of %s: %v", tt.policy, tt.class, err)
		case err == nil:
		case !errors.Is(err, berth.ErrDenied) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.class):
			t.Errorf("%+v of %s: %v", tt.policy, tt.class, err)
		}
	}
}

// A push is let through by the policy of the registry, and by the rules for who pushes.
func TestClassesOfACall(t *testing.T) {
	i := newIssuer(t,
		Rule{Users: []string{"ada"}, Repositories: []string{"**"}, Actions: []string{"*"}},
		Rule{Users: []string{"bob"}, Repositories: []string{"x"}, Actions: []string{"push"}, Classes: []string{"application/vnd.oci.image.*"}},
		Rule{Users: []string{"bob"}, Repositories: []string{"x"}, Actions: []string{"pull"}},
		Rule{Users: []string{"bob"}, Repositories: []string{"x/*"}, Actions: []string{"push"}, Classes: []string{"a/b"}},
		Rule{Users: []string{"bob"}, Repositories: []string{"x/free"}, Actions: []string{"push"}},
	)
	for _, tt := range []struct {
		user, repository, class string
		policy                  Policy
		good                    bool
	}{
		{"ada", "x", "a/b", Policy{}, true},
		{"ada", "x", "a/b", Policy{Allow: []string{imageClass}}, false},
		{"bob", "x", imageClass, Policy{}, true},
		{"bob", "x", imageClass, Policy{Deny: []string{imageClass}}, false},
		{"bob", "x", "a/b", Policy{}, false},
		{"bob", "x", "a/b", Policy{Allow: []string{"a/b"}}, false},
		{"bob", "x/y", "a/b", Policy{}, true},
		{"bob", "x/y", imageClass, Policy{}, false},
		{"bob", "x/free", imageClass, Policy{}, true},
		{"bob", "other", imageClass, Policy{}, false},
		{anonymous, "x", imageClass, Policy{}, false},
	} {
		token, err := i.sign(tt.user, time.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		h := &handler{opts: Options{Authorizer: i, Policy: tt.policy}}
		c := &call{handler: h, r: showing(t, token), req: &ocirequest.Request{Repository: tt.repository}}
		if err := c.checkClass(tt.class); (err == nil) != tt.good || err != nil && !errors.Is(err, berth.ErrDenied) {
			t.Errorf("%s pushes %s to %s: %v", tt.user, tt.class, tt.repository, err)
		}
	}
	for _, authorizer := range []Authorizer{nil, Token("secret")} {
		c := &call{handler: &handler{opts: Options{Authorizer: authorizer}}, req: &ocirequest.Request{}}
		if err := c.checkClass("a/b"); err != nil {
			t.Errorf("%T: %v", authorizer, err)
		}
	}
}

func TestMayPull(t *testing.T) {
	i := newIssuer(t, Rule{Users: []string{"ada"}, Repositories: []string{"**"}, Actions: []string{"*"}})
	token, err := i.sign("ada", time.Now(), []scope{{Type: "repository", Name: "x", Actions: []string{"pull"}}, {Type: "repository", Name: "y", Actions: []string{"push"}}})
	if err != nil {
		t.Fatal(err)
	}
	c := &call{handler: &handler{opts: Options{Authorizer: i}}, r: showing(t, token)}
	for repository, want := range map[string]bool{"x": true, "y": false, "z": false, "": false} {
		if got := c.mayPull(repository); got != want {
			t.Errorf("%q: got %v", repository, got)
		}
	}
	c = &call{handler: &handler{}}
	if !c.mayPull("x") {
		t.Error("without an authorizer somebody may not pull")
	}
}

func TestAGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2, 3)
		for range 2 {
			if err := g.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 3)
		for range 3 {
			go func() { results <- g.enter(ctx) }()
		}
		synctest.Wait()
		if err := g.enter(t.Context()); !errors.Is(err, berth.ErrTooManyRequests) {
			t.Errorf("beyond those who may wait: %v", err)
		}
		g.leave()
		if err := <-results; err != nil {
			t.Errorf("a turn came, and %v", err)
		}
		cancel()
		for range 2 {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("one who has gone: %v", err)
			}
		}
		g.leave()
		g.leave()
		if len(g.inside) != 0 || len(g.all) != 0 {
			t.Errorf("%d are inside, %d in all", len(g.inside), len(g.all))
		}
	})
}

// Those who try passwords keep nobody out who is known, and the rest is told to come again.
func TestAFloodOfPasswords(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("own"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users, err := Htpasswd(strings.NewReader("ada:" + string(hash) + "\nbob:" + string(hash)))
	if err != nil {
		t.Fatal(err)
	}
	if err := users.Login(t.Context(), "ada", "own"); err != nil {
		t.Fatal(err)
	}
	users.gate = newGate(1, 0)
	if err := users.gate.enter(t.Context()); err != nil { // somebody is at it
		t.Fatal(err)
	}
	if err := users.Login(t.Context(), "ada", "own"); err != nil {
		t.Errorf("who is known: %v", err)
	}
	issuer, err := NewIssuer(Rules{{Users: []string{"*"}, Catalog: true}}, users)
	if err != nil {
		t.Fatal(err)
	}
	for target, authorizer := range map[string]Authorizer{"/v2/": users, TokenPath: issuer} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.Host = "localhost"
		r.SetBasicAuth("bob", "own")
		w := httptest.NewRecorder()
		New(nil, &Options{Authorizer: authorizer}).ServeHTTP(w, r)
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "TOOMANYREQUESTS") {
			t.Errorf("%s: status %d, %s", target, w.Code, w.Body)
		}
	}
	users.gate.leave()
	if err := users.Login(t.Context(), "bob", "own"); err != nil {
		t.Errorf("later: %v", err)
	}
}

// Of many requests with the same password, one checks it.
func TestAPasswordIsCheckedOnce(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("own"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users, err := Htpasswd(strings.NewReader("ada:" + string(hash)))
	if err != nil {
		t.Fatal(err)
	}
	users.gate = newGate(1, 8)
	if err := users.gate.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := users.Login(t.Context(), "ada", "own"); err != nil {
				t.Error(err)
			}
		})
	}
	for len(users.gate.all) < 9 {
		time.Sleep(time.Millisecond)
	}
	users.remember(users.identify("ada", "own")) // by the one that is inside
	users.users["ada"] = user{}                  // nobody else gets as far as the hash
	users.gate.leave()
	wg.Wait()
}

// What is remembered of passwords is bounded.
func TestRememberedPasswordsAreBounded(t *testing.T) {
	p := &Passwords{known: map[[32]byte]bool{}}
	for i := range 10 * maxRemembered {
		p.remember([32]byte{byte(i), byte(i >> 8)})
	}
	if len(p.known) > maxRemembered {
		t.Errorf("%d are remembered", len(p.known))
	}
}

func TestQuote(t *testing.T) {
	if got := quote(`a"b\c`); got != `"a\"b\\c"` {
		t.Errorf("got %s", got)
	}
}

func FuzzScope(f *testing.F) {
	for _, seed := range []string{"", "repository:app/hello:pull,push", "repository(plugin):x:*", "registry:catalog:*", "repository:host:5000/x:pull", "a:b:", "::", "a():b:c", "a:b:c d:e:f"} {
		f.Add(seed)
	}
	all := Rules{{Anonymous: true, Repositories: []string{"**"}, Actions: []string{"*"}, Catalog: true}}
	f.Fuzz(func(t *testing.T, text string) {
		scopes, err := parseScopes([]string{text})
		if err != nil {
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
				t.Errorf("the error is not one line: %q", err)
			}
			return
		}
		for _, s := range scopes {
			again, err := parseScope(s.String())
			if err != nil || !again.sameResource(s) || !slices.Equal(again.Actions, s.Actions) {
				t.Errorf("%+v is read again as %+v, %v", s, again, err)
			}
			if given := all.grant(anonymous, s); len(given.Actions) > 3 || !given.sameResource(s) {
				t.Errorf("%+v gives %+v", s, given)
			}
		}
	})
}

func FuzzRules(f *testing.F) {
	for _, seed := range []string{
		"", "rules: [{users: [a], catalog: true}]", "rules:\n  - anonymous: true\n    repositories: ['{a,b}/**']\n    actions: ['*']\n    classes: ['a/*']\n",
		"rules:\n  - users: ['*']\n    repositories: ['app/**', '[a-c]?*']\n    actions: [pull, push]\n", "rules: &a [*a]", "a: 1\n---\nb: 2\n",
		"rules:\n  - users: [!!binary aGk=]\n", "\xff\xfe",
	} {
		f.Add(seed, "app/hello")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		parsed, err := ParseRules(strings.NewReader(text))
		if err != nil {
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
				t.Errorf("the error is not one line: %q", err)
			}
			return
		}
		if len(parsed) == 0 || parsed.Validate() != nil {
			t.Errorf("what is taken is not good: %+v", parsed)
		}
		if berth.ValidateRepository(name) != nil {
			return
		}
		for _, action := range allActions() {
			if parsed.allow(anonymous, name, action) && !parsed.allow("somebody", name, action) {
				t.Errorf("to log in takes away to %s %s", action, name)
			}
		}
		if patterns, any := parsed.classes("somebody", name); (any || len(patterns) > 0) != parsed.allow("somebody", name, "push") {
			t.Errorf("to push to %s is allowed, or not, but not so its classes", name)
		}
	})
}
