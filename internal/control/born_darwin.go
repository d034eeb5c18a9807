package control

import (
	"io/fs"
	"syscall"
)

func born(_ string, info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Birthtimespec.Nano()
	}
	return 0
}
