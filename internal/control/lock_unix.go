//go:build !windows

package control

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const (
	exclusive = unix.LOCK_EX
	shared    = unix.LOCK_SH
)

// tryLock takes the file's lock or returns ErrHeld. flock belongs to the open file, so two handles
// of one process exclude each other as two processes do.
func tryLock(f *os.File, mode int) error {
	for {
		err := unix.Flock(int(f.Fd()), mode|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrHeld
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}
