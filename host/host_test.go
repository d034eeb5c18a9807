package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin"
)

// fake is a launcher, its plugin and its lease, with a call that fails.
type fake struct {
	fails string
	calls []string
	cfg   plugin.Config
	done  chan struct{}
}

func (f *fake) call(name string) error {
	f.calls = append(f.calls, name)
	if f.fails == name {
		return fmt.Errorf("%s: %w", name, berth.ErrLayoutInUse)
	}
	return nil
}

func (f *fake) Launch(_ context.Context, cfg plugin.Config, _ *slog.Logger) (Plugin, error) {
	f.cfg = cfg
	return fakePlugin{f}, f.call("launch")
}

type fakePlugin struct{ *fake }

func (p fakePlugin) GC(context.Context, *berth.GCOptions) (berth.GCReport, error) {
	return berth.GCReport{}, p.call("gc")
}
func (p fakePlugin) Fsck(context.Context, *berth.FsckOptions) (berth.FsckReport, error) {
	return berth.FsckReport{}, p.call("fsck")
}
func (p fakePlugin) Checkout(context.Context) (func(context.Context) error, error) {
	return func(context.Context) error { return p.call("done") }, p.call("checkout")
}

func (p fakePlugin) Hello(context.Context) (plugin.Info, error) {
	return plugin.Info{PID: 42}, p.call("hello")
}
func (p fakePlugin) Flush(context.Context) error { return p.call("flush") }
func (p fakePlugin) Close() error                { return p.call("close plugin") }
func (p fakePlugin) Lease(context.Context) (plugin.Lease, error) {
	if err := p.call("lease"); err != nil {
		return nil, err
	}
	return fakeLease(p), nil
}

type fakeLease struct{ *fake }

func (l fakeLease) Listen(_ context.Context, opts plugin.ListenOptions) (plugin.Endpoint, error) {
	return plugin.Endpoint{Address: "127.0.0.1:1", Token: fmt.Sprint(opts.ReadOnly)}, l.call("listen")
}
func (l fakeLease) Done() <-chan struct{} { return l.done }
func (l fakeLease) Close() error          { return l.call("close lease") }

func TestOpenGoesStepByStep(t *testing.T) {
	f := &fake{done: make(chan struct{})}
	s, err := Open(t.Context(), Options{Layout: "some/dir", Launcher: f, Durability: "power", Listen: plugin.ListenOptions{ReadOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(f.cfg.Layout) || !f.cfg.Private || f.cfg.Durability != "power" {
		t.Errorf("launched with %+v", f.cfg)
	}
	if e := s.Endpoint(); e.Address != "127.0.0.1:1" || e.Token != "true" || s.Info().PID != 42 {
		t.Errorf("endpoint %+v, info %+v", e, s.Info())
	}
	if err := errors.Join(s.Flush(t.Context()), s.Close()); err != nil {
		t.Error(err)
	}
	want := []string{"launch", "hello", "lease", "listen", "flush", "close lease", "close plugin"}
	if !slices.Equal(f.calls, want) {
		t.Errorf("called %q, want %q", f.calls, want)
	}
}

// Whatever step fails, what was begun before it is ended.
func TestOpenThatFailsLeavesNothing(t *testing.T) {
	for step, ends := range map[string][]string{
		"launch": nil,
		"hello":  {"close plugin"},
		"lease":  {"close plugin"},
		"listen": {"close lease", "close plugin"},
	} {
		t.Run(step, func(t *testing.T) {
			f := &fake{fails: step}
			_, err := Open(t.Context(), Options{Layout: "dir", Launcher: f})
			if !errors.Is(err, berth.ErrLayoutInUse) {
				t.Errorf("got %v", err)
			}
			after := f.calls[slices.Index(f.calls, step)+1:]
			if !slices.Equal(after, ends) {
				t.Errorf("after the failure: %q, want %q", after, ends)
			}
		})
	}
}

func TestAPluginGetsNoSecretsOfTheHost(t *testing.T) {
	t.Setenv("REGISTRY_PASSWORD", "canary")
	t.Setenv("DOCKER_AUTH_CONFIG", "canary")
	t.Setenv("HOME", "/home/x")
	env := environ()
	if !slices.Contains(env, "HOME=/home/x") {
		t.Errorf("HOME is missing in %q", env)
	}
	if strings.Contains(strings.Join(env, "\n"), "canary") {
		t.Errorf("a secret is passed on: %q", env)
	}
}

func TestBinariesThatAreNotThere(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, name := range []string{"berth", "/absent/berth"} {
		_, err := Binary(name).Launch(t.Context(), plugin.Config{Layout: "x"}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "name its path") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A program whose main does not call embedded.Main would start itself for ever.
func TestSelfDoesNotStartItselfFromAPlugin(t *testing.T) {
	variable := plugin.Handshake()
	t.Setenv(variable.MagicCookieKey, variable.MagicCookieValue)
	_, err := Self().Launch(t.Context(), plugin.Config{Layout: "x"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "embedded.Main()") {
		t.Errorf("got %v", err)
	}
}

func TestARunnerThatWasKilledDoesNotStart(t *testing.T) {
	r, err := newRunner(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if r.ID() != "" {
		t.Errorf("it has the ID %q before it runs", r.ID())
	}
	if err := r.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v", err)
	}
}

func TestARunnerKeepsTheFirstWords(t *testing.T) {
	r := &cmdRunner{}
	w := (*firstWords)(r)
	for range 100 {
		if n, err := fmt.Fprintln(w, "the reason\n", strings.Repeat("x", 100)); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if len(r.words) != maxFirstWords || !strings.HasPrefix(string(r.words), "the reason\n") {
		t.Errorf("%d bytes are kept", len(r.words))
	}
}

func TestScratchThatWasLeftIsSweptAway(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	t.Setenv("TMP", folder)
	if os.TempDir() != folder || len(folder) > maxScratch {
		folder = "/tmp"
	}
	old := time.Now().Add(-2 * staleScratch)
	left := filepath.Join(folder, scratchPrefix+"left-by-a-test")
	file := filepath.Join(folder, scratchPrefix+"file-of-a-test")
	if err := errors.Join(os.MkdirAll(filepath.Join(left, "plugin-dir1"), 0o700), os.WriteFile(file, nil, 0o600),
		os.Chtimes(left, old, old), os.Chtimes(file, old, old)); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	fresh, err := makeScratch()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a stale directory is there: %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file that is not ours was removed: %v", err)
	}
	if again, err := makeScratch(); err != nil || again == fresh {
		t.Errorf("got %q, %v", again, err)
	} else {
		os.RemoveAll(again)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("one in use was removed: %v", err)
	}
}
