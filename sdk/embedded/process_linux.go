package embedded

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// watchProcess waits for a process by a descriptor of it: its number may be another one's afterwards.
func watchProcess(pid int) (*ending, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	over := make(chan struct{})
	// A pipe beside it wakes the wait when nobody wants to know any more.
	wake, waker, err := os.Pipe()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	go func() {
		defer unix.Close(fd)
		defer wake.Close()
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if fds[0].Revents != 0 {
				close(over)
			}
			if fds[0].Revents != 0 || fds[1].Revents != 0 {
				return
			}
		}
	}()
	return &ending{c: over, stop: func() { waker.Close() }}, nil
}
