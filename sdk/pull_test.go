package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
)

// destinations are the forms that an image is pulled to, and how it is read there.
var destinations = map[string]struct {
	to   func(path, name string) (source.Destination, error)
	from func(path, name string) source.Source
}{"layout": {source.ToLayout, source.Layout}, "archive": {source.ToArchive, source.Archive}}

func TestPullBringsAnImageToAnyForm(t *testing.T) {
	registry := open(t, sdk.Options{})
	want := push(t, registry, "one", "app/hello:v1,latest")
	for form, d := range destinations {
		for _, ref := range []string{"app/hello:v1", "app/hello", "app/hello@" + string(want.Digest), "app/hello:other@" + string(want.Digest)} {
			path := filepath.Join(t.TempDir(), "place")
			to, err := d.to(path, "v1")
			must(t, err)
			pulled, err := registry.Pull(t.Context(), ref, to, nil)
			must(t, errors.Join(err, to.Close()))
			if pulled.Descriptor.Digest != want.Digest || pulled.Stats.Sent != 3 || pulled.Tags != nil {
				t.Errorf("%s, %s: got %+v", form, ref, pulled)
			}
			again := open(t, sdk.Options{})
			back := d.from(path, "v1")
			if pushed, err := again.Push(t.Context(), back, "app:v1", nil); err != nil || pushed.Descriptor.Digest != want.Digest {
				t.Errorf("%s, %s: pushed again: %+v, %v", form, ref, pushed, err)
			}
			must(t, back.Close())
		}
	}
}

func TestPullFromARemoteRegistry(t *testing.T) {
	host := serveRemote(t, nil)
	registry := open(t, sdk.Options{})
	want := push(t, registry, "one", "app/hello:v1")
	_, err := registry.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app/hello"}})
	must(t, err)
	other := open(t, sdk.Options{})
	path := filepath.Join(t.TempDir(), "layout")
	to, err := source.ToLayout(path, "v1")
	must(t, err)
	pulled, err := other.Pull(t.Context(), host+"/app/hello:v1", to, nil)
	must(t, errors.Join(err, to.Close()))
	if got := listed(t, path); pulled.Descriptor.Digest != want.Digest || got["v1"] != want.Digest {
		t.Errorf("got %+v, and the layout lists %v", pulled, got)
	}
}

func TestPullErrorsLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	registry := open(t, sdk.Options{Layout: dir})
	damaged := build(t, "one")
	_, err := registry.Push(t.Context(), damaged.source(), "app:v1", nil)
	must(t, err)
	layer := filepath.Join(dir, "blobs", "sha256", damaged.layer.Digest.Encoded())
	must(t, os.Remove(layer))
	for form, d := range destinations {
		for ref, c := range map[string]struct {
			err  error
			says string
		}{
			"app:v2":             {berth.ErrManifestUnknown, "berth ls"},
			"none:v1":            {berth.ErrManifestUnknown, "none:v1"},
			"App:v1":             {berth.ErrNameInvalid, `"App:v1"`},
			"app:v 1":            {berth.ErrTagInvalid, `"app:v 1"`},
			"app@sha256:1":       {berth.ErrDigestInvalid, `"app@sha256:1"`},
			"app:v1":             {berth.ErrBlobUnknown, string(damaged.layer.Digest)},
			"127.0.0.1:1/app:v1": {nil, "127.0.0.1:1"},
		} {
			parent := t.TempDir()
			to, err := d.to(filepath.Join(parent, "place"), "v1")
			must(t, err)
			_, err = registry.Pull(t.Context(), ref, to, nil)
			if err == nil || (c.err != nil && !errors.Is(err, c.err)) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: got %v, want %v and %s", form, ref, err, c.err, c.says)
			}
			must(t, to.Close())
			if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
				t.Errorf("%s, %s: left behind: %v, %v", form, ref, left, err)
			}
		}
	}
}

// full is a place that has no room for the last step.
type full struct{ source.Destination }

var errFull = errors.New("no space left")

func (full) Commit(context.Context, v1.Descriptor) error { return errFull }

func TestPullReportsWhatTheDestinationSays(t *testing.T) {
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "app:v1")
	to, err := source.ToLayout(filepath.Join(t.TempDir(), "layout"), "v1")
	must(t, err)
	defer to.Close()
	_, err = registry.Pull(t.Context(), "app:v1", full{to}, nil)
	wantErr(t, "Pull", err, errFull)
	if err == nil || !strings.Contains(err.Error(), "app:v1") {
		t.Errorf("got %v", err)
	}
}

func TestPullThatIsCancelledLeavesNothing(t *testing.T) {
	registry := open(t, sdk.Options{})
	push(t, registry, strings.Repeat("a layer of some size ", 20_000), "app:v1")
	for form, d := range destinations {
		for n := 1; ; n++ {
			parent := t.TempDir()
			to, err := d.to(filepath.Join(parent, "place"), "v1")
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			var mu gosync.Mutex
			events := 0
			_, err = registry.Pull(ctx, "app:v1", to, &sdk.PullOptions{Progress: func(sync.Event) {
				mu.Lock()
				defer mu.Unlock()
				if events++; events == n {
					cancel()
				}
			}})
			cancel()
			must(t, to.Close())
			left, readErr := os.ReadDir(parent)
			must(t, readErr)
			if err == nil {
				if len(left) != 1 || events >= n {
					t.Errorf("%s: a pull that went through left %v", form, left)
				}
				break
			}
			wantErr(t, fmt.Sprintf("%s, cancelled at event %d", form, n), err, context.Canceled)
			if len(left) != 0 {
				t.Errorf("%s, cancelled at event %d: left behind: %v", form, n, left)
			}
		}
	}
}

func TestResolveTakesTagsAndDigests(t *testing.T) {
	host := serveRemote(t, nil)
	registry := open(t, sdk.Options{})
	want := push(t, registry, "one", "app/hello:v1,latest")
	_, err := registry.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app/hello"}})
	must(t, err)
	absent := string(digest.FromString("absent"))
	for ref, wantedErr := range map[string]error{
		"app/hello":                                nil,
		"app/hello:v1":                             nil,
		"app/hello@" + string(want.Digest):         nil,
		"app/hello:v9@" + string(want.Digest):      nil,
		host + "/app/hello:v1":                     nil,
		host + "/app/hello@" + string(want.Digest): nil,
		"app/hello:v9":                             berth.ErrManifestUnknown,
		"app/hello@" + absent:                      berth.ErrManifestUnknown,
		"app:v1":                                   berth.ErrManifestUnknown,
		host + "/app/hello:v9":                     berth.ErrManifestUnknown,
		"":                                         berth.ErrNameInvalid,
		"app/Hello":                                berth.ErrNameInvalid,
		"app/hello:":                               berth.ErrTagInvalid,
		"app/hello@sha256:1":                       berth.ErrDigestInvalid,
		"app/hello@":                               berth.ErrDigestInvalid,
		host + "/":                                 berth.ErrNameInvalid,
		"bad host:1/app":                           berth.ErrNameInvalid,
	} {
		got, err := registry.Resolve(t.Context(), ref)
		wantErr(t, ref, err, wantedErr)
		if wantedErr == nil && (got.Digest != want.Digest || got.Size != want.Size || got.MediaType != want.MediaType) {
			t.Errorf("%s: got %+v, %v", ref, got, err)
		}
	}
}

// An address that the system chose for this session means nothing to the user.
func TestErrorsAboutTheLayoutDoNotShowItsAddress(t *testing.T) {
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "app:v1")
	_, resolveErr := registry.Resolve(t.Context(), "app:v9")
	_, pinErr := registry.Pin(t.Context(), filepath.Join(t.TempDir(), "berth.lock"), "app:v9")
	var tagsErr error
	for _, tagsErr = range registry.Tags(t.Context(), "none") {
		break
	}
	for what, err := range map[string]error{"Resolve": resolveErr, "Pin": pinErr, "Tags": tagsErr} {
		if err == nil || strings.Contains(err.Error(), "127.0.0.1") || !strings.Contains(err.Error(), "; berth ls shows") {
			t.Errorf("%s: got %v", what, err)
		} else if n := strings.Count(err.Error(), "app:v9") + strings.Count(err.Error(), "none"); n != 1 {
			t.Errorf("%s: the reference is named %d times: %v", what, n, err)
		}
	}
}

func TestTagsAreListedInOrder(t *testing.T) {
	host := serveRemote(t, nil)
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "app/hello:v2,v10,latest,V1")
	_, err := registry.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app/hello"}})
	must(t, err)
	for _, name := range []string{"app/hello", host + "/app/hello"} {
		wantEqual(t, name, tags(t, registry, name), []string{"V1", "latest", "v10", "v2"})
	}
	for range registry.Tags(t.Context(), "app/hello") {
		break // a caller may stop
	}
}

func TestTagsOfWhatIsNoRepository(t *testing.T) {
	host := serveRemote(t, nil)
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "app:v1")
	for name, want := range map[string]error{
		"none":                                  berth.ErrNameUnknown,
		host + "/none":                          berth.ErrNameUnknown,
		"APP":                                   berth.ErrNameInvalid,
		"":                                      berth.ErrNameInvalid,
		"app:v1":                                berth.ErrNameInvalid,
		"app@sha256:1":                          berth.ErrDigestInvalid,
		"app@" + string(digest.FromString("x")): berth.ErrNameInvalid,
	} {
		seen := 0
		for tag, err := range registry.Tags(t.Context(), name) {
			seen++
			wantErr(t, name, err, want)
			if tag != "" {
				t.Errorf("%s: got the tag %s", name, tag)
			}
		}
		if seen != 1 {
			t.Errorf("%s: got %d errors", name, seen)
		}
	}
}
