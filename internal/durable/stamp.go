package durable

import (
	"io/fs"
	"os"
	"time"
)

// Stamp tells one state of a file from another without reading it.
type Stamp struct {
	Inode    uint64 `json:"inode"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // nanoseconds since 1970
}

// StampOf is the stamp of a file that was looked at.
func StampOf(info fs.FileInfo) Stamp {
	_, inode, _, _ := Identity(info)
	return Stamp{Inode: inode, Size: info.Size(), Modified: info.ModTime().UnixNano()}
}

// ChangedAt is when a file was last written, linked or renamed, as far as the system tells: who copies a
// file may give it the time of the original, and cannot keep the time of that.
func ChangedAt(info fs.FileInfo) time.Time {
	if at := changed(info); at.After(info.ModTime()) {
		return at
	}
	return info.ModTime()
}

// moveIfFree looks and then renames, where the system has no call that does both.
func moveIfFree(root *os.Root, from, to string) error {
	if _, err := root.Lstat(to); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return root.Rename(from, to)
}
