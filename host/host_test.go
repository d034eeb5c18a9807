package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// fake is a launcher, its plugin and its leases, with a call that fails.
type fake struct {
	plugin.Controller // those calls that no test makes
	fails             string
	info              plugin.Info

	mu     sync.Mutex // guards the fields below
	calls  []string
	start  Start
	asks   []plugin.LeaseOptions
	leases []*fakeLease
	taken  string // an address that is taken
}

func (f *fake) call(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, name)
	if f.fails == name {
		return fmt.Errorf("%s: %w", name, berth.ErrLayoutInvalid)
	}
	return nil
}

func (f *fake) Launch(_ context.Context, start Start) (Plugin, error) {
	if start.Lock != nil {
		start.Lock.Close()
	}
	f.mu.Lock()
	f.start = start
	if f.info.Layout == "" {
		f.info = plugin.Info{PID: 42, Layout: start.Layout}
		f.info.Identity, _ = control.Identify(start.Layout)
	}
	f.mu.Unlock()
	return fakePlugin{f}, f.call("launch")
}

type fakePlugin struct{ *fake }

func (p fakePlugin) Hello(context.Context) (plugin.Info, error) { return p.info, p.call("hello") }
func (p fakePlugin) Flush(context.Context) error                { return p.call("flush") }
func (p fakePlugin) Close() error                               { return p.call("close plugin") }
func (p fakePlugin) Lease(_ context.Context, asks plugin.LeaseOptions) (plugin.Lease, error) {
	if err := p.call("lease"); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = append(p.asks, asks)
	at := plugin.Endpoint{Address: asks.Listen.Address, Token: asks.Listen.Token}
	if at.Address == p.taken && at.Address != "" {
		return nil, plugin.ErrAddressInUse
	}
	if at.Address == "" {
		at.Address = fmt.Sprintf("127.0.0.1:%d", len(p.asks))
	}
	l := &fakeLease{fake: p.fake, who: p.info, at: at, ending: make(chan struct{}), done: make(chan struct{})}
	p.leases = append(p.leases, l)
	return l, nil
}

type fakeLease struct {
	*fake
	who          plugin.Info
	at           plugin.Endpoint
	ending, done chan struct{}
	closing      sync.Once
}

func (l *fakeLease) Grant() plugin.Grant     { return plugin.Grant{Plugin: l.who, Endpoint: l.at} }
func (l *fakeLease) Ending() <-chan struct{} { return l.ending }
func (l *fakeLease) Done() <-chan struct{}   { return l.done }
func (l *fakeLease) Stopped() bool           { return isClosed(l.ending) }
func (l *fakeLease) crash()                  { l.closing.Do(func() { close(l.done) }) }
func (l *fakeLease) Close() error {
	l.crash()
	return l.call("close lease")
}
func (l *fakeLease) Import(context.Context, string, digest.Digest, berth.LocalFile) (berth.ImportMethod, error) {
	return berth.Copied, nil
}

func (l *fakeLease) Listen(context.Context, plugin.ListenOptions) (plugin.Endpoint, error) {
	return plugin.Endpoint{}, berth.ErrUnsupported
}

func TestOpenGoesStepByStep(t *testing.T) {
	for _, private := range []bool{true, false} {
		f := &fake{}
		dir := filepath.Join(t.TempDir(), "layout")
		if private {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(t.Context(), Options{Layout: dir, Launcher: f, Private: private, Durability: "power", Listen: plugin.ListenOptions{Token: "t"}, IdleTimeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		cfg := f.start.Config
		if cfg.Layout != dir || (cfg.Key != "") != private || cfg.Durability != "power" || cfg.IdleTimeout != time.Hour || cfg.HostPID != os.Getpid() {
			t.Errorf("launched with %+v", cfg)
		}
		if asks := f.asks[0]; asks.Key != cfg.Key || asks.Durability != "power" || asks.Holder.PID != os.Getpid() || asks.Listen.Token != "t" {
			t.Errorf("it asks for %+v", asks)
		}
		if e := s.Endpoint(); e.Address != "127.0.0.1:1" || e.Token != "t" || s.Info().PID != 42 {
			t.Errorf("endpoint %+v, info %+v", e, s.Info())
		}
		if err := errors.Join(s.Flush(t.Context()), s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		want := []string{"launch", "lease", "flush", "close lease", "close plugin"}
		if !slices.Equal(f.calls, want) {
			t.Errorf("called %q, want %q", f.calls, want)
		}
		if err := s.Flush(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: got %v", err)
		}
	}
}

// Whatever step fails, what was begun before it is ended, and the next one may start.
func TestOpenThatFailsLeavesNothing(t *testing.T) {
	for step, ends := range map[string][]string{
		"launch": nil,
		"lease":  {"close plugin"},
	} {
		t.Run(step, func(t *testing.T) {
			f := &fake{fails: step}
			dir := t.TempDir()
			_, err := Open(t.Context(), Options{Layout: dir, Launcher: f})
			if !errors.Is(err, berth.ErrLayoutInvalid) {
				t.Errorf("got %v", err)
			}
			after := f.calls[slices.Index(f.calls, step)+1:]
			if !slices.Equal(after, ends) {
				t.Errorf("after the failure: %q, want %q", after, ends)
			}
			lock, err := control.LockStart(dir, true)
			if err != nil {
				t.Fatalf("the start lock is held: %v", err)
			}
			lock.Release()
		})
	}
}

func openFake(t *testing.T, opts Options) (*fake, *Session) {
	t.Helper()
	f := &fake{}
	opts.Layout, opts.Launcher = t.TempDir(), f
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return f, s
}

// A plugin that has crashed is replaced at once, for others who use the address, which stays.
func TestACrashedPluginIsReplaced(t *testing.T) {
	f, s := openFake(t, Options{Listen: plugin.ListenOptions{Token: "t"}})
	before, hold := s.Endpoint(), s.Current()
	f.leases[0].crash()
	for end := time.Now().Add(time.Minute); s.Current() == hold && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if s.Current() == hold || s.Endpoint() != before {
		t.Errorf("got %+v, want %+v", s.Endpoint(), before)
	}
	if !s.Lost(t.Context(), hold) {
		t.Error("the hold before is not lost")
	}
}

func TestAnAddressThatIsTakenMeanwhile(t *testing.T) {
	f, s := openFake(t, Options{})
	before, hold := s.Endpoint(), s.Current()
	f.mu.Lock()
	f.taken = before.Address
	f.mu.Unlock()
	f.leases[0].crash()
	<-hold.Done()
	if _, err := s.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Endpoint().Address == before.Address {
		t.Error("it has the address that another program has taken")
	}
}

// A plugin that was told to end comes back when it is needed.
func TestADrainedPluginIsReplacedWhenItIsNeeded(t *testing.T) {
	f, s := openFake(t, Options{})
	close(f.leases[0].ending)
	if err := s.Stay(t.Context()); err != nil {
		t.Error(err)
	}
	f.leases[0].crash()
	s.minder.Wait()
	if len(f.asks) != 1 {
		t.Error("it was replaced though nobody needs it")
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if len(f.asks) != 2 {
		t.Errorf("%d leases were taken", len(f.asks))
	}
}

func TestAPrivatePluginIsNotReplaced(t *testing.T) {
	f, s := openFake(t, Options{Private: true})
	f.leases[0].crash()
	if err := s.Flush(t.Context()); !errors.Is(err, plugin.ErrGone) {
		t.Errorf("got %v", err)
	}
}

// What was pushed is in the directory that was opened, and not in one that took its name.
func TestADirectoryThatWasReplaced(t *testing.T) {
	f, s := openFake(t, Options{})
	f.mu.Lock()
	dir := f.start.Layout
	f.mu.Unlock()
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	before := f.info
	f.mu.Lock()
	f.info.Identity, _ = control.Identify(dir)
	f.mu.Unlock()
	if f.info == before {
		t.Skip("directories have no numbers here")
	}
	f.leases[0].crash()
	if _, err := s.Hold(t.Context()); !errors.Is(err, berth.ErrLayoutInvalid) || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("got %v", err)
	}
}

// A call that was cut off is made again, and one that fails by itself is not.
func TestCallsAreRepeated(t *testing.T) {
	f, s := openFake(t, Options{})
	asked := 0
	err := s.Do(t.Context(), func(*Hold) error {
		if asked++; asked < 3 {
			f.mu.Lock()
			last := f.leases[len(f.leases)-1]
			f.mu.Unlock()
			last.crash()
			return fmt.Errorf("call: %w", plugin.ErrGone)
		}
		return nil
	})
	if err != nil || asked != 3 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	asked = 0
	err = s.Do(t.Context(), func(*Hold) error {
		asked++
		return berth.ErrDenied
	})
	if !errors.Is(err, berth.ErrDenied) || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

func TestAPluginGetsNoSecretsOfTheHost(t *testing.T) {
	t.Setenv("REGISTRY_PASSWORD", "canary.password")
	t.Setenv("DOCKER_AUTH_CONFIG", "canary.password")
	t.Setenv("HOME", "/home/x")
	env := environ()
	if !slices.Contains(env, "HOME=/home/x") {
		t.Errorf("HOME is missing in %q", env)
	}
	if strings.Contains(strings.Join(env, "\n"), "canary.password") {
		t.Errorf("a secret is passed on: %q", env)
	}
}

func TestBinariesThatAreNotThere(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, name := range []string{"berth", "/absent/berth"} {
		_, err := Binary(name).Launch(t.Context(), Start{Config: plugin.Config{Layout: "x"}})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "name its path") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A program whose main does not call embedded.Main would start itself for ever.
func TestSelfDoesNotStartItselfFromAPlugin(t *testing.T) {
	variable := plugin.Handshake()
	t.Setenv(variable.MagicCookieKey, variable.MagicCookieValue)
	_, err := Self().Launch(t.Context(), Start{Config: plugin.Config{Layout: "x"}})
	if err == nil || !strings.Contains(err.Error(), "embedded.Main()") {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), Options{Layout: t.TempDir(), Launcher: Self()}); err == nil || !strings.Contains(err.Error(), "embedded.Main()") {
		t.Errorf("Open: got %v", err)
	}
}

func TestARunnerThatWasKilledDoesNotStart(t *testing.T) {
	r, err := newRunner(os.Args[0], plugin.Config{Key: "k"})
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
	said := "the reason\n" + strings.Repeat("x", 10*maxFirstWords)
	w := &firstWords{ReadCloser: io.NopCloser(strings.NewReader(said)), runner: r}
	if got, err := io.ReadAll(w); err != nil || string(got) != said {
		t.Errorf("%d bytes are passed on, %v", len(got), err)
	}
	if len(r.words) != maxFirstWords || !strings.HasPrefix(string(r.words), "the reason\n") {
		t.Errorf("%d bytes are kept", len(r.words))
	}
}

func TestAVerifiedBinary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "berth")
	if err := os.WriteFile(file, []byte("content"), 0o755); err != nil {
		t.Fatal(err)
	}
	for want, good := range map[digest.Digest]bool{
		digest.FromString("content"): true, digest.SHA512.FromString("content"): true,
		digest.FromString("other"): false, "sha256:x": false, "": false,
	} {
		err := verify(file, want)
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), file) {
			t.Errorf("%q: got %v", want, err)
		}
	}
	_, err := VerifiedBinary(file, digest.FromString("other")).Launch(t.Context(), Start{Config: plugin.Config{Layout: "x"}})
	if !errors.Is(err, berth.ErrDigestInvalid) {
		t.Errorf("got %v", err)
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
