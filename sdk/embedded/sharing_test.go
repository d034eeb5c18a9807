//go:build linux || darwin

package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk/embedded"
)

// share opens a layout that others may have open too, by a plugin of this binary.
func share(t *testing.T, dir string, opts host.Options) *host.Session {
	t.Helper()
	opts.Layout, opts.Launcher, opts.IdleTimeout = dir, host.Self(), -1
	if opts.Listen.Token == "" {
		opts.Listen.Token = rand.Text()
	}
	s, err := host.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// at is a layout as it is served at a session's address.
func at(t *testing.T, dir string, s *host.Session) *served {
	return &served{T: t, dir: dir, registry: registryAt(t, s.Endpoint())}
}

// What was pushed is told to a watcher, however often the plugin is killed in between.
func TestAWatchMissesNothingOverCrashes(t *testing.T) {
	const rounds, pushes = 5, 20
	dir := place(t)
	watching, pushing := share(t, dir, host.Options{}), share(t, dir, host.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun, told, ended := make(chan bool), make(chan string, rounds*pushes*2), make(chan error, 1)
	begin := sync.OnceFunc(func() { close(begun) })
	go func() {
		for event, err := range watching.Watch(ctx, nil) {
			if err != nil {
				ended <- err
				return
			}
			begin() // with the first bookmark
			for _, tag := range event.Tags {
				told <- tag
			}
		}
		ended <- nil
	}()
	<-begun
	for round := range rounds {
		for n := range pushes {
			tag := fmt.Sprintf("v%d-%d", round, n)
			for at(t, dir, pushing).push(t.Context(), tag) != nil { // it is pushed when that is acknowledged
				if _, err := pushing.Hold(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if n == pushes/2 {
				syscall.Kill(pushing.Info().PID, syscall.SIGKILL)
			}
		}
	}
	missing := map[string]bool{}
	for round := range rounds {
		for n := range pushes {
			missing[fmt.Sprintf("v%d-%d", round, n)] = true
		}
	}
	for len(missing) > 0 {
		select {
		case tag := <-told:
			delete(missing, tag)
		case err := <-ended:
			t.Fatalf("the watch ended: %v; %d tags are missing", err, len(missing))
		case <-time.After(time.Minute):
			t.Fatalf("these were never told: %v", missing)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
}

// An upload that is under way when the registry is asked to end goes on: what has come is there at the next one.
func TestADrainLetsUploadsBeResumed(t *testing.T) {
	dir := place(t)
	s := share(t, dir, host.Options{})
	content := bytes.Repeat([]byte("berth"), 1<<21)
	location := begin(t, s)
	body, rest := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		resp, err := ask(t, s, http.MethodPatch, location, body)
		if err == nil && resp.StatusCode != http.StatusAccepted {
			err = errors.New(resp.Status)
		}
		sent <- err
	}()
	if _, err := rest.Write(content[:len(content)/2]); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return arrived(t, dir) > 0 })
	hold := s.Current()
	if err := hold.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := rest.Write(content[len(content)/2:]); err != nil {
		t.Fatal(err)
	}
	rest.Close()
	if err := <-sent; err != nil {
		t.Fatalf("the request that was under way: %v", err)
	}
	if !s.Lost(t.Context(), hold) {
		t.Fatal("the plugin has not ended")
	}
	if _, err := s.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	resp, err := ask(t, s, http.MethodPut, location+"?digest="+string(digest.FromBytes(content)), nil)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Errorf("the end of the upload, at the next plugin: %v, %v", resp, err)
	}
	if !isThere(t, blobFile(dir, digest.FromBytes(content))) {
		t.Error("the blob is not there")
	}
}

// arrived is how many bytes of uploads there are.
func arrived(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(dir, control.Dir, "ingest"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// begin begins an upload and returns its path.
func begin(t *testing.T, s *host.Session) string {
	t.Helper()
	resp, err := ask(t, s, http.MethodPost, "/v2/app/blobs/uploads/", nil)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatal(resp, err)
	}
	return resp.Header.Get("Location")
}

func ask(t *testing.T, s *host.Session, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Endpoint().Address+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.Endpoint().Token)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}

// Many who open a layout at once, in all ways, share it.
func TestAllWaysShareOneLayout(t *testing.T) {
	dir := place(t)
	var sessions []*host.Session
	for name, l := range launchers() {
		if l.private {
			continue
		}
		opts := l.options(dir)
		s, err := host.Open(t.Context(), opts)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sessions = append(sessions, s)
	}
	for i, s := range sessions {
		if s.Info().PID != sessions[0].Info().PID {
			t.Errorf("processes %d and %d serve it", s.Info().PID, sessions[0].Info().PID)
		}
		if err := at(t, dir, s).push(t.Context(), fmt.Sprint("v", i)); err != nil {
			t.Error(err)
		}
	}
	status, err := sessions[0].Status(t.Context())
	if err != nil || len(status.Leases) != len(sessions) || status.Leases[0].PID != os.Getpid() || status.Tags != len(sessions) {
		t.Errorf("got %+v, %v", status, err)
	}
	for _, s := range sessions {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	atRest(t, dir)
}

// Each lease has its own address, token and view.
func TestEachLeaseHasItsView(t *testing.T) {
	dir := place(t)
	writer, reader := share(t, dir, host.Options{}), share(t, dir, host.Options{Listen: plugin.ListenOptions{ReadOnly: true}})
	if err := at(t, dir, reader).push(t.Context(), "v1"); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("who only reads pushes: %v", err)
	}
	if err := at(t, dir, writer).push(t.Context(), "v1"); err != nil {
		t.Error(err)
	}
	at(t, dir, reader).wantTags("v1")
	other := reader.Endpoint()
	other.Address = writer.Endpoint().Address
	if err := registryAt(t, other).Ping(t.Context()); !errors.Is(err, berth.ErrUnauthorized) {
		t.Errorf("one's token is good for another's address: %v", err)
	}
}

func TestDurabilityOnlyRises(t *testing.T) {
	dir := place(t)
	first := share(t, dir, host.Options{})
	for _, c := range []struct{ asked, want string }{{"process", "process"}, {"power", "power"}, {"process", "power"}} {
		share(t, dir, host.Options{Durability: c.asked})
		if status, err := first.Status(t.Context()); err != nil || status.Durability != c.want {
			t.Errorf("after %q: got %q, %v, want %q", c.asked, status.Durability, err, c.want)
		}
	}
}

// An address that is held for a process closes when that has ended.
func TestAnAddressIsHeldForAProcess(t *testing.T) {
	dir := place(t)
	s := share(t, dir, host.Options{})
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	held, err := s.HoldFor(t.Context(), child.Process.Pid, plugin.ListenOptions{Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	if err := registryAt(t, held).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	status, err := s.Status(t.Context())
	if err != nil || len(status.Leases) != 2 || status.Leases[1].PID != child.Process.Pid {
		t.Errorf("got %+v, %v", status.Leases, err)
	}
	child.Process.Kill()
	child.Wait()
	until(t, func() bool {
		conn, err := net.Dial("tcp", held.Address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if _, err := s.HoldFor(t.Context(), child.Process.Pid, plugin.ListenOptions{}); err == nil || !strings.Contains(err.Error(), fmt.Sprint("process ", child.Process.Pid)) {
		t.Errorf("for a process that is gone: %v", err)
	}
}

func TestASocketForClients(t *testing.T) {
	short, long := place(t), filepath.Join(place(t), strings.Repeat("long", 40))
	for _, dir := range []string{short, long} {
		id := rand.Text()
		s := share(t, dir, host.Options{Listen: plugin.ListenOptions{Socket: id}})
		path, hold := s.Endpoint().Socket, s.Current()
		syscall.Kill(s.Info().PID, syscall.SIGKILL)
		<-hold.Done()
		if _, err := s.Hold(t.Context()); err != nil || s.Endpoint().Socket != path {
			t.Errorf("after a crash it is %s, %v, and was %s", s.Endpoint().Socket, err, path)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != os.ModeSocket|0o600 || len(path) >= 104 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}, DisableKeepAlives: true}}
		for token, want := range map[string]int{s.Endpoint().Token: http.StatusOK, "wrong": http.StatusUnauthorized} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/v2/", nil)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: status %d, want %d", path, resp.StatusCode, want)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if isThere(t, path) {
			t.Errorf("%s is left", path)
		}
	}
	_, err := host.Open(t.Context(), host.Options{Layout: short, Launcher: embedded.InProcess(), Listen: plugin.ListenOptions{Socket: "../x"}})
	if err == nil || !strings.Contains(err.Error(), `"../x"`) {
		t.Errorf("got %v", err)
	}
}

// lines gathers what is logged.
type lines struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), what)
}

func TestAHostHearsWhatThePluginLogs(t *testing.T) {
	dir := place(t)
	var first, second lines
	share(t, dir, host.Options{Logger: slog.New(slog.NewTextHandler(&first, nil))})
	s := share(t, dir, host.Options{Logger: slog.New(slog.NewTextHandler(&second, nil)), AccessLog: slog.New(slog.NewTextHandler(&second, nil))})
	if err := registryAt(t, s.Endpoint()).Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return second.has("path=/v2/") })
	if first.has("path=/v2/") {
		t.Error("one hears of the requests to another's address")
	}
	if err := s.Current().Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return first.has("asked to end") && second.has("asked to end") })
}

// A layout that is moved while it is served is found at its new place; when nobody uses it any more, the plugin
// ends at once, for nobody will find it at the old one.
func TestALayoutIsMoved(t *testing.T) {
	dir := place(t)
	s, err := host.Open(t.Context(), host.Options{Layout: dir, Launcher: host.Self(), IdleTimeout: time.Hour, Listen: plugin.ListenOptions{Token: "t"}})
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(place(t), "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := at(t, moved, s).push(t.Context(), "v1"); err != nil {
		t.Error(err)
	}
	other := share(t, moved, host.Options{})
	if other.Info().PID != s.Info().PID {
		t.Error("another process serves it at its new place")
	}
	at(t, moved, other).wantTags("v1")
	if err := errors.Join(other.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	atRest(t, moved)
}

// The plugin of a layout that is gone does not stay, and does not make the layout anew.
func TestALayoutIsDeleted(t *testing.T) {
	dir := filepath.Join(place(t), "layout")
	s, err := host.Open(t.Context(), host.Options{Layout: dir, Launcher: host.Self(), IdleTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	pid := s.Info().PID
	err = os.RemoveAll(dir)
	for tries := 0; err != nil && tries < 100; tries++ { // the plugin may just have made a file
		err = os.RemoveAll(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close() // cannot write what it should
	if !gone(pid, time.Minute) {
		t.Error("the plugin is still there")
	}
	if isThere(t, dir) {
		t.Error("the layout is there again")
	}
}

// A copy of a layout that is served is another layout.
func TestACopiedLayout(t *testing.T) {
	dir, copied := place(t), filepath.Join(place(t), "copied")
	s := share(t, dir, host.Options{})
	if err := at(t, dir, s).push(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", dir, copied).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	other := share(t, copied, host.Options{})
	if other.Info().PID == s.Info().PID {
		t.Error("one process serves both")
	}
	at(t, copied, other).wantTags("v1")
}

// A reboot leaves files that lead nowhere.
func TestStaleFiles(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // another program has the port now, and says nothing
	for _, content := range []string{
		`{"network":"unix","pid":1}`,
		`{"network":"tcp","address":"127.0.0.1:1","secret":"s","pid":1}`,
		`{"netw`,
	} {
		dir := place(t)
		if err := errors.Join(os.Mkdir(filepath.Join(dir, control.Dir), 0o700), os.WriteFile(filepath.Join(dir, control.EndpointFile), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := at(t, dir, share(t, dir, host.Options{})).push(t.Context(), "v1"); err != nil {
			t.Errorf("%s: %v", content, err)
		}
	}
}

// What the process that starts a plugin has open is not the plugin's: a build's lock is free when the build is over.
func TestAPluginInheritsNothing(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), hostVariable+"="+place(t))
	child.ExtraFiles = []*os.File{write}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	holder := share(t, child.Env[len(child.Env)-1][len(hostVariable)+1:], host.Options{})
	child.Process.Kill()
	child.Wait()
	read.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := read.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("somebody has the pipe open still: %v", err)
	}
	if holder.Current().Ended() {
		t.Error("the plugin has ended with the host that started it")
	}
}

// Who connects and says nothing does not keep a registry from ending.
func TestSilentCallersDoNotKeepARegistry(t *testing.T) {
	dir := place(t)
	s := share(t, dir, host.Options{})
	for range 3 {
		conn, err := control.Dial(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	pid := s.Info().PID
	if err := s.Current().Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !gone(pid, 8*time.Second) {
		t.Error("it is still there")
	}
}

// Who gives up the start of a plugin does not end it for others, who have it already.
func TestAStartThatIsGivenUp(t *testing.T) {
	for range 20 {
		dir := place(t)
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan error, 1)
		go func() {
			s, err := host.Open(ctx, host.Options{Layout: dir, Launcher: host.Self(), IdleTimeout: -1})
			if err == nil {
				err = s.Close()
			}
			started <- err
		}()
		var conn net.Conn
		for err := error(host.ErrNotRunning); err != nil; conn, err = control.Dial(t.Context(), dir) {
			time.Sleep(100 * time.Microsecond)
		}
		cancel()
		conn.Close()
		other := share(t, dir, host.Options{})
		if err := at(t, dir, other).push(t.Context(), "v1"); err != nil {
			t.Error(err)
		}
		<-started
		at(t, dir, other).wantTags("v1")
	}
}
