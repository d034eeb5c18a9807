//go:build !windows

package durable

import "os"

func syncDir(f *os.File) error { return f.Sync() }
