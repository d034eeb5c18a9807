package durable

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"

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

func openDirect(root *os.Root, name string, flag int) (*os.File, error) {
	f, err := root.OpenFile(name, flag|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, ErrNoDirect
	}
	return f, err
}

func exchange(d *Dir, a, b string) error {
	return rename(d, a, b, unix.RENAME_EXCHANGE)
}

func moveNew(d *Dir, from, to string) error {
	err := rename(d, from, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, ErrNoExchange) {
		return moveIfFree(d.root, from, to)
	}
	return err
}

// rename uses the handles of the two directories: a path would be looked up from the process's own
// root, and through symbolic links.
func rename(d *Dir, from, to string, flags uint) error {
	err := d.within(from, func(source int) error {
		return d.within(to, func(target int) error {
			return unix.Renameat2(source, path.Base(from), target, path.Base(to), flags)
		})
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return ErrNoExchange
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: errno}
	}
	return err
}

// within calls do with a handle of the directory that a name lies in.
func (d *Dir) within(name string, do func(fd int) error) error {
	near, err := d.near(name)
	if err != nil {
		return err
	}
	return withFile(near.self, do)
}

// withFile calls do with a file's descriptor, which stays what it is meanwhile.
func withFile(f *os.File, do func(fd int) error) error {
	err := os.ErrClosed
	control(f, func(fd int) { err = do(fd) })
	return err
}

// openIn opens a file of a directory. It is no file that one waits for, so the runtime's poller need not know it.
func openIn(near *folder, name string, flag int, perm fs.FileMode) (file *os.File, err error) {
	err = withFile(near.self, func(folder int) error {
		fd, err := -1, error(unix.EINTR)
		for errors.Is(err, unix.EINTR) { // some file systems let a signal end the call
			fd, err = unix.Openat(folder, name, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_LARGEFILE, uint32(perm.Perm()))
		}
		if err == nil {
			file = os.NewFile(uintptr(fd), path.Join(near.root.Name(), name))
		}
		return err
	})
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		err = &fs.PathError{Op: "open", Path: path.Join(near.root.Name(), name), Err: errno}
	}
	return file, err
}
