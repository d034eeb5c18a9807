package durable

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"
)

const (
	// maxFolders bounds how many directories are kept open.
	maxFolders = 16
	// trustFor is how long a directory that is kept open is taken for the one of its name: somebody may
	// have put another in its place.
	trustFor = 250 * time.Millisecond
)

// folder is an open directory, for paths from there and for the system's calls. It is closed when nobody has
// it anymore, so who has got it may use it.
type folder struct {
	root   *os.Root
	self   *os.File
	info   fs.FileInfo
	looked time.Time // when it was last seen to have its name
}

func openFolder(parent *os.Root, name string) (*folder, error) {
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	info, err := self.Stat()
	if err != nil {
		return nil, errors.Join(err, self.Close(), root.Close())
	}
	return &folder{root, self, info, time.Now()}, nil
}

func (f *folder) close() error { return errors.Join(f.self.Close(), f.root.Close()) }

// folders are the directories below a Dir that files were looked for in: each path would be walked from the
// top else, a few calls for each file.
type folders struct {
	mu   sync.Mutex // guards the field below, and when each was looked at
	open map[string]*folder
}

// near returns the directory that a file lies in.
func (d *Dir) near(name string) (*folder, error) {
	name = path.Dir(name)
	if near := d.folders.get(name); near != nil {
		return near, nil
	}
	info, err := d.root.Stat(name)
	if err != nil {
		return nil, err
	}
	if near := d.folders.confirm(name, info); near != nil {
		return near, nil
	}
	near, err := openFolder(d.root, name)
	if err == nil {
		d.folders.keep(name, near)
	}
	return near, err
}

// get returns a directory that can be taken for the one of that name, or nil.
func (f *folders) get(name string) *folder {
	f.mu.Lock()
	defer f.mu.Unlock()
	if near := f.open[name]; near != nil && time.Since(near.looked) < trustFor {
		return near
	}
	return nil
}

// confirm returns the directory that is kept open, if it is the one that has the name now, and drops it if not.
func (f *folders) confirm(name string, info fs.FileInfo) *folder {
	f.mu.Lock()
	defer f.mu.Unlock()
	near := f.open[name]
	if near == nil || !os.SameFile(near.info, info) {
		delete(f.open, name)
		return nil
	}
	near.looked = time.Now()
	return near
}

func (f *folders) keep(name string, near *folder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil || len(f.open) == maxFolders {
		f.open = map[string]*folder{}
	}
	f.open[name] = near
}

// drop makes sure that a directory is opened anew.
func (f *folders) drop(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, name)
}

func (f *folders) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, near := range f.open {
		errs = append(errs, near.close())
	}
	clear(f.open)
	return errors.Join(errs...)
}

// Refresh looks for every directory anew, for who knows that others were at work here.
func (d *Dir) Refresh() {
	d.folders.mu.Lock()
	defer d.folders.mu.Unlock()
	clear(d.folders.open)
}

// Lstat tells of a file, or of a symbolic link. A directory of its path that was exchanged for another a
// moment ago may be missed, by this method and by those that open or name a file.
func (d *Dir) Lstat(name string) (fs.FileInfo, error) {
	near, err := d.near(name)
	if err != nil {
		return nil, err
	}
	return near.root.Lstat(path.Base(name))
}

// OpenFile opens a file that is there, by its own name: a symbolic link is not followed, where the system can
// tell. Flag is one of those of [os.OpenFile].
func (d *Dir) OpenFile(name string, flag int) (*os.File, error) { return d.open(name, flag, 0) }

func (d *Dir) open(name string, flag int, perm fs.FileMode) (*os.File, error) {
	near, err := d.near(name)
	if err != nil {
		return nil, err
	}
	return openIn(near, path.Base(name), flag, perm)
}
