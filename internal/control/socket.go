package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/berthoci/berth"
)

// SocketFile is where the owner of a layout takes calls, where the system and the directory have Unix
// sockets. Its mode is 0600, and only the owner's user and root are let in.
const SocketFile = Dir + "/" + socketName

const socketName = "control.sock"

// ErrNotRunning is returned by Dial where nobody answers for a layout.
var ErrNotRunning = errors.New("no process serves the layout")

// Identity tells a directory from all others of this machine, whatever path leads to it. Its numbers may be
// another one's as soon as it is gone, but not with the same time of birth. What a system does not have is zero.
type Identity struct {
	Device, Inode uint64
	Born          int64 // nanoseconds since 1970
}

// Identify returns the identity of a directory.
func Identify(dir string) (id Identity, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return id, err
	}
	id.Device, id.Inode = identity(info)
	id.Born = born(dir, info)
	return id, nil
}

// Listener takes the calls to a layout's owner, from those who may call.
type Listener struct {
	net.Listener
	dir     *os.Root
	closing sync.Once
	closed  error
}

// Listen takes calls for a layout that this process owns, in place of an earlier owner: at [SocketFile], or
// else at a loopback address, for those who can read [EndpointFile]. It must be closed before the layout is
// given up.
func Listen(layout string) (*Listener, error) {
	dir, err := os.OpenRoot(filepath.Join(layout, Dir))
	if err != nil {
		return nil, err
	}
	l := &Listener{dir: dir}
	at, err := l.bind()
	if err == nil {
		at.PID = os.Getpid()
		err = at.write(dir)
	}
	if err != nil && at.Network == unixNetwork && errors.Is(err, syscall.ENOSPC) {
		err = nil // who finds no endpoint file looks for the socket
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// bind listens at the socket. There may be none: on this system, on this disk, or in a directory whose
// path is too long.
func (l *Listener) bind() (at endpoint, err error) {
	var socketErr error
	if l.Listener, socketErr = listenSocket(l.dir); socketErr == nil {
		return endpoint{Network: unixNetwork}, nil
	}
	listener, at, err := listenTCP()
	if err != nil {
		return at, errors.Join(socketErr, err)
	}
	l.Listener = listener
	return at, nil
}

// Close takes the endpoint away, and ends Accept.
func (l *Listener) Close() error {
	l.closing.Do(func() {
		if l.Listener != nil {
			l.closed = errors.Join(remove(l.dir, endpointName), remove(l.dir, socketName), l.Listener.Close())
		}
		l.closed = errors.Join(l.closed, l.dir.Close())
	})
	return l.closed
}

// remove removes a file that may be gone.
func remove(dir *os.Root, name string) error {
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Dial calls the owner of a layout.
//
// Errors: ErrNotRunning where there is no owner who listens; berth.ErrDenied where the layout is another
// user's.
func Dial(ctx context.Context, layout string) (net.Conn, error) {
	conn, err := dial(ctx, layout)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrNotExist):
		err = ErrNotRunning
	case errors.Is(err, syscall.ENOTDIR):
		err = fmt.Errorf("%w: it is a file; name a directory", berth.ErrLayoutInvalid)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: %w; %s", berth.ErrDenied, err, whose(filepath.Join(layout, Dir)))
	}
	return nil, fmt.Errorf("layout %s: %w", layout, err)
}

func dial(ctx context.Context, layout string) (net.Conn, error) {
	dir, err := os.OpenRoot(filepath.Join(layout, Dir))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	at, err := readEndpoint(dir)
	if errors.Is(err, ErrNotRunning) { // there may have been no room for it
		return dialSocket(ctx, dir)
	}
	if err != nil {
		return nil, err
	}
	switch at.Network {
	case unixNetwork:
		return dialSocket(ctx, dir)
	case tcpNetwork:
		return dialTCP(ctx, at)
	}
	return nil, fmt.Errorf("%w: %s names a network that this version does not know: %.20q", ErrNotRunning, EndpointFile, at.Network)
}

// CheckPrivate refuses a directory that is not this user's alone.
func CheckPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || !isOwn(info) {
		return fmt.Errorf("directory %s: %w: it is not this user's alone; remove it", dir, berth.ErrDenied)
	}
	return nil
}

// whose tells what to do about a directory that belongs to another user.
func whose(dir string) string {
	info, err := os.Stat(dir)
	if err != nil || owner(info) == os.Geteuid() {
		return "make it accessible to this user, or name another layout"
	}
	return fmt.Sprintf("it belongs to user %d, and this process runs as user %d: use it as that user, or name another layout", owner(info), os.Geteuid())
}
