package sdk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/pin"
)

func lockFile(t *testing.T) string { return filepath.Join(t.TempDir(), "berth.lock") }

func TestPinWritesWhatReferencesName(t *testing.T) {
	host := serveRemote(t, nil)
	registry := open(t, sdk.Options{})
	one, two := push(t, registry, "one", "app:v1"), push(t, registry, "two", "base:latest")
	_, err := registry.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app"}})
	must(t, err)
	lock := lockFile(t)
	changes, err := registry.Pin(t.Context(), lock, "app:v1", "base", host+"/app:v1")
	must(t, err)
	if len(changes) != 3 || changes[0].New != one.Digest || changes[1].Reference != "base:latest" || changes[1].New != two.Digest || changes[2].New != one.Digest {
		t.Errorf("got %+v", changes)
	}
	f, err := pin.Load(lock)
	must(t, err)
	for ref, want := range map[string]string{"app:v1": string(one.Digest), "base:latest": string(two.Digest), host + "/app:v1": string(one.Digest)} {
		if got, ok := f.Pin(ref); !ok || string(got.Digest) != want {
			t.Errorf("%s: got %+v", ref, got)
		}
	}
}

func TestPinAgainTellsWhatMoved(t *testing.T) {
	registry, lock := open(t, sdk.Options{}), lockFile(t)
	one := push(t, registry, "one", "app:v1")
	_, err := registry.Pin(t.Context(), lock, "app:v1")
	must(t, err)
	before, err := os.ReadFile(lock)
	must(t, err)
	_, err = registry.Pin(t.Context(), lock, "app:v1")
	must(t, err)
	if after, err := os.ReadFile(lock); err != nil || string(after) != string(before) {
		t.Errorf("pinning the same again changed the file to %s, %v", after, err)
	}
	two := push(t, registry, "two", "app:v1")
	changes, err := registry.Pin(t.Context(), lock, "app:v1")
	if err != nil || len(changes) != 1 || changes[0].Old != one.Digest || changes[0].New != two.Digest {
		t.Errorf("got %+v, %v", changes, err)
	}
}

func TestPinKeepsWhatCouldBeResolved(t *testing.T) {
	registry, lock := open(t, sdk.Options{}), lockFile(t)
	one := push(t, registry, "one", "app:v1")
	changes, err := registry.Pin(t.Context(), lock, "app:v1", "app:v2", "BAD")
	wantErr(t, "the absent one", err, berth.ErrManifestUnknown)
	wantErr(t, "the bad one", err, berth.ErrNameInvalid)
	if len(changes) != 1 || changes[0].New != one.Digest {
		t.Errorf("got %+v", changes)
	}
	f, err := pin.Load(lock)
	must(t, err)
	if got := f.Pins(); len(got) != 1 || got[0].Digest != one.Digest {
		t.Errorf("the file has %+v", got)
	}
}

func TestPinThatFindsNothingMakesNoFile(t *testing.T) {
	registry, lock := open(t, sdk.Options{}), lockFile(t)
	_, err := registry.Pin(t.Context(), lock, "app:v1")
	wantErr(t, "Pin", err, berth.ErrManifestUnknown)
	_, err = registry.Pin(t.Context(), lock)
	must(t, err)
	if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a lock file: %v", err)
	}
}

func TestPinLeavesABrokenFileAsItIs(t *testing.T) {
	registry, lock := open(t, sdk.Options{}), lockFile(t)
	push(t, registry, "one", "app:v1")
	const broken = "version: 1\npins:\n<<<<<<< ours\n"
	must(t, os.WriteFile(lock, []byte(broken), 0o644))
	_, pinErr := registry.Pin(t.Context(), lock, "app:v1")
	_, verifyErr := registry.VerifyPins(t.Context(), lock)
	for what, err := range map[string]error{"Pin": pinErr, "VerifyPins": verifyErr} {
		wantErr(t, what, err, pin.ErrInvalid)
		if err == nil || !strings.Contains(err.Error(), lock+":3") {
			t.Errorf("%s: %v does not tell file and line", what, err)
		}
	}
	if after, err := os.ReadFile(lock); err != nil || string(after) != broken {
		t.Errorf("the file is now %q, %v", after, err)
	}
}

func TestPinWhereNoFileCanBe(t *testing.T) {
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "app:v1")
	lock := filepath.Join(t.TempDir(), "absent", "berth.lock")
	changes, err := registry.Pin(t.Context(), lock, "app:v1", "app:v2")
	if !errors.Is(err, os.ErrNotExist) || !errors.Is(err, berth.ErrManifestUnknown) || changes != nil {
		t.Errorf("got %+v, %v", changes, err)
	}
}

func TestVerifyPinsTellsDrift(t *testing.T) {
	registry, lock := open(t, sdk.Options{}), lockFile(t)
	one := push(t, registry, "one", "app:v1")
	push(t, registry, "base", "base:v1")
	_, err := registry.Pin(t.Context(), lock, "app:v1", "base:v1")
	must(t, err)
	if drifts, err := registry.VerifyPins(t.Context(), lock); err != nil || len(drifts) != 0 {
		t.Errorf("before: got %+v, %v", drifts, err)
	}
	two := push(t, registry, "two", "app:v1")
	repo, err := registry.Repository("base")
	must(t, err)
	must(t, repo.Untag(t.Context(), "v1", nil))
	drifts, err := registry.VerifyPins(t.Context(), lock)
	must(t, err)
	if len(drifts) != 2 || drifts[0].Pinned != one.Digest || drifts[0].Found != two.Digest || drifts[1].Found != "" {
		t.Errorf("got %+v", drifts)
	}
}

func TestVerifyPinsWithoutAFile(t *testing.T) {
	lock := lockFile(t)
	_, err := open(t, sdk.Options{}).VerifyPins(t.Context(), lock)
	wantErr(t, "VerifyPins", err, os.ErrNotExist)
	if err == nil || strings.Count(err.Error(), lock) != 1 || !strings.HasSuffix(err.Error(), "berth pin add makes one") {
		t.Errorf("got %v", err)
	}
}

func TestVerifyPinsTellsDriftBesideWhatCouldNotBeAsked(t *testing.T) {
	registry, lock := open(t, sdk.Options{}), lockFile(t)
	push(t, registry, "one", "app:v1")
	_, err := registry.Pin(t.Context(), lock, "app:v1")
	must(t, err)
	push(t, registry, "two", "app:v1")
	content, err := os.ReadFile(lock)
	must(t, err)
	unreachable := strings.ReplaceAll(string(content), "  app:v1:", "  127.0.0.1:1/app:v1:")
	must(t, os.WriteFile(lock, append(content, unreachable[strings.Index(unreachable, "  127"):]...), 0o644))
	drifts, err := registry.VerifyPins(t.Context(), lock)
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1/app:v1") || len(drifts) != 1 {
		t.Errorf("got %+v, %v", drifts, err)
	}
}

func TestPinThatIsCancelledMakesNoFile(t *testing.T) {
	registry, lock := open(t, sdk.Options{}), lockFile(t)
	push(t, registry, "one", "app:v1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := registry.Pin(ctx, lock, "app:v1")
	wantErr(t, "Pin", err, context.Canceled)
	if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a lock file: %v", err)
	}
}
