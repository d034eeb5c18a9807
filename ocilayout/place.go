package ocilayout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/internal/control"
)

// place gives a finished file of ingest/ its name in blobs/. In power mode its bytes are on disk
// then, and its name is once folderToFlush is; in process mode both are noted for the next flush.
//
// A file that has the name already is replaced: it holds the same bytes, unless it was damaged, and
// then this mends it. What may be on disk already must not be replaced by what is not, so then the
// bytes are flushed first.
func (l *Layout) place(f *os.File, name string, d digest.Digest, size int64) error {
	// An index.json that a power cut may leave unfinished is one beside which there is no blob.
	if err := l.dir.Settle(); err != nil {
		return err
	}
	target := blobPath(d)
	err := l.placeAt(f, name, target, size)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.dir.MkdirAll(path.Dir(target), 0o755); err != nil {
		return err
	}
	return l.placeAt(f, name, target, size)
}

func (l *Layout) placeAt(f *os.File, name, target string, size int64) error {
	if l.mode() == Process {
		err := l.dir.MoveNew(name, target)
		if err == nil {
			l.note(target, size)
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := l.dir.SyncFile(f, name); err != nil {
		return err
	}
	if err := l.replace(name, target); err != nil {
		return err
	}
	if l.mode() == Process {
		l.note(target, size)
	}
	return nil
}

// note notes a file for the next flush: when it has its name, because a flush looks for that, and before
// it is committed, because a flush that names it begins after that.
func (l *Layout) note(target string, size int64) {
	l.unflushed.add(target, size)
	l.publisher.wake()
}

// adopt makes a file that is there already as durable as one that is placed: who wrote it may not
// have flushed it.
func (l *Layout) adopt(d digest.Digest, size int64) error {
	if l.mode() == Power {
		return l.dir.SyncPath(blobPath(d))
	}
	l.note(blobPath(d), size)
	return nil
}

// replace renames a file over whatever has the name, which may be a directory that somebody put
// there, or the same file, by a hard link: to rename that would do nothing.
func (l *Layout) replace(name, target string) error {
	info, err := l.dir.Root().Lstat(target)
	if err == nil && info.IsDir() {
		if err := l.quarantine(target); err != nil {
			return err
		}
	}
	if own, ownErr := l.dir.Root().Lstat(name); err == nil && ownErr == nil && os.SameFile(info, own) {
		return l.dir.Root().Remove(name)
	}
	return l.dir.Move(name, target)
}

// folderToFlush is the directory whose names must be on disk before a change that vouches for the
// blob is, or empty.
func (l *Layout) folderToFlush(d digest.Digest) string {
	if l.mode() == Process {
		return ""
	}
	return path.Dir(blobPath(d))
}

// quarantinePath is where files go that are not what their name says.
const quarantinePath = control.Dir + "/quarantine"

// quarantine takes a file, or whatever it is, out of blobs/ and keeps it for whoever wants to know
// what happened to it.
func (l *Layout) quarantine(name string) error {
	if err := l.dir.MkdirAll(quarantinePath, 0o700); err != nil {
		return err
	}
	aside := quarantinePath + "/" + path.Base(path.Dir(name)) + "-" + path.Base(name)
	if err := l.dir.Root().RemoveAll(aside); err != nil { // an earlier one of the same name
		return err
	}
	if err := l.dir.Move(name, aside); err != nil {
		return err
	}
	return errors.Join(l.dir.SyncDir(path.Dir(name)), l.dir.SyncDir(quarantinePath))
}

// openRegular opens a file that is a regular one, and not reached through a symbolic link.
func (l *Layout) openRegular(name string, flag int) (*os.File, error) {
	seen, err := l.dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !seen.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: a %s: %w", l.path(name), kindOf(seen.Mode()), fs.ErrNotExist)
	}
	f, err := l.dir.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(seen, opened) {
		f.Close()
		return nil, fmt.Errorf("%s was exchanged while it was opened: %w", l.path(name), fs.ErrNotExist)
	}
	return f, nil
}
