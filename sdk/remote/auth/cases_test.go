package auth

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
)

// The tests of this file are the cases of docs/remotes.md, by their numbers, that are decided here.

func TestCase01SeveralChallenges(t *testing.T) {
	const (
		basic   = `Basic realm="r"`
		bearer  = `Bearer realm="https://auth.example/token",service="s",scope="{scope}"`
		unsafe  = `Bearer realm="http://auth.example/token"`
		strange = `Negotiate a2V5==, DPoP algs="ES256, Basic realm=x"`
	)
	tests := []struct {
		name       string
		challenges []string
		tokens     bool // or passwords
		shown      []string
	}{
		{"one field, the weaker first", []string{basic + ", " + bearer}, true, []string{"", "Bearer"}},
		{"one field, the stronger first", []string{bearer + " , " + basic}, true, []string{"", "Bearer"}},
		{"several fields", []string{strange, basic, bearer}, true, []string{"", "Bearer"}},
		{"among what nobody knows", []string{strange + ", " + basic + ", Mutual"}, false, []string{"", "Basic"}},
		{"the stronger one cannot be answered", []string{unsafe, basic}, false, []string{"", "Basic"}},
		{"one of two stronger ones cannot", []string{unsafe + "," + bearer + "," + basic}, true, []string{"", "Bearer"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts, tokens := hostile.Options{Challenges: tt.challenges}, &hostile.TokenOptions{Users: users()}
			if !tt.tokens {
				opts.Users, tokens = users(), nil
			}
			s := newStage(t, opts, tokens).as(ada)
			if status, body := s.get(t); status != http.StatusOK {
				t.Errorf("status %d, %s", status, body)
			}
			wantEqual(t, "authorisations", s.schemes(), tt.shown)
		})
	}
	s := newStage(t, hostile.Options{Challenges: []string{unsafe, basic}, Users: users()}, nil)
	_, err := s.rt.RoundTrip(request(t, http.MethodGet, registryURL+pathA, nil))
	if err == nil || !strings.Contains(err.Error(), "realm is not https") {
		t.Errorf("without a password for the weaker one: %v", err)
	}
}

func TestCase02ChallengesInOddForms(t *testing.T) {
	for name, challenge := range map[string]string{
		"relative realm":          `Bearer realm="/token",service="hostile",scope="{scope}"`,
		"relative to the request": `Bearer realm="../../../token",service="hostile",scope="{scope}"`,
		"upper case":              `BEARER REALM="/token",SERVICE="hostile",SCOPE="{scope}"`,
		"quoted pairs":            `Bearer realm="\/to\ken",service="hos\tile",scope="{scope}"`,
		"commas in quotes":        `Bearer realm="/token",error_description="no, Basic realm=x",service="hostile",scope="{scope}"`,
		"token68 before it":       `Negotiate YIIB/+a-b._~==, Bearer realm="/token",service="hostile",scope="{scope}"`,
		"blanks and no quotes":    `Bearer  realm = /token , service=hostile , scope="{scope}"`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, hostile.Options{Challenges: []string{challenge}}, &hostile.TokenOptions{})
			if status, body := s.get(t); status != http.StatusOK {
				t.Errorf("status %d, %s", status, body)
			}
			if asked := s.tokens.Exchanges(); len(asked) != 1 || asked[0].Service != "hostile" {
				t.Errorf("asked %+v", asked)
			}
		})
	}
}

func TestCase03ATokenExpiresDuringAnUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The server says an hour, and means a minute.
		s := newStage(t, hostile.Options{}, &hostile.TokenOptions{Users: users(), Lifetime: time.Minute, ExpiresIn: 3600}).as(ada)
		at := s.begin(t)
		time.Sleep(2 * time.Minute)
		resp, _ := s.send(t, http.MethodPatch, at, strings.NewReader("sent again"), "pull", "push")
		if resp.StatusCode != http.StatusAccepted || resp.Header.Get("Range") != "0-9" {
			t.Errorf("a body that can be rewound: status %d, range %s", resp.StatusCode, resp.Header.Get("Range"))
		}
		time.Sleep(2 * time.Minute)
		once := func() io.Reader { return io.MultiReader(strings.NewReader(" and resumed")) }
		resp, _ = s.send(t, http.MethodPatch, at, once(), "pull", "push")
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a body that cannot: status %d", resp.StatusCode)
		}
		resp, _ = s.send(t, http.MethodGet, at, nil, "pull", "push")
		if resp.Header.Get("Range") != "0-9" {
			t.Errorf("the upload is at %s", resp.Header.Get("Range"))
		}
		resp, _ = s.send(t, http.MethodPatch, at, once(), "pull", "push")
		if resp.StatusCode != http.StatusAccepted || resp.Header.Get("Range") != "0-21" {
			t.Errorf("from where the upload was: status %d, range %s", resp.StatusCode, resp.Header.Get("Range"))
		}
	})
}

func TestCase03ATokenIsRefreshedAheadOfItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, hostile.Options{}, &hostile.TokenOptions{Users: users(), Lifetime: 2 * time.Minute}).as(ada)
		at := s.begin(t)
		for range 5 {
			time.Sleep(91 * time.Second)
			resp, _ := s.send(t, http.MethodPatch, at, io.MultiReader(strings.NewReader("chunk")), "pull", "push")
			if resp.StatusCode != http.StatusAccepted {
				t.Errorf("status %d", resp.StatusCode)
			}
		}
		if n := len(s.tokens.Exchanges()); n != 6 {
			t.Errorf("%d exchanges", n)
		}
	})
}

// What has ended one token may have ended those that came before it: the next one is new.
func TestCase03TokensThatAllExpiredAtOnce(t *testing.T) {
	s := newStage(t, hostile.Options{}, &hostile.TokenOptions{Users: users()}).as(ada)
	for _, other := range []string{"b", "c", "d"} {
		s.get(t, Repository("a", "pull"), Repository(other, "pull"))
	}
	s.tokens.Expire()
	if status, body := s.get(t, pullA); status != http.StatusOK {
		t.Errorf("status %d, %s", status, body)
	}
	if n := len(s.tokens.Exchanges()); n != 4 {
		t.Errorf("%d exchanges", n)
	}
}

func TestCase04TokensInTheFormsOfTheirServers(t *testing.T) {
	tests := []struct {
		name  string
		opts  hostile.TokenOptions
		lasts time.Duration // how long a token is used
	}{
		{"as it should be", hostile.TokenOptions{}, 4*time.Minute + 30*time.Second},
		{"no expires_in", hostile.TokenOptions{OmitExpiry: true}, 45 * time.Second},
		{"a lie in issued_at", hostile.TokenOptions{IssuedAt: "1970-01-01T00:00:00Z"}, 4*time.Minute + 30*time.Second},
		{"a lie of tomorrow", hostile.TokenOptions{IssuedAt: "2999-01-01T00:00:00Z"}, 4*time.Minute + 30*time.Second},
		{"access_token", hostile.TokenOptions{AccessToken: true}, 4*time.Minute + 30*time.Second},
		{"a short life", hostile.TokenOptions{Lifetime: 20 * time.Second}, 15 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, hostile.Options{}, &tt.opts)
				for _, rest := range []time.Duration{0, tt.lasts - 1, 1} {
					time.Sleep(rest)
					if status, body := s.get(t, pullA); status != http.StatusOK {
						t.Errorf("status %d, %s", status, body)
					}
				}
				wantEqual(t, "authorisations", s.schemes(), []string{"", "Bearer", "Bearer", "Bearer"})
				if n := len(s.tokens.Exchanges()); n != 2 {
					t.Errorf("%d exchanges", n)
				}
			})
		})
	}
}

func TestCase05AnIdentityTokenThatIsReplaced(t *testing.T) {
	t.Run("one after the other", func(t *testing.T) {
		s := newStage(t, hostile.Options{}, &hostile.TokenOptions{Identities: []string{canaryIdentity}, Rotate: true}).as(Credential{IdentityToken: canaryIdentity})
		for i := range 5 {
			if status, body := s.get(t, pullA, Repository(fmt.Sprint("r", i), "pull")); status != http.StatusOK {
				t.Errorf("status %d, %s", status, body)
			}
		}
		wantEqual(t, "exchanges", s.methods(), []string{"POST", "POST", "POST", "POST", "POST"})
	})
	t.Run("at once", func(t *testing.T) {
		s := newStage(t, hostile.Options{}, &hostile.TokenOptions{Identities: []string{canaryIdentity}, Rotate: true}).as(Credential{IdentityToken: canaryIdentity})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if status, body := s.get(t, pullA, Repository(fmt.Sprint("r", i), "pull")); status != http.StatusOK {
					t.Errorf("status %d, %s", status, body)
				}
			})
		}
		wg.Wait()
		if methods := s.methods(); slices.Contains(methods, "GET") || len(methods) != 8 {
			t.Errorf("exchanges: %q", methods)
		}
	})
	t.Run("by somebody else", func(t *testing.T) {
		s := newStage(t, hostile.Options{}, &hostile.TokenOptions{Identities: []string{canaryIdentity}, Rotate: true}).as(Credential{IdentityToken: canaryIdentity})
		s.get(t, pullA)
		fresh := hostile.NewTokenServer(&hostile.TokenOptions{Identities: []string{canaryIdentity}})
		s.registry.Change(func(o *hostile.Options) { o.Tokens = fresh }) // which does not know the new one
		if status, body := s.get(t, pullA); status != http.StatusOK {
			t.Errorf("status %d, %s", status, body)
		}
		if x := fresh.Exchanges(); len(x) != 2 || x[1].Method != http.MethodPost || x[1].RefreshToken != canaryIdentity {
			t.Errorf("exchanges: %+v", x)
		}
	})
	t.Run("and stays as it is", func(t *testing.T) {
		s := newStage(t, hostile.Options{}, &hostile.TokenOptions{Identities: []string{canaryIdentity}}).as(Credential{IdentityToken: canaryIdentity})
		for i := range 3 {
			s.get(t, Repository("a", "pull"), Repository(fmt.Sprint("r", i), "pull"))
		}
		for _, x := range s.tokens.Exchanges() {
			wantEqual(t, "identity token", x.RefreshToken, canaryIdentity)
		}
	})
}

func TestCase06ANarrowerTokenIsTriedOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		opts   hostile.Options
		tokens hostile.TokenOptions
		says   string
	}{
		{"the right to push is withheld", hostile.Options{}, hostile.TokenOptions{Users: users(), Withhold: []string{"push"}}, "requested access to the resource is denied"},
		{"no token is good enough", hostile.Options{DenyAll: true}, hostile.TokenOptions{Users: users()}, "requested access to the resource is denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, tt.opts, &tt.tokens).as(ada)
			var trace Trace
			req := request(t, http.MethodPut, registryURL+pathA, strings.NewReader(`{}`), Repository("a", "pull", "push"))
			status, body := roundTrip(t, s.rt, req.WithContext(WithTrace(req.Context(), &trace)))
			if status != http.StatusUnauthorized || !strings.Contains(body, tt.says) {
				t.Errorf("status %d, %s", status, body)
			}
			if sent, exchanges := len(s.registry.Requests()), len(s.tokens.Exchanges()); sent != 2 || exchanges != 1 {
				t.Errorf("%d requests, %d exchanges", sent, exchanges)
			}
			if want := (Trace{Credential: "ada", Granted: true}); trace != want {
				t.Errorf("told %+v, want %+v", trace, want)
			}
		})
	}
	t.Run("it is enough", func(t *testing.T) {
		s := newStage(t, hostile.Options{}, &hostile.TokenOptions{Users: users(), Withhold: []string{"push"}}).as(ada)
		if status, body := s.get(t, Repository("a", "pull", "push")); status != http.StatusOK {
			t.Errorf("status %d, %s", status, body)
		}
	})
}

func TestCase07TokensStayWithinTheLimitOfHeaders(t *testing.T) {
	s := newStage(t, hostile.Options{MaxAuthorization: 200}, &hostile.TokenOptions{Users: users()}).as(ada)
	for i := range 100 {
		name := fmt.Sprint("team/project-", i)
		s.registry.PutManifest(name, "v1", "x/y", []byte(`{}`))
		if status, body := get(t, s.rt, registryURL+"/v2/"+name+"/manifests/v1", Repository(name, "pull")); status != http.StatusOK {
			t.Fatalf("%s: status %d, %s", name, status, body)
		}
	}
}

func TestCase07AChallengeThatAsksForMoreThanAnyRequestNeeds(t *testing.T) {
	var flood strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&flood, "repository:r%d:pull ", i)
	}
	s := newStage(t, hostile.Options{Challenges: []string{`Bearer realm="/token",service="hostile",scope="` + flood.String()[:maxChallenges/2] + `"`}, DenyAll: true}, &hostile.TokenOptions{})
	if status, _ := s.get(t); status != http.StatusUnauthorized {
		t.Errorf("status %d", status)
	}
	if asked := s.tokens.Exchanges(); len(asked) != 1 || len(asked[0].Scopes) > maxScopes {
		t.Errorf("%d exchanges, the first for %d scopes", len(asked), len(asked[0].Scopes))
	}
}

func TestCase10AStaleCredential(t *testing.T) {
	stale := Credential{Username: "ada", Password: "canary.stale"}
	tests := []struct {
		name   string
		opts   hostile.Options
		tokens *hostile.TokenOptions
		cred   Credential
		learn  bool // a request to what is not public comes first
		method string
		status int    // with the retry; 0 is an error
		behind string // the credential behind the answer
		says   string // without the retry, the error; or else of the trace
	}{
		{"at the token server", hostile.Options{}, &hostile.TokenOptions{RefuseUsers: 403}, stale, false, "GET", 200, "anonymous", "as ada: 403"},
		{"at the token server, which says 401", hostile.Options{}, &hostile.TokenOptions{RefuseUsers: 401}, stale, false, "HEAD", 200, "anonymous", "as ada: 401"},
		{"an identity token", hostile.Options{}, &hostile.TokenOptions{RefuseUsers: 400}, Credential{IdentityToken: "canary.stale"}, false, "GET", 200, "anonymous", "as identity token: 400"},
		{"at the token server, to push", hostile.Options{}, &hostile.TokenOptions{RefuseUsers: 403}, stale, false, "PUT", 0, "", "as ada: 403"},
		{"at the registry", hostile.Options{Users: users(), Public: true}, nil, stale, true, "GET", 200, "anonymous", "refused ada with status 401"},
		{"at the registry, which says 403", hostile.Options{Users: users(), Public: true, BadPassword: 403}, nil, stale, true, "HEAD", 200, "anonymous", "refused ada with status 403"},
		{"at the registry, where it is not public", hostile.Options{Users: users()}, nil, stale, true, "GET", 401, "ada", ""},
		{"at the registry, to push", hostile.Options{Users: users(), Public: true}, nil, stale, true, "PUT", 401, "ada", ""},
		{"an access token", hostile.Options{}, &hostile.TokenOptions{}, Credential{AccessToken: "canary.stale"}, false, "GET", 200, "anonymous", "refused access token with status 401"},
		{"an access token, where it is not public", hostile.Options{}, &hostile.TokenOptions{Private: true}, Credential{AccessToken: "canary.stale"}, false, "GET", 401, "access token", ""},
	}
	for _, tt := range tests {
		for _, retry := range []bool{true, false} {
			t.Run(fmt.Sprint(tt.name, ", retry ", retry), func(t *testing.T) {
				s := newStage(t, tt.opts, tt.tokens).as(tt.cred)
				if tt.learn {
					s.send(t, http.MethodPost, "/v2/a/blobs/uploads/", nil, "pull", "push")
				}
				s.rt.AnonymousRetry = retry
				actions := map[bool][]string{true: {"pull", "push"}, false: {"pull"}}[tt.method == "PUT"]
				var trace Trace
				req := request(t, tt.method, registryURL+pathA, nil, Repository("a", actions...))
				resp, err := s.rt.RoundTrip(req.WithContext(WithTrace(req.Context(), &trace)))
				if err == nil {
					resp.Body.Close()
				}
				switch {
				case !retry && tt.tokens != nil && tt.tokens.RefuseUsers != 0 || tt.status == 0:
					if !strings.Contains(fmt.Sprint(err), tt.says) {
						t.Errorf("error is %v", err)
					}
				case err != nil:
					t.Error(err)
				case retry && (resp.StatusCode != tt.status || trace.Credential != tt.behind):
					t.Errorf("status %d, %+v", resp.StatusCode, trace)
				case retry && (tt.says == "") != (trace.TurnedDown == nil) || retry && !strings.Contains(fmt.Sprint(trace.TurnedDown), tt.says):
					t.Errorf("turned down: %v", trace.TurnedDown)
				case !retry && resp.StatusCode < 400:
					t.Errorf("status %d without a retry", resp.StatusCode)
				}
			})
		}
	}
}

func TestCase11CredentialsAndTheRealm(t *testing.T) {
	tests := []struct {
		name, realm string
		cred        Credential // stored for registry.example
		asked       int        // exchanges
		says        string
	}{
		{"on another host", "https://auth.example/token", ada, 1, ""},
		{"a downgrade", "http://auth.example/token", ada, 0, "realm is not https"},
		{"a downgrade on the same host", "http://registry.example/token", ada, 0, "realm is not https"},
		{"a private address", "https://10.0.0.1/token", ada, 0, "private address"},
		{"this machine", "http://127.0.0.1:8080/token", ada, 0, "on this machine"},
		{"called like this machine", "http://127.0.0.1.evil.example/token", ada, 0, "realm is not https"},
		{"what clouds tell of machines", "https://169.254.169.254/token", ada, 0, "no token server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, hostile.Options{Realm: tt.realm}, &hostile.TokenOptions{Users: users()}).as(tt.cred)
			for _, origin := range []string{"http://auth.example", "https://10.0.0.1", "http://127.0.0.1:8080", "http://127.0.0.1.evil.example", "https://169.254.169.254", "http://registry.example"} {
				s.network.Handle(origin, s.tokens)
			}
			resp, err := s.rt.RoundTrip(request(t, http.MethodGet, registryURL+pathA, nil, pullA))
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != (tt.says == "") || err != nil && (!errors.Is(err, berth.ErrUnauthorized) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("error is %v", err)
			}
			if n := len(s.tokens.Exchanges()); n != tt.asked {
				t.Errorf("%d exchanges", n)
			}
			allowed := 0
			s.rt.AllowRealm = func(host string, realm *url.URL) bool {
				allowed++
				return host == "registry.example" && realm.String() == tt.realm
			}
			if status, _ := s.get(t, pullA); status != http.StatusOK || (allowed > 0) != (tt.says != "") {
				t.Errorf("where the user allows it: status %d, was asked %d times", status, allowed)
			}
		})
	}
}
