//go:build !linux

package durable

import (
	"io/fs"
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

func openDirect(*os.Root, string, int) (*os.File, error) { return nil, ErrNoDirect }

func openIn(near *folder, name string, flag int, perm fs.FileMode) (*os.File, error) {
	return near.root.OpenFile(name, flag, perm)
}

func exchange(*Dir, string, string) error { return ErrNoExchange }

func moveNew(d *Dir, from, to string) error { return moveIfFree(d.root, from, to) }
