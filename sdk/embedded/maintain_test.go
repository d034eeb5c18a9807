//go:build linux || darwin

package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk/embedded"
)

func TestMaintainAsksTheOwner(t *testing.T) {
	eachOwner(t, func(s *served) {
		garbage := s.litter("garbage")
		if err := s.push(s.Context(), "v1"); err != nil {
			s.Fatal(err)
		}
		m := maintain(s.T, s.dir)
		report, err := m.GC(s.Context(), nil)
		if err != nil || report.Spared != 1 || report.Blobs != 0 || !isThere(s.T, blobFile(s.dir, garbage)) {
			s.Errorf("with grace: got %+v, %v", report, err)
		}
		report, err = m.GC(s.Context(), &berth.GCOptions{Grace: -1})
		if err != nil || report.Blobs != 1 || report.Left != 1 || isThere(s.T, blobFile(s.dir, garbage)) {
			s.Errorf("without grace: got %+v, %v", report, err)
		}
		if report, err := m.Fsck(s.Context(), nil); err != nil || report.Tags != 1 || len(report.Problems) != 0 {
			s.Errorf("got %+v, %v", report, err)
		}
		if err := errors.Join(m.Flush(s.Context()), m.Close()); err != nil {
			s.Error(err)
		}
		if err := s.push(s.Context(), "v2"); err != nil {
			s.Errorf("after all that: %v", err)
		}
	})
}

// A rule's error is the contract's, whoever applies it.
func TestMaintainPassesErrorsOn(t *testing.T) {
	check := func(t *testing.T, m *embedded.Maintenance) {
		_, err := m.GC(t.Context(), &berth.GCOptions{Keep: []berth.KeepRule{{Repositories: "[", Newest: 1}}})
		if !errors.Is(err, berth.ErrNameInvalid) {
			t.Errorf("got %v", err)
		}
	}
	eachOwner(t, func(s *served) { check(s.T, maintain(s.T, s.dir)) })
	check(t, maintain(t, place(t)))
}

func TestACheckoutHoldsPushesUntilItIsDone(t *testing.T) {
	eachOwner(t, func(s *served) {
		if err := s.push(s.Context(), "v1"); err != nil {
			s.Fatal(err)
		}
		m := maintain(s.T, s.dir)
		done, err := m.Checkout(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		// Nothing else writes now: what another program takes out of index.json is gone.
		if err := os.WriteFile(filepath.Join(s.dir, "index.json"), []byte(`{"schemaVersion":2,"manifests":[]}`), 0o644); err != nil {
			s.Fatal(err)
		}
		pushed := make(chan error, 1)
		go func() { pushed <- s.push(context.WithoutCancel(s.Context()), "v2") }()
		select {
		case err := <-pushed:
			s.Errorf("a push did not wait: %v", err)
			pushed <- err
		case <-time.After(50 * time.Millisecond):
		}
		if err := done(s.Context()); err != nil {
			s.Error(err)
		}
		if err := <-pushed; err != nil {
			s.Error(err)
		}
		s.wantTags("v2")
	})
}

// Whoever holds a directory and goes, holds it no longer.
func TestACheckoutEndsWithItsHolder(t *testing.T) {
	eachOwner(t, func(s *served) {
		m := maintain(s.T, s.dir)
		if _, err := m.Checkout(s.Context()); err != nil {
			s.Fatal(err)
		}
		if err := m.Close(); err != nil {
			s.Error(err)
		}
		if err := s.push(s.Context(), "v1"); err != nil {
			s.Error(err)
		}
	})
}

// Others do not keep an owner from ending: not by a checkout, not by waiting for one, and not by being
// connected.
func TestAnOwnerEndsThoughOthersAreAttached(t *testing.T) {
	eachOwner(t, func(s *served) {
		if strings.HasSuffix(s.Name(), "a_shared_plugin") {
			s.Skip("it belongs to them as well")
		}
		holder, waiting := maintain(s.T, s.dir), maintain(s.T, s.dir)
		done, err := holder.Checkout(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		result := make(chan error, 1)
		go func() {
			_, err := waiting.Checkout(context.Background())
			result <- err
		}()
		if err := s.stop(); err != nil {
			s.Error(err)
		}
		if err := done(s.Context()); err == nil {
			s.Error("the holder was not told")
		}
		if err := <-result; err == nil {
			s.Error("who waited has a directory of nobody")
		}
		if isThere(s.T, filepath.Join(s.dir, control.SocketFile)) {
			s.Error("the socket is left")
		}
		atRest(s.T, s.dir)
	})
}

func TestMaintainAtRest(t *testing.T) {
	dir := place(t)
	for range 2 {
		m := maintain(t, dir)
		if report, err := m.Fsck(t.Context(), &berth.FsckOptions{Repair: true}); err != nil || len(report.Problems) > 0 {
			t.Errorf("got %+v, %v", report, err)
		}
		if _, err := m.GC(t.Context(), nil); err != nil {
			t.Error(err)
		}
		done, err := m.Checkout(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := done(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if _, err := m.Checkout(t.Context()); err != nil { // is not ended
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if _, err := m.Fsck(t.Context(), nil); err == nil {
			t.Error("what is closed is checked")
		}
		atRest(t, dir)
	}
}

func TestMaintainRebuilds(t *testing.T) {
	dir := place(t)
	s := serve(t, dir)
	if err := s.push(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	rebuild := embedded.MaintainOptions{Layout: dir, Rebuild: true}
	if _, err := embedded.Maintain(t.Context(), rebuild); !errors.Is(err, berth.ErrLayoutInUse) {
		t.Errorf("while it is served: got %v", err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	m, err := embedded.Maintain(t.Context(), rebuild)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if report, err := m.Fsck(t.Context(), nil); err != nil || report.Tags != 1 || len(report.Problems) != 0 {
		t.Errorf("got %+v, %v", report, err)
	}
}

// An owner that has no socket cannot be asked; it is waited for, for a while.
func TestMaintainWhereTheOwnerDoesNotListen(t *testing.T) {
	dir := place(t)
	layout, err := ocilayout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = embedded.Maintain(t.Context(), embedded.MaintainOptions{Layout: dir})
	if !errors.Is(err, berth.ErrLayoutInUse) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := embedded.Maintain(ctx, embedded.MaintainOptions{Layout: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	ended := make(chan error, 1)
	go func() {
		time.Sleep(100 * time.Millisecond)
		ended <- layout.Close()
	}()
	if err := errors.Join(maintain(t, dir).Close(), <-ended); err != nil {
		t.Errorf("one that ends meanwhile: %v", err)
	}
}

// An owner that has just begun is found, and one that is just ending is no obstacle.
func TestMaintainWhileOwnersComeAndGo(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 1
	}
	for name, start := range owners {
		t.Run(name, func(t *testing.T) {
			dir := place(t)
			for range rounds {
				s := start(t, dir)
				m := maintain(t, dir)
				_, err := m.Fsck(t.Context(), nil)
				if err = errors.Join(err, m.Close()); err != nil {
					t.Error(err)
				}
				stopped := make(chan error, 1)
				go func() { stopped <- s.stop() }()
				maintain(t, dir).Close()
				if err := <-stopped; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// withoutSocket is a layout whose socket cannot be made.
func withoutSocket(t *testing.T) (dir string) {
	t.Helper()
	dir = place(t)
	atRest(t, dir)
	if err := os.MkdirAll(filepath.Join(dir, control.SocketFile, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A registry that cannot make its socket is reached another way.
func TestWithoutASocket(t *testing.T) {
	for name, start := range owners {
		t.Run(name, func(t *testing.T) {
			dir := withoutSocket(t)
			s := start(t, dir)
			if err := s.push(t.Context(), "v1"); err != nil {
				t.Error(err)
			}
			m := maintain(t, dir)
			if report, err := m.Fsck(t.Context(), nil); err != nil || report.Tags != 1 {
				t.Errorf("got %+v, %v", report, err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:5000": "", "127.1.2.3:0": "", "localhost:65535": "", "[::1]:5000": "",
		"":                "want HOST:PORT",
		"nowhere":         "want HOST:PORT",
		"127.0.0.1":       "want HOST:PORT",
		"127.0.0.1:":      "want HOST:PORT",
		"127.0.0.1:-1":    "want HOST:PORT",
		"127.0.0.1:65536": "want HOST:PORT",
		"0.0.0.0:5000":    "only loopback",
		":5000":           "only loopback",
		"example.com:80":  "only loopback",
	} {
		err := embedded.CheckAddress(address, embedded.Guard{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", address, err, want)
		}
		if denied := errors.Is(err, berth.ErrDenied); denied != (want == "only loopback") {
			t.Errorf("%q: got %v", address, err)
		}
		if want == "" || address == "" { // which is any address that is free
			continue
		}
		err = embedded.Serve(t.Context(), embedded.ServeOptions{Layout: filepath.Join(t.TempDir(), "new"), Listen: plugin.ListenOptions{Address: address}})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("address %q: ", address)) {
			t.Errorf("%q is served: %v", address, err)
		}
	}
}

func TestTheSocketOfAKilledOwnerIsReplaced(t *testing.T) {
	dir := place(t)
	atRest(t, dir)
	listener, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(place(t), "left")
	if err := errors.Join(os.Link(filepath.Join(dir, control.SocketFile), left), listener.Close(), os.Rename(left, filepath.Join(dir, control.SocketFile))); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dir)
	m := maintain(t, dir)
	if _, err := m.Checkout(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func TestDurabilityIsTheOwners(t *testing.T) {
	for name, launcher := range launchers() {
		t.Run(name, func(t *testing.T) {
			for mode, want := range map[string]string{"": "process", "process": "process", "power": "power"} {
				dir := place(t)
				opts := launcher.options(dir)
				opts.Durability = mode
				s, err := host.Open(t.Context(), opts)
				if err != nil {
					t.Fatal(err)
				}
				one := &served{T: t, dir: dir, registry: registryAt(t, s.Endpoint())}
				if err := errors.Join(one.push(t.Context(), "v1"), s.Close()); err != nil {
					t.Error(err)
				}
				atRest(t, dir)
				if got := modeOf(t, dir); got != want {
					t.Errorf("durability %q: it is written with %q, want %q", mode, got, want)
				}
			}
			opts := launcher.options(place(t))
			opts.Durability = "hope"
			_, err := host.Open(t.Context(), opts)
			if err == nil || !strings.Contains(err.Error(), "hope") || !strings.Contains(err.Error(), "process or power") {
				t.Errorf("got %v", err)
			}
		})
	}
}
