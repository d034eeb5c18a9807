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
	"syscall"

	"github.com/berthoci/berth"
)

// socketListener is a Unix socket at which some users are let in.
type socketListener struct {
	*net.UnixListener
	admit func(uid int) bool
}

// listenSocket listens at the socket of a control directory, in place of one that was left there.
func listenSocket(dir *os.Root) (net.Listener, error) {
	if err := remove(dir, socketName); err != nil {
		return nil, err
	}
	name, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	socket, err := net.ListenUnix(unixNetwork, &net.UnixAddr{Name: name, Net: unixNetwork})
	if err != nil {
		return nil, err
	}
	socket.SetUnlinkOnClose(false) // the name may not lead there then
	if err := os.Chmod(name, 0o600); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return &socketListener{socket, admitted}, nil
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
func (l *socketListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerOf(conn); err == nil && l.admit(uid) {
			return conn, nil
		}
		conn.Close()
	}
}

// admitted reports whether a user may call: this process's own, and root.
func admitted(uid int) bool { return uid == os.Geteuid() || uid == 0 }

// trusted reports whether what a user says about a layout is believed. Root, who was told to use the layout,
// believes its owner.
func trusted(uid int) bool { return admitted(uid) || os.Geteuid() == 0 }

func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

func isOwn(info fs.FileInfo) bool {
	return owner(info) == os.Geteuid() && info.Mode().Perm()&0o077 == 0
}

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

// nobody lists how a call fails where nobody listens: no socket, a socket that was left, something else in its place,
// and a path at which there cannot be one.
var nobody = []error{fs.ErrNotExist, syscall.ECONNREFUSED, syscall.ENOTSOCK, syscall.ENAMETOOLONG}

func dialSocket(ctx context.Context, dir *os.Root) (net.Conn, error) {
	name, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	conn, err := new(net.Dialer).DialContext(ctx, unixNetwork, name)
	if slices.ContainsFunc(nobody, func(reason error) bool { return errors.Is(err, reason) }) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	if uid, err := peerOf(conn.(*net.UnixConn)); err != nil || !trusted(uid) {
		conn.Close()
		return nil, fmt.Errorf("%w: user %d answers at its socket, and this process runs as user %d", berth.ErrDenied, uid, os.Geteuid())
	}
	return conn, nil
}
