package durable

import "io/fs"

// inode is not told by a look at a file here; size and time have to do.
func inode(fs.FileInfo) uint64 { return 0 }
