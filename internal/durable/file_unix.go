//go:build !windows

package durable

import (
	"io/fs"
	"os"
	"syscall"
)

// syncFlag opens a file that is to be flushed: one may be flushed that may only be read.
const syncFlag = os.O_RDONLY

// heirOf returns the owner of a directory, if that is not who made this process, and it may give away.
func heirOf(info fs.FileInfo) *heir {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || st.Uid == 0 {
		return nil
	}
	return &heir{int(st.Uid), int(st.Gid)}
}

// Identity tells a file from all others of this machine, and whose it is. It reports false where that is not known.
func Identity(info fs.FileInfo) (device, inode uint64, owner int, known bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, 0, false
	}
	return uint64(st.Dev), st.Ino, int(st.Uid), true
}
