//go:build unix

package source

import (
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipePoll is how long a pipe is waited for between two looks at the context, in milliseconds.
const pipePoll = 20

// openPipe waits for whoever is to write to a pipe, until the context ends. To open it without waiting always succeeds, and
// to read from it before somebody writes would seem to be its end.
func openPipe(ctx context.Context, name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	for err = ctx.Err(); err == nil; err = ctx.Err() {
		written, err := poll(file)
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		if written {
			return file, nil
		}
	}
	return nil, errors.Join(err, file.Close())
}

// poll waits a moment for a writer, who may have come and gone.
func poll(file *os.File) (written bool, err error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return false, err
	}
	controlErr := conn.Control(func(fd uintptr) {
		var n int
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, pipePoll)
		written = n > 0
	})
	if errors.Is(err, unix.EINTR) {
		err = nil
	}
	return written, errors.Join(controlErr, err)
}
