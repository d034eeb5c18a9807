package server_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
	"github.com/berthoci/berth/server"
)

// as is a client of a server that gives tokens, for one of its users; nobody is anonymous.
func (l *live) as(user, password string) *remote.Registry {
	l.Helper()
	host := l.Listener.Addr().String()
	opts := &remote.Options{Credentials: auth.Static(host, auth.Credential{Username: user, Password: password})}
	if user == "" {
		opts = nil
	}
	registry, err := remote.New(host, opts)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(registry.CloseIdleConnections)
	return registry
}

// tries is what somebody does in a repository, by the name of what is wanted for it.
var tries = map[string]func(*testing.T, berth.Repository) error{
	"pull": func(t *testing.T, repo berth.Repository) error {
		_, err := repo.FetchManifest(t.Context(), "v1", nil)
		return err
	},
	"push": func(t *testing.T, repo berth.Repository) error {
		up, err := repo.NewUpload(t.Context(), nil)
		if err != nil {
			return err
		}
		defer up.Close()
		if _, err := io.WriteString(up, "content"); err != nil {
			return err
		}
		if _, err := up.Commit(t.Context(), digest.FromString("content")); err != nil {
			return err
		}
		_, err = repo.PushManifest(t.Context(), []byte(emptyIndex), &berth.PushOptions{Tags: []string{"v2"}})
		return err
	},
	"delete": func(t *testing.T, repo berth.Repository) error { return repo.Untag(t.Context(), "v2", nil) },
}

// The client of this module gets the tokens by itself, and knows afterwards why it may not.
func TestOurOwnClient(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0", &server.Options{Authorizer: issuer(t)})
	l.Start()
	first := l.as("ada", "ada's own")
	for _, tag := range []string{"v1", "v2"} {
		repo, err := first.Repository("app/hello")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := repo.PushManifest(t.Context(), []byte(emptyIndex), &berth.PushOptions{Tags: []string{tag}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		user, repository, try string
		want                  error
	}{
		{"bob", "app/hello", "pull", nil},
		{"bob", "app/hello", "push", berth.ErrDenied},
		{"bob", "app/hello", "delete", berth.ErrDenied},
		{"bob", "bob/x", "push", nil},
		{"bob", "bob/x", "delete", berth.ErrDenied},
		{"bob", "other", "pull", berth.ErrDenied},
		{"", "app/hello", "pull", berth.ErrUnauthorized},
		{"", "public/x", "pull", berth.ErrManifestUnknown},
		{"", "public/x", "push", berth.ErrUnauthorized},
		{"ada", "app/hello", "push", nil},
		{"ada", "app/hello", "delete", nil},
	} {
		repo, err := l.as(tt.user, tt.user+"'s own").Repository(tt.repository)
		if err != nil {
			t.Fatal(err)
		}
		err = tries[tt.try](t, repo)
		if !errors.Is(err, tt.want) || err != nil && strings.Contains(err.Error(), "'s own") {
			t.Errorf("%s: %s %s: got %v, want %v", tt.user, tt.try, tt.repository, err, tt.want)
		}
	}
}

func TestOurOwnClientListsTheCatalog(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0", &server.Options{Authorizer: issuer(t)})
	l.Start()
	for user, want := range map[string]error{"ada": nil, "bob": berth.ErrDenied, "": berth.ErrUnauthorized} {
		for _, err := range l.as(user, user+"'s own").Repositories(t.Context(), "") {
			if !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", user, err, want)
			}
		}
		if err := l.as(user, user+"'s own").Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	err := l.as("ada", "wrong").Ping(t.Context())
	if !errors.Is(err, berth.ErrUnauthorized) || strings.Contains(err.Error(), "wrong:") {
		t.Errorf("a wrong password: %v", err)
	}
}

// A client that asks for a mount gets one where it may pull, and uploads where it may not.
func TestOurOwnClientMounts(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0", &server.Options{Authorizer: issuer(t)})
	l.Start()
	d := digest.FromString("shared")
	for _, from := range []string{"app/hello", "app/other", "app/mine"} {
		repo, err := l.as("ada", "ada's own").Repository(from)
		if err != nil {
			t.Fatal(err)
		}
		up, err := repo.NewUpload(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(up, "shared"); err != nil {
			t.Fatal(err)
		}
		if _, err := up.Commit(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	for target, mounted := range map[string]bool{"bob/x": true, "bob/y": false} {
		from := map[bool]string{true: "app/hello", false: "other"}[mounted]
		repo, err := l.as("bob", "bob's own").Repository(target)
		if err != nil {
			t.Fatal(err)
		}
		up, err := repo.NewUpload(t.Context(), &berth.UploadOptions{Mount: d, From: from})
		if errors.Is(err, berth.ErrMounted) != mounted || !mounted && err != nil {
			t.Errorf("from %s: %v", from, err)
		}
		if up != nil {
			up.Cancel(t.Context())
		}
	}
}
