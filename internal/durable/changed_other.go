//go:build !linux && !darwin

package durable

import (
	"io/fs"
	"time"
)

// changed is not told by a look at a file here.
func changed(fs.FileInfo) time.Time { return time.Time{} }
