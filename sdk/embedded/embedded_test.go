package embedded_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/internal/registrytest"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// The test binary is a tool that has berth embedded: started as a plugin, it is one.
func TestMain(m *testing.M) {
	embedded.Main()
	actAsHost()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // a plugin under the race detector would linger for a second
	os.Exit(m.Run())
}

const (
	hostVariable    = "BERTH_TEST_HOST_OF"
	privateVariable = "BERTH_TEST_PRIVATE"
)

// actAsHost is the life of a host that will be killed: it opens a layout, tells the plugin's process
// number, and waits.
func actAsHost() {
	dir := os.Getenv(hostVariable)
	if dir == "" {
		return
	}
	s, err := host.Open(context.Background(), host.Options{Layout: dir, Launcher: host.Self(), Private: os.Getenv(privateVariable) != "", IdleTimeout: -1})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.Info().PID)
	select {}
}

// launch is a way to come by a plugin.
type launch struct {
	host.Launcher
	private bool
}

// launchers are all of them: what they launch behaves the same.
func launchers() map[string]launch {
	return map[string]launch{
		"plugin":             {host.Self(), false},
		"private plugin":     {host.Self(), true},
		"in process":         {embedded.InProcess(), false},
		"in process private": {embedded.InProcess(), true},
	}
}

func (l launch) options(dir string) host.Options {
	return host.Options{Layout: dir, Launcher: l.Launcher, Private: l.private, Listen: plugin.ListenOptions{Token: rand.Text()}, IdleTimeout: -1}
}

// openSession opens a layout, which is at rest again when the test has ended.
func openSession(t *testing.T, l launch, dir string) *host.Session {
	t.Helper()
	s, err := host.Open(t.Context(), l.options(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		atRest(t, dir)
	})
	return s
}

// atRest makes sure that nobody owns a layout, or will in a moment.
func atRest(t *testing.T, dir string) {
	t.Helper()
	var layout *ocilayout.Layout
	err := berth.ErrLayoutInUse
	for end := time.Now().Add(time.Minute); errors.Is(err, berth.ErrLayoutInUse) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		layout, err = ocilayout.Open(context.WithoutCancel(t.Context()), dir, nil)
	}
	if err != nil {
		t.Error(err)
		return
	}
	layout.Close()
}

func registryAt(t *testing.T, e plugin.Endpoint) *remote.Registry {
	t.Helper()
	token := auth.Static(e.Address, auth.Credential{Username: "berth", Password: e.Token})
	registry, err := remote.New(e.Address, &remote.Options{Credentials: token})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

func TestContract(t *testing.T) {
	for name, launcher := range launchers() {
		t.Run(name, func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) berth.Registry {
				return registryAt(t, openSession(t, launcher, t.TempDir()).Endpoint())
			})
		})
	}
}

func TestHelloTellsWhoItIs(t *testing.T) {
	for name, launcher := range launchers() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			info := openSession(t, launcher, dir).Info()
			if info.Layout != dir || info.PID == 0 || info.Version == "" {
				t.Errorf("got %+v", info)
			}
			if own := info.PID == os.Getpid(); own != strings.HasPrefix(name, "in process") {
				t.Errorf("the plugin's process is %d, this one %d", info.PID, os.Getpid())
			}
		})
	}
}

func TestTheTokenIsNeeded(t *testing.T) {
	for name, launcher := range launchers() {
		t.Run(name, func(t *testing.T) {
			e := openSession(t, launcher, t.TempDir()).Endpoint()
			if err := registryAt(t, e).Ping(t.Context()); err != nil {
				t.Errorf("with the token: %v", err)
			}
			for _, wrong := range []string{"", "wrong"} {
				e.Token = wrong
				if err := registryAt(t, e).Ping(t.Context()); !errors.Is(err, berth.ErrUnauthorized) {
					t.Errorf("with token %q: got %v", wrong, err)
				}
			}
		})
	}
}

// An error that the plugin meets before the handshake comes to the host with its code and text.
func TestALayoutInUse(t *testing.T) {
	for name, launcher := range launchers() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			layout, err := ocilayout.Open(t.Context(), dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer layout.Close()
			_, err = host.Open(t.Context(), launcher.options(dir))
			if !errors.Is(err, berth.ErrLayoutInUse) {
				t.Errorf("got %v, want ErrLayoutInUse", err)
			}
		})
	}
}

func TestAnOpenThatIsCancelled(t *testing.T) {
	for name, launcher := range launchers() {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			dir := t.TempDir()
			if _, err := host.Open(ctx, launcher.options(dir)); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
			openSession(t, launcher, dir) // nobody holds it
		})
	}
}

func TestCloseLeavesAWholeLayout(t *testing.T) {
	for name, launcher := range launchers() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for range 2 {
				opts := launcher.options(dir)
				opts.Logger = slog.Default()
				s, err := host.Open(t.Context(), opts)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if !s.Current().Ended() {
					t.Error("the session's hold has not ended")
				}
				if _, err := os.Stat(filepath.Join(dir, "index.json")); err != nil {
					t.Error(err)
				}
			}
			atRest(t, dir)
		})
	}
}

func TestABinaryWithARelativePath(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(own))
	for _, private := range []bool{false, true} {
		openSession(t, launch{host.Binary("." + string(filepath.Separator) + filepath.Base(own)), private}, t.TempDir())
	}
}

func TestABinaryThatIsNoPlugin(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "berth")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho 'wrong program' >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{script, filepath.Join(dir, "absent"), "no-such-berth-on-path"} {
		_, err := host.Open(t.Context(), host.Options{Layout: t.TempDir(), Launcher: host.Binary(name)})
		if err == nil {
			t.Errorf("%s was started", name)
			continue
		}
		t.Log(err)
	}
}
