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

// unownedAfter is how long what is unfinished is left alone: its owner may be about to lock it, or on another machine, whose
// locks are not seen here.
const unownedAfter = time.Hour

// unfinished is a file or a directory that something is written into before it is shown, and a lock on it, which tells
// that its writer lives.
type unfinished struct {
	dir  *os.Root
	name string
	lock *os.File // nil: nothing can be locked here
}

// beginUnfinished makes it, of a kind (fs.ModeDir, or 0 for a file), with a name that begins in some way. What is such a
// one too, is old, and has a writer who was killed, is removed.
func beginUnfinished(dir *os.Root, kind fs.FileMode, prefix string, begin func(name string) error) (*unfinished, error) {
	removeUnowned(dir, kind, prefix)
	u := &unfinished{dir: dir, name: prefix + rand.Text()}
	err := begin(u.name)
	if err != nil {
		return nil, err
	}
	if u.lock, err = lockFile(dir, u.name); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, errors.Join(err, u.close())
	}
	return u, nil
}

// close removes it, if it still has its name.
func (u *unfinished) close() error {
	if u.lock != nil {
		u.lock.Close()
	}
	return u.dir.RemoveAll(u.name)
}

func removeUnowned(dir *os.Root, kind fs.FileMode, prefix string) {
	entries, _ := fs.ReadDir(dir.FS(), ".")
	for _, entry := range entries {
		random, ok := strings.CutPrefix(entry.Name(), prefix)
		if !ok || entry.Type() != kind || !isRandom(random) || !isOld(entry) {
			continue
		}
		if lock, err := lockFile(dir, entry.Name()); err == nil {
			dir.RemoveAll(entry.Name())
			lock.Close()
		}
	}
}

// isRandom reports whether a text may be one of rand.Text, whose letters are those of base32 (RFC 4648, section 6).
func isRandom(text string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	return len(text) == len(rand.Text()) && strings.Trim(text, letters) == ""
}

func isOld(entry fs.DirEntry) bool {
	info, err := entry.Info()
	return err == nil && time.Since(info.ModTime()) > unownedAfter
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
