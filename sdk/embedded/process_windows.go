package embedded

import (
	"errors"

	"golang.org/x/sys/windows"
)

// watchProcess waits for a process by a handle of it: its number may be another one's afterwards.
func watchProcess(pid int) (*ending, error) {
	process, err := windows.OpenProcess(windows.SYNCHRONIZE, false, uint32(pid))
	if err != nil {
		return nil, err
	}
	wake, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return nil, errors.Join(err, windows.CloseHandle(process))
	}
	over, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		defer windows.CloseHandle(process)
		which, err := windows.WaitForMultipleObjects([]windows.Handle{process, wake}, false, windows.INFINITE)
		if err == nil && which == windows.WAIT_OBJECT_0 {
			close(over)
		}
	}()
	return &ending{c: over, stop: func() {
		windows.SetEvent(wake)
		<-left
		windows.CloseHandle(wake)
	}}, nil
}
