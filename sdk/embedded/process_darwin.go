package embedded

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// watchProcess waits for a process by a kernel queue, which knows it from others that get its number later.
func watchProcess(pid int) (*ending, error) {
	queue, err := unix.Kqueue()
	if err != nil {
		return nil, err
	}
	wake, waker, err := os.Pipe() // wakes the wait when nobody wants to know any more
	if err != nil {
		unix.Close(queue)
		return nil, err
	}
	asks := make([]unix.Kevent_t, 2)
	unix.SetKevent(&asks[0], pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	asks[0].Fflags = unix.NOTE_EXIT
	unix.SetKevent(&asks[1], int(wake.Fd()), unix.EVFILT_READ, unix.EV_ADD)
	if _, err := unix.Kevent(queue, asks, nil, nil); err != nil {
		return nil, errors.Join(err, unix.Close(queue), wake.Close(), waker.Close())
	}
	over := make(chan struct{})
	go func() {
		defer unix.Close(queue)
		defer wake.Close()
		for {
			told := make([]unix.Kevent_t, 1)
			n, err := unix.Kevent(queue, nil, told, nil)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if n > 0 {
				if told[0].Filter == unix.EVFILT_PROC {
					close(over)
				}
				return
			}
		}
	}()
	return &ending{c: over, stop: func() { waker.Close() }}, nil
}
