package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/server"
)

// hashed is a line of a password file.
func hashed(tb testing.TB, user, password string) string {
	tb.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		tb.Fatal(err)
	}
	return user + ":" + string(hash) + "\n"
}

// people is a password file of users, each of whom has a name and "'s own" for a password.
func people(tb testing.TB, names ...string) *server.Passwords {
	tb.Helper()
	var file strings.Builder
	for _, name := range names {
		file.WriteString(hashed(tb, name, name+"'s own"))
	}
	users, err := server.Htpasswd(strings.NewReader(file.String()))
	if err != nil {
		tb.Fatal(err)
	}
	return users
}

func TestHtpasswd(t *testing.T) {
	line := hashed(t, "alice", "pass:word")
	users, err := server.Htpasswd(strings.NewReader("# people\n\n" + strings.TrimSpace(line) + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, &server.Options{Authorizer: users})
	for range 2 { // the second time from memory
		f.want(f.do("GET", "/v2/", "", "Authorization", basic("alice", "pass:word")), http.StatusOK)
		f.want(f.do("GET", "/v2/", "", "Authorization", basic("alice", "pass")), http.StatusUnauthorized)
		f.want(f.do("GET", "/v2/", "", "Authorization", basic("mallory", "pass:word")), http.StatusUnauthorized)
		f.want(f.do("GET", "/v2/", "", "Authorization", "Bearer "+line), http.StatusUnauthorized)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if resp := f.do("GET", "/v2/", "", "Authorization", basic("alice", "pass:word")); resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	wg.Wait()
}

// A password file lets everybody in it do everything.
func TestHtpasswdForEveryAction(t *testing.T) {
	f := serve(t, &server.Options{Authorizer: people(t, "ada")})
	own := basic("ada", "ada's own")
	f.want(f.do("PUT", "/v2/x/manifests/v1", emptyIndex, "Authorization", own), http.StatusCreated)
	f.want(f.do("GET", "/v2/_catalog", "", "Authorization", own), http.StatusOK)
	f.want(f.do("DELETE", "/v2/x/manifests/v1", "", "Authorization", own), http.StatusAccepted)
}

func TestLongPasswords(t *testing.T) {
	longest := strings.Repeat("x", 72)
	users, err := server.Htpasswd(strings.NewReader(hashed(t, "ada", longest)))
	if err != nil {
		t.Fatal(err)
	}
	if err := users.Login(t.Context(), "ada", longest); err != nil {
		t.Errorf("a password of 72 bytes: %v", err)
	}
	err = users.Login(t.Context(), "ada", longest+"y")
	if !errors.Is(err, berth.ErrUnauthorized) || !strings.Contains(err.Error(), "72 bytes") {
		t.Errorf("one that differs behind them: %v", err)
	}
}

func TestHtpasswdRefuses(t *testing.T) {
	good := hashed(t, "alice", "secret")
	for text, says := range map[string]string{
		"":                                   "no user",
		"# nobody\n":                         "no user",
		"alice":                              "line 1",
		"\nalice:secret\n":                   "line 2",
		"alice:$apr1$abc$defghi":             "bcrypt",
		"alice:{SHA}secret":                  "bcrypt",
		":$2y$05$abc":                        "line 1",
		strings.TrimSpace(good) + "x":        "line 1: want USER:HASH",
		strings.TrimSpace(good) + ":secret":  "line 1: want USER:HASH",
		strings.Replace(good, "a", "é", 3):   "line 1",
		good + "# again\n" + good:            `line 3: user "alice" is in line 1 already`,
		costing(good, "15"):                  "line 1: a bcrypt hash of cost 15",
		costing(good, "32"):                  "line 1",
		costing(good, "03"):                  "line 1",
		"alice:" + strings.Repeat("x", 9999): "too long",
	} {
		_, err := server.Htpasswd(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.30q: got %v, want it to say %q", text, err, says)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "$2")) {
			t.Errorf("%q quotes the file", err)
		}
	}
	if _, err := server.Htpasswd(strings.NewReader(costing(good, "14"))); err != nil {
		t.Errorf("the costliest that is taken: %v", err)
	}
}

// costing is a line with another cost: the hash of nothing, then.
func costing(line, cost string) string {
	head, tail, _ := strings.Cut(line, fmt.Sprintf("$%02d$", bcrypt.MinCost))
	return head + "$" + cost + "$" + tail
}

// Whoever has gone does not wait on.
func TestALoginThatIsCancelled(t *testing.T) {
	users := people(t, "ada")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := users.Login(ctx, "ada", "wrong"); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, berth.ErrUnauthorized) {
			t.Errorf("got %v", err)
		}
	}
	if err := users.Login(t.Context(), "ada", "ada's own"); err != nil {
		t.Errorf("it left somebody inside: %v", err)
	}
}

func FuzzHtpasswd(f *testing.F) {
	good := hashed(f, "alice", "secret")
	for _, seed := range []string{"", good, good + good, "# x\n\n" + good, "alice:" + strings.Repeat("x", 60), costing(good, "31"), ":", "a:b:c", good + "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		users, err := server.Htpasswd(strings.NewReader(text))
		if (users == nil) == (err == nil) {
			t.Fatalf("both or none: %v", err)
		}
		if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 300) {
			t.Errorf("the error is not one line: %q", err)
		}
	})
}
