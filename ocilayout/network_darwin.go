package ocilayout

import (
	"os"

	"golang.org/x/sys/unix"
)

// networkFileSystem returns what kind of network file system a directory lies on, or "".
func networkFileSystem(root *os.Root) string {
	dir, err := root.Open(".")
	if err != nil {
		return ""
	}
	defer dir.Close()
	var st unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &st) != nil || st.Flags&unix.MNT_LOCAL != 0 {
		return ""
	}
	return unix.ByteSliceToString(st.Fstypename[:])
}
