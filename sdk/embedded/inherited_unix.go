//go:build linux || darwin

package embedded

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// closeInherited closes what this process has got from the one that started it, and does not know: a lock or a pipe of
// a build would be held for as long as the registry runs. What Go itself has opened is closed by an exec, and stays.
func closeInherited(keep uintptr) {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 || uintptr(fd) == keep {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}
