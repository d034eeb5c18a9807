package durable

import (
	"io/fs"
	"os"
)

// Stamp tells one state of a file from another without reading it.
type Stamp struct {
	Inode    uint64 `json:"inode"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // nanoseconds since 1970
}

// StampOf is the stamp of a file that was looked at.
func StampOf(info fs.FileInfo) Stamp {
	return Stamp{Inode: inode(info), Size: info.Size(), Modified: info.ModTime().UnixNano()}
}

// moveIfFree looks and then renames, where the system has no call that does both.
func moveIfFree(root *os.Root, from, to string) error {
	if _, err := root.Lstat(to); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return root.Rename(from, to)
}
