//go:build linux || darwin

package host

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// layoutAt is an empty layout directory whose path leaves room for a socket's name.
func layoutAt(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "berth-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, control.Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// own answers for a directory until the test ends.
func own(t *testing.T, dir string) (f *fake, stop func()) {
	t.Helper()
	listener, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	f = &fake{info: plugin.Info{PID: 42, Layout: dir}}
	if f.info.Identity, err = control.Identify(dir); err != nil {
		t.Fatal(err)
	}
	server := plugin.ServeControl(listener, fakePlugin{f})
	stop = func() { server.Shutdown(context.Background()) }
	t.Cleanup(stop)
	return f, stop
}

func TestAttachFindsTheOwner(t *testing.T) {
	dir := layoutAt(t)
	f, stop := own(t, dir)
	link := filepath.Join(layoutAt(t), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link} {
		o, err := Attach(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if o.Info().PID != 42 {
			t.Errorf("got %+v", o.Info())
		}
		if err := errors.Join(o.Flush(t.Context()), o.Close()); err != nil {
			t.Error(err)
		}
	}
	if len(f.calls) != 4 { // hello and flush, twice
		t.Errorf("it was asked %q", f.calls)
	}
	o, err := Attach(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	stop()
	if err := o.Flush(t.Context()); !errors.Is(err, plugin.ErrGone) {
		t.Errorf("after its end: got %v", err)
	}
}

func TestAttachWhereNobodyIs(t *testing.T) {
	for _, dir := range []string{layoutAt(t), filepath.Join(layoutAt(t), "absent")} {
		if _, err := Attach(t.Context(), dir); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v", err)
		}
	}
}

// A layout was copied with hard links, say, and its socket with it.
func TestAttachRefusesTheOwnerOfAnotherDirectory(t *testing.T) {
	dir, copied := layoutAt(t), layoutAt(t)
	own(t, dir)
	for _, file := range []string{control.SocketFile, control.EndpointFile} {
		if err := os.Link(filepath.Join(dir, file), filepath.Join(copied, file)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Attach(t.Context(), copied)
	if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "42") {
		t.Errorf("got %v", err)
	}
}

// Somebody listens and hangs up, as one that is just ending does.
func TestAttachToOneThatHangsUp(t *testing.T) {
	dir := layoutAt(t)
	listener := listenMutely(t, dir)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	if _, err := Attach(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

func TestAttachThatIsCancelled(t *testing.T) {
	dir := layoutAt(t)
	listener := listenMutely(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
		}
		cancel()
		<-t.Context().Done()
	}()
	if _, err := Attach(ctx, dir); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

func listenMutely(t *testing.T, dir string) net.Listener {
	t.Helper()
	listener, err := control.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}
