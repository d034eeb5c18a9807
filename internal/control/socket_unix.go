//go:build linux || darwin

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// Listener takes calls at a layout's control socket, from those who may call. It is a [net.Listener].
type Listener struct {
	socket  *net.UnixListener
	dir     *os.Root
	admit   func(uid int) bool
	closing sync.Once
	closed  error
}

// Listen opens the control socket of a layout that this process owns, in place of one that an earlier
// owner left. It must be closed before the layout is given up.
func Listen(layout string) (*Listener, error) {
	dir, err := os.OpenRoot(filepath.Join(layout, Dir))
	if err != nil {
		return nil, err
	}
	l := &Listener{dir: dir, admit: admitted}
	if err := dir.Remove(socketName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		dir.Close()
		return nil, err
	}
	if err := l.bind(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Listener) bind() error {
	name, release, err := socketPath(l.dir)
	if err != nil {
		return err
	}
	defer release()
	if l.socket, err = net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"}); err != nil {
		return err
	}
	l.socket.SetUnlinkOnClose(false) // the name may not lead there then
	return os.Chmod(name, 0o600)
}

// socketPath names the socket of a control directory so that the name fits where the system wants it,
// until release is called.
func socketPath(dir *os.Root) (name string, release func(), err error) {
	name, err = filepath.Abs(filepath.Join(dir.Name(), socketName))
	if err != nil {
		return "", nil, err
	}
	if len(name) < len(syscall.RawSockaddrUnix{}.Path) {
		return name, func() {}, nil
	}
	return shortPath(dir, name)
}

// Accept waits for a call. Callers of other users are hung up on.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.socket.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerOf(conn); err == nil && l.admit(uid) {
			return conn, nil
		}
		conn.Close()
	}
}

// Addr is the socket's address.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// Close takes the socket away, and ends Accept.
func (l *Listener) Close() error {
	l.closing.Do(func() {
		if l.socket != nil {
			l.closed = errors.Join(l.dir.Remove(socketName), l.socket.Close())
		}
		l.closed = errors.Join(l.closed, l.dir.Close())
	})
	return l.closed
}

// admitted reports whether a user may call: this process's own, and root.
func admitted(uid int) bool { return uid == os.Geteuid() || uid == 0 }

// peerOf returns the user at the other end of a connection.
func peerOf(conn *net.UnixConn) (uid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peerErr error
	err = raw.Control(func(fd uintptr) { uid, peerErr = peerUID(int(fd)) })
	return uid, errors.Join(err, peerErr)
}

// Dial calls the owner of a layout.
//
// Errors: ErrNotRunning where there is no owner who listens.
func Dial(ctx context.Context, layout string) (net.Conn, error) {
	conn, err := dial(ctx, layout)
	if slices.ContainsFunc(nobody, func(reason error) bool { return errors.Is(err, reason) }) {
		return nil, fmt.Errorf("layout %s: %w", layout, ErrNotRunning)
	}
	return conn, err
}

// nobody lists how a call fails where nobody listens: no socket, one that was left, something else in
// its place, and a path at which there cannot be one.
var nobody = []error{fs.ErrNotExist, syscall.ECONNREFUSED, syscall.ENOTSOCK, syscall.ENAMETOOLONG}

func dial(ctx context.Context, layout string) (net.Conn, error) {
	dir, err := os.OpenRoot(filepath.Join(layout, Dir))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	return new(net.Dialer).DialContext(ctx, "unix", name)
}
