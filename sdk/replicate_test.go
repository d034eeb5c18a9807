package sdk_test

import (
	"context"
	"errors"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/sync"
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
