package server_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth/server"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestToken(t *testing.T) {
	f := serve(t, &server.Options{Authorizer: server.Token("s3cret")})
	for _, good := range []string{"Bearer s3cret", basic("anybody", "s3cret")} {
		f.want(f.do("GET", "/v2/", "", "Authorization", good), http.StatusOK)
	}
	for _, bad := range []string{"", "Bearer wrong", "Bearer", "Bearer ", basic("s3cret", ""), "Basic !", "s3cret"} {
		resp := f.want(f.do("GET", "/v2/", "", "Authorization", bad), http.StatusUnauthorized, "Www-Authenticate", `Basic realm="berth", charset="UTF-8"`)
		if codes := f.codes(resp); codes != "UNAUTHORIZED" {
			t.Errorf("%q: %s", bad, codes)
		}
	}
}

func TestAnEmptyTokenLetsNobodyIn(t *testing.T) {
	f := serve(t, &server.Options{Authorizer: server.Token("")})
	for _, shown := range []string{"", "Bearer ", basic("", "")} {
		f.want(f.do("GET", "/v2/", "", "Authorization", shown), http.StatusUnauthorized)
	}
}

func TestNothingIsToldBeforeTheTokenIsShown(t *testing.T) {
	f := serve(t, &server.Options{Authorizer: server.Token("s3cret"), ReadOnly: true})
	for _, request := range [][2]string{
		{"GET", "/v2/x/tags/list"}, {"GET", "/nowhere"}, {"OPTIONS", "/v2/"}, {"GET", "/v2/UP/tags/list"}, {"PUT", "/v2/x/manifests/v1"},
	} {
		f.want(f.do(request[0], request[1], ""), http.StatusUnauthorized)
	}
}

func TestHtpasswd(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("pass:word"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users, err := server.Htpasswd(strings.NewReader("# people\n\nalice:" + string(hash) + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, &server.Options{Authorizer: users})
	for range 2 { // the second time from memory
		f.want(f.do("GET", "/v2/", "", "Authorization", basic("alice", "pass:word")), http.StatusOK)
		f.want(f.do("GET", "/v2/", "", "Authorization", basic("alice", "pass")), http.StatusUnauthorized)
		f.want(f.do("GET", "/v2/", "", "Authorization", basic("mallory", "pass:word")), http.StatusUnauthorized)
		f.want(f.do("GET", "/v2/", "", "Authorization", "Bearer "+string(hash)), http.StatusUnauthorized)
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

func TestHtpasswdRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"":                                   "no user",
		"# nobody\n":                         "no user",
		"alice":                              "line 1",
		"\nalice:secret\n":                   "line 2",
		"alice:$apr1$abc$defghi":             "bcrypt",
		":$2y$05$abc":                        "line 1",
		"alice:" + strings.Repeat("x", 9999): "too long",
	} {
		_, err := server.Htpasswd(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.30q: got %v, want it to say %q", text, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q quotes the file", err)
		}
	}
}

func TestWhoMayAsk(t *testing.T) {
	f := serve(t, &server.Options{Hosts: []string{"registry.test"}})
	for _, tt := range []struct {
		header []string
		status int
	}{
		{[]string{"Host", "localhost:5000"}, 200},
		{[]string{"Host", "127.0.0.1:5000"}, 200},
		{[]string{"Host", "[::1]:5000"}, 200},
		{[]string{"Host", "my.LOCALHOST"}, 200},
		{[]string{"Host", "registry.test:5000"}, 200},
		{[]string{"Host", "evil.example"}, 403},
		{[]string{"Host", "127.0.0.1.evil.example:5000"}, 403},
		{[]string{"Host", "localhost.evil.example"}, 403},
		{[]string{"Host", "10.0.0.1:5000"}, 403},
		{[]string{"Host", ""}, 403},
		{[]string{"Host", "localhost:5000", "Origin", "http://localhost:5000"}, 200},
		{[]string{"Host", "localhost:5000", "Origin", "http://localhost:3000"}, 403},
		{[]string{"Host", "localhost:5000", "Origin", "https://evil.example"}, 403},
		{[]string{"Host", "localhost:5000", "Origin", "null"}, 403},
		{[]string{"Host", "localhost:5000", "Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Host", "localhost:5000", "Sec-Fetch-Site", "none"}, 200},
		{[]string{"Host", "localhost:5000", "Sec-Fetch-Site", "same-origin"}, 200},
	} {
		t.Run(fmt.Sprint(tt.header), func(t *testing.T) {
			f.T = t
			resp := f.want(f.do("GET", "/v2/", "", tt.header...), tt.status)
			if resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("a CORS header was sent")
			}
		})
	}
}
