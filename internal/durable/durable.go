// Package durable makes files that others see appear whole, and stay: a new file is written under
// another name, flushed, given its name by rename, and the directory that holds the name is flushed
// too. After that sequence a reader finds the old content or the new one, never a part, and a power
// cut does not take the name away.
//
//	dir, err := durable.Open(path)
//	err = dir.WriteFile("index.json", data, 0o644)
//
// The steps are methods of their own, for those who flush many files at once or later. While something is
// made that nobody relies on yet, all flushes can be put off together: see [Dir.Postpone].
//
// All paths are relative to a [Dir] and cannot leave it: see [os.Root].
//
// A test can make any step fail with [Dir.Fault].
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Op is a step that can fail.
type Op string

// The steps, as Fault is told them.
const (
	OpCreate  Op = "create"
	OpWrite   Op = "write"
	OpSync    Op = "sync"
	OpRename  Op = "rename"
	OpSyncDir Op = "syncdir"
	OpRemove  Op = "remove"
)

// Dir is an open directory. Its methods may run at once.
type Dir struct {
	root *os.Root
	// self stays open: a failed write is reported to who had the file system open when it failed.
	self      *os.File
	folders   folders
	postponed postponed
	// heir is who is given what is made here: the directory's owner, where root works in somebody's
	// directory. Else that one could not go on with it.
	heir *heir
	// Temp is a directory of the same file system, below this one, in which unfinished files are
	// made. Empty: beside the file that they are to be. It must not change once the Dir is in use.
	Temp string
	// Fault, if set, is asked before each step; an error that it returns is the step's result, and
	// the step is not done, unless the error is one of [Late]. It is for tests, and must not be
	// changed while the Dir is in use.
	Fault func(op Op, name string) error
}

// Late is an error that a step returns although it was done.
type Late struct{ Err error }

// Error returns the text of Err.
func (l *Late) Error() string { return l.Err.Error() }

// Unwrap returns Err.
func (l *Late) Unwrap() error { return l.Err }

// Step does one step, or fails as Fault says. The steps of this package all go through it; so may
// others that a test shall see fail.
func (d *Dir) Step(op Op, name string, do func() error) error {
	if d.Fault == nil {
		return do()
	}
	err := d.Fault(op, name)
	if err == nil {
		return do()
	}
	if late := (*Late)(nil); errors.As(err, &late) {
		return errors.Join(do(), err)
	}
	return err
}

// Open opens a directory that exists.
func Open(dir string) (*Dir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	info, err := self.Stat()
	if err != nil {
		return nil, errors.Join(err, self.Close(), root.Close())
	}
	return &Dir{root: root, self: self, heir: heirOf(info)}, nil
}

// heir is a user and a group.
type heir struct{ uid, gid int }

// Bequeath gives what others have made here, if it is there, to the owner of the directory, as all that
// Create and MkdirAll make. It does what it may.
func (d *Dir) Bequeath(names ...string) {
	if d.heir == nil {
		return
	}
	for _, name := range names {
		d.root.Lchown(name, d.heir.uid, d.heir.gid)
	}
}

// Root gives access to the directory for what needs no durability: reading, stat, removing.
func (d *Dir) Root() *os.Root { return d.root }

// Close releases the directory's handle.
func (d *Dir) Close() error {
	return errors.Join(d.self.Close(), d.root.Close(), d.folders.close())
}

// WriteFile replaces the file of that name, or creates it. When it returns nil, content and name
// are on disk. When it fails, the old file is as it was, except where only the last flush failed:
// then the new one is in place, and may not outlive a power cut.
func (d *Dir) WriteFile(name string, data []byte, perm fs.FileMode) error {
	folder := d.Temp
	if folder == "" {
		folder = path.Dir(name)
	}
	temp := path.Join(folder, TempPrefix+rand.Text())
	err := d.writeTemp(temp, data, perm)
	if err == nil {
		err = d.Rename(temp, name)
	}
	if err != nil {
		d.root.Remove(temp)
		return fmt.Errorf("write %s: %w", filepath.Join(d.root.Name(), name), err)
	}
	return nil
}

// TempPrefix begins the name of every unfinished file of WriteFile. One that a process left behind
// when it was killed may be removed.
const TempPrefix = ".tmp-"

func (d *Dir) writeTemp(temp string, data []byte, perm fs.FileMode) error {
	f, err := d.Create(temp, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := d.Writer(f, temp).Write(data); err != nil {
		return err
	}
	if err := d.SyncFile(f, temp); err != nil {
		return err
	}
	return f.Close()
}

// Create makes a new file, which must not be there, for reading and writing.
func (d *Dir) Create(name string, perm fs.FileMode) (f *os.File, err error) {
	err = d.Step(OpCreate, name, func() error {
		f, err = d.open(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, perm)
		if err == nil && d.heir != nil {
			f.Chown(d.heir.uid, d.heir.gid) // a courtesy, which not every root can do
		}
		return err
	})
	if err != nil && f != nil {
		f.Close()
	}
	return f, err
}

// Writer writes to an open file of this directory, in steps that can be made to fail.
func (d *Dir) Writer(f *os.File, name string) io.Writer {
	if d.Fault == nil {
		return f
	}
	return &stepWriter{d, f, name}
}

type stepWriter struct {
	dir  *Dir
	file *os.File
	name string
}

func (w *stepWriter) Write(p []byte) (n int, err error) {
	err = w.dir.Step(OpWrite, w.name, func() error {
		n, err = w.file.Write(p)
		return err
	})
	return n, err
}

// SyncFile flushes an open file of this directory to disk.
func (d *Dir) SyncFile(f *os.File, name string) error {
	if d.postponed.file(name) {
		return nil
	}
	return d.Step(OpSync, name, f.Sync)
}

// Rename gives a file its final name and flushes the directory that now holds it. What had the
// name before is replaced. The content must have been flushed before.
func (d *Dir) Rename(from, to string) error {
	if err := d.Move(from, to); err != nil {
		return err
	}
	return d.SyncDir(path.Dir(to))
}

// Move is Rename without the flush.
func (d *Dir) Move(from, to string) error {
	d.postponed.moved(from, to)
	return d.Step(OpRename, to, func() error { return d.root.Rename(from, to) })
}

// MoveNew is Move for a name that must be free.
//
// Errors: fs.ErrExist.
func (d *Dir) MoveNew(from, to string) error {
	d.postponed.moved(from, to)
	return d.Step(OpRename, to, func() error { return moveNew(d, from, to) })
}

// Link gives a file a second name, which must be free.
//
// Errors: fs.ErrExist.
func (d *Dir) Link(from, to string) error {
	d.postponed.moved(from, to)
	return d.Step(OpRename, to, func() error { return d.root.Link(from, to) })
}

// ErrNoExchange is returned by Exchange where the system or the file system cannot do it.
var ErrNoExchange = errors.New("names cannot be exchanged here")

// Exchange gives each of two files the other's name in one step, so that whoever reads one of the
// names finds one of the files at every moment. It flushes nothing.
//
// Errors: ErrNoExchange.
func (d *Dir) Exchange(a, b string) error {
	d.postponed.moved(a, b)
	return d.Step(OpRename, b, func() error { return exchange(d, a, b) })
}

// Remove takes a file's name away.
func (d *Dir) Remove(name string) error {
	return d.Step(OpRemove, name, func() error { return d.root.Remove(name) })
}

// MkdirAll makes a directory and its parents, and flushes each parent that gained a name.
func (d *Dir) MkdirAll(name string, perm fs.FileMode) error {
	if info, err := d.root.Lstat(name); err == nil && info.IsDir() {
		d.folders.confirm(name, info) // somebody else may just have made it
		d.postponed.folder(path.Dir(name))
		return nil
	}
	if parent := path.Dir(name); parent != "." {
		if err := d.MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	err := d.Step(OpCreate, name, func() error { return d.root.Mkdir(name, perm) })
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d.folders.drop(name)
	d.Bequeath(name)
	if syncErr := d.SyncDir(path.Dir(name)); syncErr != nil {
		if err == nil {
			d.root.Remove(name) // or the next time its name would pass for flushed
		}
		return syncErr
	}
	return nil
}

// SyncDir flushes the names in a directory to disk.
func (d *Dir) SyncDir(name string) error {
	if d.postponed.folder(name) {
		return nil
	}
	return d.Step(OpSyncDir, name, func() error {
		f, err := d.root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return syncDir(f)
	})
}

// SyncPath flushes a file, by its name, to disk. One that is gone, or replaced by something else,
// needs no flush.
func (d *Dir) SyncPath(name string) error {
	if d.postponed.file(name) {
		return nil
	}
	info, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	f, err := d.OpenFile(name, syncFlag)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.SyncFile(f, name)
}

// ErrNoSyncAll is returned by SyncAll where the system cannot do it.
var ErrNoSyncAll = errors.New("a file system cannot be flushed as a whole here")

// SyncAll flushes all of the file system that the directory lies on, in one call.
//
// Errors: ErrNoSyncAll.
func (d *Dir) SyncAll() error {
	return d.Step(OpSync, ".", func() error { return syncAll(d.self) })
}

// DirectUnit is what offset, length and memory address must be multiples of where a file from OpenDirect is read or
// written.
const DirectUnit = 4096

// ErrNoDirect is returned by OpenDirect where the system or the file system cannot do it.
var ErrNoDirect = errors.New("no reading or writing past the system's memory here")

// OpenDirect opens a file, to be written or read past the system's memory, by os.O_WRONLY or os.O_RDONLY: what is
// written goes to the disk at once, without a copy, and who writes waits for that. It is not flushed: see SyncFile.
//
// Errors: ErrNoDirect.
func (d *Dir) OpenDirect(name string, flag int) (*os.File, error) {
	return openDirect(d.root, name, flag)
}

// WriteAt writes to an open file of this directory, in a step that can be made to fail.
func (d *Dir) WriteAt(f *os.File, name string, p []byte, offset int64) (n int, err error) {
	err = d.Step(OpWrite, name, func() error {
		n, err = f.WriteAt(p, offset)
		return err
	})
	return n, err
}

// Reserve asks for room on the disk for a range behind a file's end, so that writing there finds it in
// one piece. The file does not get longer. Where the system cannot do it nothing happens.
// [os.File.Truncate] to the file's own size gives back what was not used.
//
// Errors: those of a full disk.
func Reserve(f *os.File, offset, length int64) error { return reserve(f, offset, length) }

// StartSync tells the system to begin writing a range of a file to disk, and does not wait. It is a
// hint: it promises nothing.
func StartSync(f *os.File, offset, length int64) { startSync(f, offset, length) }

// WriteFile replaces one file by its path, as [Dir.WriteFile] does. Where path is a symbolic link,
// the file that it points to is replaced.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir, err := Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.WriteFile(filepath.Base(path), data, perm)
}
