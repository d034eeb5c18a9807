package control

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func peerUID(fd int) (int, error) {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(peer.Uid), nil
}

// shortPath names the socket by the open directory, however long the directory's own path is.
func shortPath(dir *os.Root, _ string) (name string, release func(), err error) {
	f, err := dir.Open(".")
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socketName), func() { f.Close() }, nil
}
