package sdk_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/sync"
	"github.com/berthoci/berth/server"
)

// What was pushed before it began is brought, and then every push that matches.
func TestReplicateBringsWhatIsPushed(t *testing.T) {
	host, registry := serveRemote(t, nil), open(t, sdk.Options{})
	push(t, registry, "one", "app/one:v1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	synced, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		opts := &sdk.SyncOptions{To: host, Patterns: []string{"app/**:v*"}}
		ended <- registry.Replicate(ctx, opts, func(report *sync.Report, err error) {
			if err != nil {
				t.Error(err)
				return
			}
			for _, r := range report.Items {
				if r.Drifted() {
					synced <- r.Source
				}
			}
		})
	}()
	if got := <-synced; got != "app/one:v1" {
		t.Errorf("at first %s was brought", got)
	}
	push(t, registry, "other", "other:v1")
	push(t, registry, "two", "app/two:dev")
	push(t, registry, "two", "app/two:v2")
	if got := <-synced; got != "app/two:v2" {
		t.Errorf("after a push %s was brought", got)
	}
	push(t, registry, "three", "app/two:v2")
	if got := <-synced; got != "app/two:v2" {
		t.Errorf("after a tag moved %s was brought", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if len(synced) > 0 {
		t.Errorf("%s was brought too", <-synced)
	}
}

func TestReplicateOfWhatCannotBe(t *testing.T) {
	registry := open(t, sdk.Options{})
	for _, pattern := range []string{"App", "app:>=x", ""} {
		err := registry.Replicate(t.Context(), &sdk.SyncOptions{To: "registry.example", Patterns: []string{pattern}}, nil)
		if !errors.Is(err, berth.ErrNameInvalid) && !errors.Is(err, berth.ErrTagInvalid) {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

// until waits for a tag, after one sync after the other.
func until(t *testing.T, registry berth.Registry, repository, tag string, told <-chan error) {
	t.Helper()
	repo, err := registry.Repository(repository)
	must(t, err)
	for {
		if _, err := repo.Resolve(t.Context(), tag); err == nil {
			return
		}
		<-told
	}
}

// What has failed is tried again, also where another push has come through meanwhile; and what has not changed is not looked at.
func TestReplicateForgetsNothing(t *testing.T) {
	noLogin(t)
	var down atomic.Bool
	var asked atomic.Int32
	layout, err := ocilayout.Open(t.Context(), t.TempDir(), nil)
	must(t, err)
	handler := server.New(layout, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/app/first/manifests") {
			asked.Add(1)
		}
		if down.Load() && strings.Contains(r.URL.Path, "/app/bad/") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { srv.Close(); must(t, layout.Close()) })
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "app/first:v1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told, ended := make(chan error, 100), make(chan error, 1)
	go func() {
		opts := &sdk.SyncOptions{To: srv.Listener.Addr().String(), Patterns: []string{"app/**"}}
		ended <- registry.Replicate(ctx, opts, func(_ *sync.Report, err error) { told <- err })
	}()
	must(t, <-told)
	asked.Store(0)
	push(t, registry, "two", "app/good:v1")
	push(t, registry, "two", "app/good:v2")
	until(t, layout, "app/good", "v2", told)
	push(t, registry, "three", "app/good:v3")
	until(t, layout, "app/good", "v3", told)
	if n := asked.Load(); n > 0 {
		t.Errorf("what has not changed was asked about %d times", n)
	}
	down.Store(true)
	push(t, registry, "four", "app/bad:v1")
	for err := range told {
		if err != nil {
			wantErr(t, "while it is refused", err, berth.ErrDenied)
			break
		}
	}
	down.Store(false)
	push(t, registry, "five", "app/good:v4")
	until(t, layout, "app/bad", "v1", told)
	cancel()
	<-ended
}
