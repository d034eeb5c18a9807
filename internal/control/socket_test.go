//go:build linux || darwin

package control

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
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

// owned is a layout directory with a control directory.
func owned(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func listen(t *testing.T, dir string) *Listener {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestDialReachesListen(t *testing.T) {
	dir := owned(t, place(t))
	l := listen(t, dir)
	go greet(l)
	wantHello(t, dir)
	info, err := os.Lstat(filepath.Join(dir, SocketFile))
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end the socket is there: %v", err)
	}
}

// On a full disk there is a socket, and no room for a file that tells of it.
func TestDialWithoutAnEndpointFile(t *testing.T) {
	dir := owned(t, place(t))
	l := listen(t, dir)
	go greet(l)
	if err := os.Remove(filepath.Join(dir, EndpointFile)); err != nil {
		t.Fatal(err)
	}
	wantHello(t, dir)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

func TestDialWhereNobodyListens(t *testing.T) {
	stale, file := owned(t, place(t)), owned(t, place(t))
	leaveSocket(t, stale)
	if err := os.WriteFile(filepath.Join(file, SocketFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, dir := range map[string]string{
		"no layout":                     filepath.Join(t.TempDir(), "absent"),
		"no control directory":          t.TempDir(),
		"no socket":                     owned(t, place(t)),
		"a socket that was left behind": stale,
		"a file":                        file,
	} {
		if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// leaveSocket does what a process does that is killed while it listens.
func leaveSocket(t *testing.T, dir string) {
	t.Helper()
	l := listen(t, dir)
	if err := l.Listener.Close(); err != nil { // the socket alone
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, SocketFile)); err != nil {
		t.Fatal(err)
	}
}

func TestListenReplacesWhatWasLeft(t *testing.T) {
	dir := owned(t, place(t))
	leaveSocket(t, dir)
	go greet(listen(t, dir))
	wantHello(t, dir)
}

// A relative path, one with an @, which begins an abstract name elsewhere, and one that moved.
func TestPathsThatAreNotPlain(t *testing.T) {
	t.Chdir(place(t))
	go greet(listen(t, owned(t, "@layout")))
	wantHello(t, "@layout")
	if err := os.Rename("@layout", "moved"); err != nil {
		t.Fatal(err)
	}
	wantHello(t, "moved")
}

// A socket's name has 108 bytes at most, a path 4096.
func TestLongPaths(t *testing.T) {
	dir := owned(t, filepath.Join(place(t), strings.Repeat("long", 60)))
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
	l := listen(t, dir)
	go greet(l)
	wantHello(t, dir)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for _, file := range []string{SocketFile, EndpointFile} {
		if _, err := os.Lstat(filepath.Join(dir, file)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after the end %s is there: %v", file, err)
		}
	}
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}

func TestListenWithoutAPlace(t *testing.T) {
	if _, err := Listen(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTheSameUserAndRootAreLetIn(t *testing.T) {
	for uid, want := range map[int]bool{os.Geteuid(): true, 0: true, os.Geteuid() + 1: false, 65534: os.Geteuid() == 65534} {
		if got := admitted(uid); got != want {
			t.Errorf("user %d: %v", uid, got)
		}
	}
	dir := owned(t, place(t))
	l := listen(t, dir)
	callers := make(chan int, 2)
	l.Listener.(*socketListener).admit = func(uid int) bool {
		callers <- uid
		return len(callers) == 2 // the second is let in
	}
	go greet(l)
	conn, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, _ := io.ReadAll(conn); len(got) > 0 {
		t.Errorf("who is not let in hears %q", got)
	}
	wantHello(t, dir)
	for range 2 {
		if uid := <-callers; uid != os.Geteuid() {
			t.Errorf("the caller is taken for user %d", uid)
		}
	}
}

func TestDialThatIsCancelled(t *testing.T) {
	dir := owned(t, place(t))
	listen(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if conn, err := Dial(ctx, dir); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v, %v", conn, err)
	}
}

func TestAcceptEndsWithTheListener(t *testing.T) {
	l := listen(t, owned(t, place(t)))
	result := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		result <- err
	}()
	l.Close()
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestIdentifyTellsDirectoriesApart(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	link := filepath.Join(other, "link")
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(one)
	if err != nil || id.Inode == 0 {
		t.Fatalf("got %+v, %v", id, err)
	}
	if same, err := Identify(link); same != id || err != nil {
		t.Errorf("by another path: got %+v, %v", same, err)
	}
	if second, err := Identify(other); second == id || err != nil {
		t.Errorf("another directory: got %+v, %v", second, err)
	}
	if err := errors.Join(os.Remove(one), os.Mkdir(one, 0o755)); err != nil {
		t.Fatal(err)
	}
	if anew, err := Identify(one); id.Born != 0 && anew == id || err != nil {
		t.Errorf("one of the same name: got %+v, %v", anew, err)
	}
	if _, err := Identify(filepath.Join(one, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
