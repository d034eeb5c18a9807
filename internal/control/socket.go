package control

import (
	"errors"
	"os"
)

// SocketFile is where the owner of a layout can be asked for work on it as a whole. Its mode is 0600,
// and only the owner's user and root are let in.
const SocketFile = Dir + "/" + socketName

const socketName = "control.sock"

// ErrNotRunning is returned by Dial where nobody answers for a layout.
var ErrNotRunning = errors.New("no process serves the layout")

// Identify returns what tells a directory from all others of this machine while it exists, whatever
// path leads to it. Where a system has no such numbers, they are zero.
func Identify(dir string) (device, inode uint64, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, 0, err
	}
	device, inode = identity(info)
	return device, inode, nil
}
