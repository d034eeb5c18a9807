//go:build !windows

package durable

import (
	"io/fs"
	"os"
	"syscall"
)

// syncFlag opens a file that is to be flushed: one may be flushed that may only be read.
const syncFlag = os.O_RDONLY

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
