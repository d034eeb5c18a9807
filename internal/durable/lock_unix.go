//go:build !windows

package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// TryLock takes the lock of a file or a directory, until that is closed. Two handles of one process exclude each
// other as two processes do.
//
// Errors: ErrHeld; errors.ErrUnsupported where there are no such locks.
func TryLock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		return ErrHeld
	case errors.Is(err, unix.ENOLCK): // of a network file system whose server has no locks
		return errors.Join(errors.ErrUnsupported, err)
	}
	return err
}
