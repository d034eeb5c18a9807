package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listenThere takes calls for a layout at which no socket can be made.
func listenThere(t *testing.T) (dir string, at endpoint) {
	t.Helper()
	dir = t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, SocketFile, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go greet(l)
	return dir, readBack(t, dir)
}

func readBack(t *testing.T, dir string) (e endpoint) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, EndpointFile))
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// greet answers every caller with one word.
func greet(l *Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(conn, "hello")
		conn.Close()
	}
}

// wantHello calls a layout's owner.
func wantHello(t *testing.T, dir string) {
	t.Helper()
	conn, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWithoutSocketsThereIsAnAddress(t *testing.T) {
	dir, at := listenThere(t)
	if at.Network != "tcp" || at.Secret == "" || at.PID != os.Getpid() {
		t.Errorf("got %+v", at)
	}
	info, err := os.Stat(filepath.Join(dir, EndpointFile))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others can read it: %v, %v", info.Mode(), err)
	}
	for range 3 {
		wantHello(t, dir)
	}
}

// Who does not know the secret is hung up on, and keeps nobody else waiting.
func TestStrangersAreHungUpOn(t *testing.T) {
	dir, at := listenThere(t)
	for range maxUnproven / 2 {
		silent, err := net.Dial("tcp", at.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	wantHello(t, dir)
	conn, err := net.Dial("tcp", at.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := proveCaller(conn, "wrong"); !errors.Is(err, errUnproven) {
		t.Errorf("who answers is believed: %v", err)
	}
	again, err := net.Dial("tcp", at.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	nonce := make([]byte, nonceSize)
	if _, err := again.Write(append(nonce, make([]byte, 32)...)); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(again); strings.Contains(string(got), "hello") {
		t.Error("a stranger is let in")
	}
}

// What listens at the address of an owner that was killed learns nothing, and is not believed.
func TestAStrangerAtTheAddressOfAnOwnerThatIsGone(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	heard := make(chan []byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Write(make([]byte, nonceSize+32))
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		said, _ := io.ReadAll(conn)
		heard <- said
	}()
	dir := t.TempDir()
	writeEndpoint(t, dir, endpoint{Network: "tcp", Address: listener.Addr().String(), Secret: "canary"})
	if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v", err)
	}
	if said := <-heard; len(said) != nonceSize {
		t.Errorf("it was told %d bytes", len(said))
	}
}

func writeEndpoint(t *testing.T, dir string, e endpoint) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(filepath.Join(dir, Dir))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := e.write(root); err != nil {
		t.Fatal(err)
	}
}

// One that listens and says nothing is waited for as long as the context lasts, at the longest.
func TestAnOwnerThatDoesNotProveItself(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dir := t.TempDir()
	writeEndpoint(t, dir, endpoint{Network: "tcp", Address: listener.Addr().String(), Secret: "s"})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		io.ReadFull(conn, make([]byte, nonceSize))
		cancel()
	}()
	if _, err := Dial(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestEndpointsThatLeadNowhere(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for what, content := range map[string]string{
		"a stale address": `{"network":"tcp","address":"` + closed.Addr().String() + `","secret":"s"}`,
		"a stale socket":  `{"network":"unix"}`,
		"another network": `{"network":"pigeon"}`,
		"half a file":     `{"network":"un`,
		"nothing":         "",
		"much":            strings.Repeat("x", 10*maxEndpoint),
	} {
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(dir, Dir), 0o700), os.WriteFile(filepath.Join(dir, EndpointFile), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestLockStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "layout")
	first, err := LockStart(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockStart(dir, true); !errors.Is(err, ErrHeld) {
		t.Errorf("got %v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := LockStart(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	second.Release()
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "main.go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LockStart(other, true); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("a directory of other files: got %v", err)
	}
	if _, err := os.Stat(filepath.Join(other, Dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was made there: %v", err)
	}
}

func TestOwnerTellsWhoOwns(t *testing.T) {
	root := layout(t)
	if err := Make(root); err != nil {
		t.Fatal(err)
	}
	if h, err := Owner(root.Name()); err != nil || h.PID != 0 {
		t.Errorf("before: %v, %v", h, err)
	}
	lock, err := Own(root)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := Owner(root.Name()); err != nil || h.PID != os.Getpid() {
		t.Errorf("got %v, %v", h, err)
	}
	lock.Release()
	if h, err := Owner(root.Name()); err != nil || h.PID != 0 {
		t.Errorf("after: %v, %v", h, err)
	}
}
