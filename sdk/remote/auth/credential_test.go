package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestACredentialShowsWhoseItIsAndNoSecret(t *testing.T) {
	tests := []struct {
		cred Credential
		want string
	}{
		{Credential{}, "anonymous"},
		{Credential{Username: "alice", Password: "canary.SECRET"}, "alice"},
		{Credential{Username: "<token>", Password: "canary.SECRET"}, "identity token"},
		{Credential{IdentityToken: "canary.SECRET"}, "identity token"},
		{Credential{Username: "alice", IdentityToken: "canary.SECRET"}, "identity token of alice"},
		{Credential{AccessToken: "canary.SECRET"}, "access token"},
		{Credential{Password: "canary.SECRET"}, "password without user name"},
		{Credential{Username: "alice\n\x1b[31m", Password: "canary.SECRET"}, "alice [31m"},
	}
	for _, tt := range tests {
		if got := tt.cred.String(); got != tt.want {
			t.Errorf("String is %q, want %q", got, tt.want)
		}
		holder := struct{ C Credential }{tt.cred}
		inJSON, _ := json.Marshal(holder)
		var log bytes.Buffer
		logger := slog.New(slog.NewJSONHandler(&log, nil))
		logger.Info("m", "cred", tt.cred, "holder", holder)
		shown := fmt.Sprintf("%v %+v %#v %s %q %d %x %v %+v %#v %s %s", tt.cred, tt.cred, tt.cred, tt.cred, tt.cred, tt.cred, tt.cred, holder, &holder, holder, inJSON, &log)
		if strings.Contains(shown, "canary.SECRET") || strings.Contains(shown, fmt.Sprintf("%x", "canary.SECRET")) {
			t.Errorf("%s is shown as %s", tt.want, shown)
		}
		if !strings.Contains(log.String(), `"cred":"`+strings.Trim(string(mustJSON(t, tt.want)), `"`)+`"`) {
			t.Errorf("logged as %s", &log)
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestStaticIsForOneHost(t *testing.T) {
	tests := []struct {
		host, asked string
		want        bool
	}{
		{"registry.example", "registry.example", true},
		{"Registry.Example:5000", "registry.example:5000", true},
		{"registry.example", "registry.example:5000", false},
		{"registry.example", "sub.registry.example", false},
		{"docker.io", "registry-1.docker.io", true},
		{"registry-1.docker.io", "index.docker.io", true},
		{"docker.io", "evil.docker.io", false},
	}
	for _, tt := range tests {
		c, err := Static(tt.host, Credential{Username: "alice"})(t.Context(), tt.asked)
		if err != nil || (c.Username == "alice") != tt.want {
			t.Errorf("Static(%q) for %q is %v, %v", tt.host, tt.asked, c, err)
		}
	}
}

func TestChainTakesTheFirstThatHasOneAndStopsAtAnError(t *testing.T) {
	locked := errors.New("locked")
	none := func(context.Context, string) (Credential, error) { return Credential{}, nil }
	fails := func(context.Context, string) (Credential, error) { return Credential{Username: "x"}, locked }
	user := func(name string) CredentialFunc { return Static("h", Credential{Username: name}) }
	tests := []struct {
		chain []CredentialFunc
		want  string
		err   error
	}{
		{nil, "", nil},
		{[]CredentialFunc{none, user("a"), user("b")}, "a", nil},
		{[]CredentialFunc{user("a"), fails}, "a", nil},
		{[]CredentialFunc{fails, user("a")}, "", locked},
	}
	for i, tt := range tests {
		c, err := Chain(tt.chain...)(t.Context(), "h")
		if err != tt.err || err == nil && c.Username != tt.want {
			t.Errorf("%d: got %v, %v", i, c, err)
		}
	}
}
