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
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return ErrHeld
	}
	return err
}
