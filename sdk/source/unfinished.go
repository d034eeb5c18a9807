package source

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/berthoci/berth/internal/durable"
)

// unownedAfter is how long what is unfinished is left alone without a look at its owner, who may be about to say that
// it is.
const unownedAfter = time.Minute

// unfinished is a file or a directory that something is written into before it is shown, and a lock on it, which tells
// that its writer lives.
type unfinished struct {
	dir  *os.Root
	name string
	lock *os.File // nil: nothing can be locked here
}

// beginUnfinished makes it, with a name that begins in some way. What has such a name and a writer who was killed
// is removed.
func beginUnfinished(dir *os.Root, prefix string, begin func(name string) error) (*unfinished, error) {
	removeUnowned(dir, prefix)
	u := &unfinished{dir: dir, name: prefix + rand.Text()}
	if err := begin(u.name); err != nil {
		return nil, err
	}
	u.lock, _ = lockFile(dir, u.name)
	return u, nil
}

// close removes it, if it still has its name.
func (u *unfinished) close() error {
	if u.lock != nil {
		u.lock.Close()
	}
	return u.dir.RemoveAll(u.name)
}

func removeUnowned(dir *os.Root, prefix string) {
	entries, _ := fs.ReadDir(dir.FS(), ".")
	for _, entry := range entries {
		random, ok := strings.CutPrefix(entry.Name(), prefix)
		if !ok || len(random) != len(rand.Text()) || !isOld(entry) {
			continue
		}
		if lock, err := lockFile(dir, entry.Name()); err == nil {
			dir.RemoveAll(entry.Name())
			lock.Close()
		}
	}
}

func isOld(entry fs.DirEntry) bool {
	info, err := entry.Info()
	return err == nil && (info.IsDir() || info.Mode().IsRegular()) && time.Since(info.ModTime()) > unownedAfter
}

// lockFile takes the lock of a file or a directory.
//
// Errors: those of durable.TryLock.
func lockFile(dir *os.Root, name string) (*os.File, error) {
	file, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	if err := durable.TryLock(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
