package auth

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/berthoci/berth/internal/hostile"
)

func TestRefusalsAreCensoredWhereverTheSecretStands(t *testing.T) {
	const secret = "canary.t0ken"
	long := strings.Repeat("x", 4<<10)
	tests := []struct{ name, authorization, body, want string }{
		{"at the start", "Bearer " + secret, secret + " is bad", redacted + " is bad"},
		{"at the end", "Bearer " + secret, "bad: " + secret, "bad: " + redacted},
		{"twice", "Bearer " + secret, secret + secret, redacted + redacted},
		{"where two reads meet", "Bearer " + secret, long[5:] + secret + long, long[5:] + redacted + long},
		{"not there", "Bearer " + secret, "canary.t0ke", "canary.t0ke"},
		{"a password", "Basic YWRhOmNhbmFyeS5wQHNz", "ada canary.p@ss canary.p%40ss YWRhOmNhbmFyeS5wQHNz", "ada " + redacted + " " + redacted + " " + redacted},
		{"one that every word has", "Basic YWRhOmU=", "denied", "denied"},
		{"another scheme", "Digest abc", "denied", "denied"},
		{"nothing", "Bearer " + secret, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, read := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader, func(r io.Reader) io.Reader { return r }} {
				resp := &http.Response{StatusCode: 403, Body: io.NopCloser(read(strings.NewReader(tt.body))), Header: http.Header{}}
				censor(resp, tt.authorization)
				got, err := io.ReadAll(iotest.OneByteReader(resp.Body))
				if err != nil || string(got) != tt.want {
					t.Errorf("got %.60q, %v, want %.60q", got, err, tt.want)
				}
			}
		})
	}
}

func TestOnlyRefusalsAreCensored(t *testing.T) {
	for status, want := range map[int]int64{200: 5, 302: 5, 400: -1, 500: -1} {
		resp := &http.Response{StatusCode: status, ContentLength: 5, Body: io.NopCloser(strings.NewReader("token")), Header: http.Header{"Content-Length": {"5"}}}
		censor(resp, "Bearer token")
		if resp.ContentLength != want || (resp.Header.Get("Content-Length") == "") != (want < 0) {
			t.Errorf("status %d: %d bytes", status, resp.ContentLength)
		}
	}
}

func TestACensoredBodyKeepsItsError(t *testing.T) {
	resp := &http.Response{StatusCode: 403, Body: io.NopCloser(iotest.TimeoutReader(iotest.HalfReader(strings.NewReader("a token and more")))), Header: http.Header{}}
	censor(resp, "Bearer token")
	if _, err := io.ReadAll(resp.Body); err != iotest.ErrTimeout {
		t.Errorf("error is %v", err)
	}
}

func TestSecretsAreInNoErrorAndNoRefusal(t *testing.T) {
	pair := "Basic " + "YWRhOmNhbmFyeS5wYXNzd29yZA==" // ada:canary.password
	tests := []struct {
		name   string
		opts   hostile.Options
		tokens *hostile.TokenOptions
		cred   Credential
	}{
		{"a token server that repeats a password", hostile.Options{}, &hostile.TokenOptions{Echo: true}, ada},
		{"a token server that repeats an identity token", hostile.Options{}, &hostile.TokenOptions{Echo: true}, Credential{IdentityToken: canaryIdentity}},
		{"a registry that repeats a password", hostile.Options{Users: map[string]string{"x": "y"}, Echo: true}, nil, ada},
		{"and in plain text", hostile.Options{Users: map[string]string{"x": "y"}, Echo: true, PlainText: true, BadPassword: 403}, nil, ada},
		{"a registry that repeats a token", hostile.Options{DenyAll: true, Echo: true}, &hostile.TokenOptions{Users: users()}, ada},
		{"a registry that repeats an access token", hostile.Options{Echo: true}, &hostile.TokenOptions{}, Credential{AccessToken: "canary.access"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, tt.opts, tt.tokens).as(tt.cred)
			resp, err := s.rt.RoundTrip(request(t, http.MethodGet, registryURL+pathA, nil, pullA))
			said := fmt.Sprint(err)
			if err == nil {
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				said = string(body)
				if !strings.Contains(said, "you sent") || resp.Request.Header.Get("Authorization") != "" {
					t.Errorf("said %q", said)
				}
			}
			secrets := []string{canary, canaryIdentity, "canary.access", pair[len("Basic "):]}
			for _, r := range s.registry.Requests() {
				if _, token, _ := strings.Cut(r.Authorization(), " "); token != "" {
					secrets = append(secrets, token)
				}
			}
			for _, secret := range secrets {
				if strings.Contains(said, secret) {
					t.Errorf("%q is in %q", secret, said)
				}
			}
			if !strings.Contains(said, redacted) {
				t.Errorf("nothing was taken out of %q", said)
			}
		})
	}
}
