package durable

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

func syncDir(f *os.File) error { return f.Sync() }

func syncAll(f *os.File) error {
	err := unix.Syncfs(int(f.Fd()))
	if errors.Is(err, unix.ENOSYS) {
		return ErrNoSyncAll
	}
	return err
}

func startSync(f *os.File, offset, length int64) {
	control(f, func(fd int) { unix.SyncFileRange(fd, offset, length, unix.SYNC_FILE_RANGE_WRITE) })
}

func reserve(f *os.File, offset, length int64) (err error) {
	control(f, func(fd int) { err = unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, offset, length) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

func control(f *os.File, do func(fd int)) {
	if conn, err := f.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) { do(int(fd)) })
	}
}

func openDirect(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_WRONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, ErrNoDirect
	}
	return f, err
}

func exchange(root *os.Root, a, b string) error {
	return rename(root, a, b, unix.RENAME_EXCHANGE)
}

func moveNew(root *os.Root, from, to string) error {
	err := rename(root, from, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, ErrNoExchange) {
		return moveIfFree(root, from, to)
	}
	return err
}

// rename uses the handles of the two directories: a path would be looked up from the process's own
// root, and through symbolic links.
func rename(root *os.Root, from, to string, flags uint) error {
	source, err := root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer target.Close()
	err = unix.Renameat2(int(source.Fd()), path.Base(from), int(target.Fd()), path.Base(to), flags)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return ErrNoExchange
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
