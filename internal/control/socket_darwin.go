package control

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func peerUID(fd int) (int, error) {
	peer, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(peer.Uid), nil
}

// shortPath fails: nothing names an open directory here.
func shortPath(_ *os.Root, long string) (name string, release func(), err error) {
	return "", nil, fmt.Errorf("socket %s: %w", long, unix.ENAMETOOLONG)
}
