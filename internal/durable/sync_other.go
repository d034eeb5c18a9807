//go:build !linux

package durable

import (
	"os"
	"runtime"
)

// syncDir does nothing on Windows: it has no flush for a directory, NTFS journals its names.
func syncDir(f *os.File) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	return f.Sync()
}

func syncAll(*os.File) error { return ErrNoSyncAll }

func startSync(*os.File, int64, int64) {}

func reserve(*os.File, int64, int64) error { return nil }

func openDirect(*os.Root, string) (*os.File, error) { return nil, ErrNoDirect }

func exchange(*os.Root, string, string) error { return ErrNoExchange }

func moveNew(root *os.Root, from, to string) error { return moveIfFree(root, from, to) }
