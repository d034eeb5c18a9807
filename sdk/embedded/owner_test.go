//go:build linux || darwin

package embedded_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/remote"
)

// place is a temporary directory whose path leaves room for a socket's name.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "berth-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// served is a layout that somebody owns.
type served struct {
	*testing.T
	dir      string
	registry *remote.Registry
	stop     func() error // may be called once; the end of the test calls it otherwise
}

// owners start the owner of a layout, each its own way.
var owners = map[string]func(t *testing.T, dir string) *served{
	"a shared plugin": func(t *testing.T, dir string) *served {
		return servedBy(t, host.Options{Layout: dir, Launcher: host.Self()})
	},
	"a private plugin": func(t *testing.T, dir string) *served {
		return servedBy(t, host.Options{Layout: dir, Launcher: host.Self(), Private: true})
	},
	"in process": func(t *testing.T, dir string) *served {
		return servedBy(t, host.Options{Layout: dir, Launcher: embedded.InProcess()})
	},
	"serve": serve,
}

func servedBy(t *testing.T, opts host.Options) *served {
	t.Helper()
	opts.IdleTimeout = -1 // a shared one ends with its last lease
	session, err := host.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	takesCalls(t, opts.Layout)
	return (&served{T: t, dir: opts.Layout, registry: registryAt(t, session.Endpoint()), stop: session.Close}).endWithTest()
}

// takesCalls waits until the owner of a layout does: one in process begins with that a moment later than with its own
// work.
func takesCalls(t *testing.T, dir string) {
	t.Helper()
	until(t, func() bool {
		owner, err := host.Attach(t.Context(), dir)
		if err == nil {
			owner.Close()
		}
		return err == nil
	})
}

func serve(t *testing.T, dir string) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	address, result := make(chan string, 1), make(chan error, 1)
	go func() {
		result <- embedded.Serve(ctx, embedded.ServeOptions{
			Layout: dir, Listen: plugin.ListenOptions{Address: "127.0.0.1:0"}, Ready: func(at plugin.Endpoint) { address <- at.Address },
		})
	}()
	s := &served{T: t, dir: dir, stop: func() error {
		cancel()
		return <-result
	}}
	select {
	case err := <-result:
		t.Fatal(err)
	case at := <-address:
		var err error
		if s.registry, err = remote.New(at, nil); err != nil {
			t.Fatal(err)
		}
	}
	return s.endWithTest()
}

func (s *served) endWithTest() *served {
	stop, stopped := s.stop, false
	s.stop = func() error {
		stopped = true
		s.registry.CloseIdleConnections()
		return stop()
	}
	s.Cleanup(func() {
		if stopped {
			return
		}
		if err := s.stop(); err != nil {
			s.Error(err)
		}
	})
	return s
}

// push sets a tag of app to an index of nothing that is like no other.
func (s *served) push(ctx context.Context, tag string) error { return s.pushTo(ctx, "app", tag) }

func (s *served) pushTo(ctx context.Context, name, tag string) error {
	repo, err := s.registry.Repository(name)
	if err != nil {
		return err
	}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"tag":%q}}`, tag)
	_, err = repo.PushManifest(ctx, []byte(raw), &berth.PushOptions{Tags: []string{tag}})
	return err
}

// litter uploads a blob that no manifest names.
func (s *served) litter(content string) digest.Digest {
	s.Helper()
	repo, err := s.registry.Repository("app")
	if err != nil {
		s.Fatal(err)
	}
	up, err := repo.NewUpload(s.Context(), nil)
	if err != nil {
		s.Fatal(err)
	}
	_, err = up.Write([]byte(content))
	d := digest.FromString(content)
	if _, commitErr := up.Commit(s.Context(), d); err != nil || commitErr != nil {
		s.Fatal(err, commitErr)
	}
	return d
}

// maintain gives access to a layout, for which it has more patience than Maintain has.
func maintain(t *testing.T, dir string) *embedded.Maintenance {
	t.Helper()
	var m *embedded.Maintenance
	err := berth.ErrLayoutInUse
	for end := time.Now().Add(time.Minute); errors.Is(err, berth.ErrLayoutInUse) && time.Now().Before(end); {
		m, err = embedded.Maintain(t.Context(), embedded.MaintainOptions{Layout: dir})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func blobFile(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", "sha256", d.Encoded())
}

func isThere(t *testing.T, file string) bool {
	t.Helper()
	_, err := os.Lstat(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func eachOwner(t *testing.T, test func(s *served)) {
	for name, start := range owners {
		t.Run(name, func(t *testing.T) { test(start(t, place(t))) })
	}
}

func (s *served) wantTags(want ...string) {
	s.Helper()
	repo, err := s.registry.Repository("app")
	if err != nil {
		s.Fatal(err)
	}
	var got []string
	for tag, err := range repo.Tags(s.Context(), "") {
		if err != nil {
			s.Fatal(err)
		}
		got = append(got, tag)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		s.Errorf("tags are %q, want %q", got, want)
	}
}

// modeOf is the durability with which a layout was last written.
func modeOf(t *testing.T, dir string) string {
	t.Helper()
	var epoch control.Epoch
	data, err := os.ReadFile(filepath.Join(dir, control.EpochFile))
	if err = errors.Join(err, json.Unmarshal(data, &epoch)); err != nil {
		t.Fatal(err)
	}
	return epoch.Mode
}
