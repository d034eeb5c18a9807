package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// clone is ioctl_ficlone(2), whose list of errors tells those that mean that it cannot be done.
func clone(to, from *os.File) error {
	err := withFile(to, func(to int) error {
		return withFile(from, func(from int) error { return unix.IoctlFileClone(to, from) })
	})
	for _, cannot := range []error{unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.ENOSYS, unix.EPERM, unix.ETXTBSY, unix.EBADF} {
		if errors.Is(err, cannot) {
			return ErrNoClone
		}
	}
	return err
}
