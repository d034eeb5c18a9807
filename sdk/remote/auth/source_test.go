package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/berthoci/berth/internal/hostile"
)

// oauth2Token and oauth2Source have the methods of oauth2.Token and oauth2.TokenSource that count here.
type oauth2Token struct{ kind, value string }

func (t *oauth2Token) SetAuthHeader(r *http.Request) {
	r.Header.Set("Authorization", t.kind+" "+t.value)
}

type oauth2Source interface{ Token() (*oauth2Token, error) }

type sourceFunc func() (*oauth2Token, error)

func (f sourceFunc) Token() (*oauth2Token, error) { return f() }

func TestCase15ATokenSourceStandsInForACredential(t *testing.T) {
	n := 0
	var source oauth2Source = sourceFunc(func() (*oauth2Token, error) {
		n++
		return &oauth2Token{"bearer", fmt.Sprint("access", n)}, nil
	})
	s := newStage(t, hostile.Options{DenyAll: true}, &hostile.TokenOptions{})
	s.rt.Credentials = Chain(TokenSource("registry.example", source), Static("registry.example", ada))
	s.get(t, pullA)
	s.get(t, pullA)
	var shown []string
	for _, r := range s.registry.Requests() {
		shown = append(shown, r.Authorization())
	}
	wantEqual(t, "authorisations", shown, []string{"", "Bearer access1", "Bearer access2", "Bearer access3"})
	if n := len(s.tokens.Exchanges()); n != 0 {
		t.Errorf("%d exchanges", n)
	}
	if c := lookup(t, TokenSource("other.example", source), "registry.example"); c != (Credential{}) {
		t.Errorf("another host has %v", c)
	}
	if c := lookup(t, TokenSource("docker.io", source), "registry-1.docker.io"); c.AccessToken == "" {
		t.Error("Docker Hub has none under its other name")
	}
}

func TestCase15ATokenSourceThatFails(t *testing.T) {
	down := errors.New("cannot fetch token: 400\nResponse: <html>" + strings.Repeat("x", 1000))
	tests := []struct {
		name  string
		token *oauth2Token
		err   error
		says  string
	}{
		{"an error", nil, down, "credential for registry.example: the token source gave none: cannot fetch token: 400 Response"},
		{"a token of another kind", &oauth2Token{"MAC", canary}, nil, "no Bearer token"},
		{"an empty token", &oauth2Token{"Bearer", ""}, nil, "no Bearer token"},
		{"a token that is no header", &oauth2Token{"Bearer", canary + "\n"}, nil, "no Bearer token"},
	}
	for _, tt := range tests {
		s := newStage(t, hostile.Options{}, &hostile.TokenOptions{})
		s.rt.Credentials = TokenSource("registry.example", sourceFunc(func() (*oauth2Token, error) { return tt.token, tt.err }))
		_, err := s.rt.RoundTrip(request(t, http.MethodGet, registryURL+pathA, nil))
		if err == nil || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 2*maxMessage || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: %v is not %v", tt.name, err, tt.err)
		}
	}
}

func TestCase15ATokenSourceIsNotAskedInVain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	source := sourceFunc(func() (*oauth2Token, error) { t.Error("asked"); return nil, nil })
	if _, err := TokenSource("h", source)(ctx, "h"); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}
