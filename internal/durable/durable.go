// Package durable makes files that others see appear whole, and stay: a new file is written under
// another name, flushed, given its name by rename, and the directory that holds the name is flushed
// too. After that sequence a reader finds the old content or the new one, never a part, and a power
// cut does not take the name away.
//
//	dir, err := durable.Open(path)
//	err = dir.WriteFile("index.json", data, 0o644)
//
// All paths are relative to a [Dir] and cannot leave it: see [os.Root].
//
// A test can make any step fail with [Dir.Fault].
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Op is a step that can fail.
type Op string

// The steps, as Fault is told them.
const (
	OpWrite   Op = "write"
	OpSync    Op = "sync"
	OpRename  Op = "rename"
	OpSyncDir Op = "syncdir"
)

// Dir is an open directory. Its methods may run at once.
type Dir struct {
	root *os.Root
	// Temp is a directory of the same file system, below this one, in which unfinished files are
	// made. Empty: beside the file that they are to be. It must not change once the Dir is in use.
	Temp string
	// Fault, if set, is asked before each step; an error that it returns is the step's result, and
	// the step is not done. It is for tests, and must not be changed once the Dir is in use.
	Fault func(op Op, name string) error
}

// Open opens a directory that exists.
func Open(dir string) (*Dir, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root}, nil
}

// Root gives access to the directory for what needs no durability: reading, stat, removing.
func (d *Dir) Root() *os.Root { return d.root }

// Close releases the directory's handle.
func (d *Dir) Close() error { return d.root.Close() }

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
	f, err := d.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.fault(OpWrite, temp); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := d.SyncFile(f, temp); err != nil {
		return err
	}
	return f.Close()
}

// SyncFile flushes an open file of this directory to disk.
func (d *Dir) SyncFile(f *os.File, name string) error {
	if err := d.fault(OpSync, name); err != nil {
		return err
	}
	return f.Sync()
}

// Rename gives a file its final name and flushes the directory that now holds it. What had the
// name before is replaced. The content must have been flushed before.
func (d *Dir) Rename(from, to string) error {
	if err := d.fault(OpRename, to); err != nil {
		return err
	}
	if err := d.root.Rename(from, to); err != nil {
		return err
	}
	return d.SyncDir(path.Dir(to))
}

// MkdirAll makes a directory and its parents, and flushes each parent that gained a name.
func (d *Dir) MkdirAll(name string, perm fs.FileMode) error {
	if info, err := d.root.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	if parent := path.Dir(name); parent != "." {
		if err := d.MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := d.root.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.SyncDir(path.Dir(name))
}

// SyncDir flushes the names in a directory to disk.
func (d *Dir) SyncDir(name string) error {
	if err := d.fault(OpSyncDir, name); err != nil {
		return err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return syncDir(f)
}

func (d *Dir) fault(op Op, name string) error {
	if d.Fault == nil {
		return nil
	}
	return d.Fault(op, name)
}

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
