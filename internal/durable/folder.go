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
	root *os.Root
	self *os.File
	info fs.FileInfo
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
	return &folder{root, self, info}, nil
}

func (f *folder) close() error { return errors.Join(f.self.Close(), f.root.Close()) }

// folders are the directories below a Dir that files were looked for in: each path would be walked from the
// top else, a few calls for each file.
type folders struct {
	mu   sync.Mutex // guards the field below
	open map[string]*known
}

// known is a directory that was right at some time.
type known struct {
	*folder
	looked time.Time
}

// get returns a directory that can be taken for the one of that name.
func (f *folders) get(name string) *folder {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k := f.open[name]; k != nil && time.Since(k.looked) < trustFor {
		return k.folder
	}
	return nil
}

// near returns the directory that a file lies in.
func (d *Dir) near(name string) (*folder, error) {
	name = path.Dir(name)
	if near := d.folders.get(name); near != nil {
		return near, nil
	}
	return d.folders.renew(d.root, name)
}

// renew opens a directory, or finds that the one that is open still has its name.
func (f *folders) renew(root *os.Root, name string) (*folder, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if k := f.open[name]; k != nil && os.SameFile(k.info, info) {
		k.looked = now
		return k.folder, nil
	}
	near, err := openFolder(root, name)
	if err != nil {
		return nil, err
	}
	if f.open == nil {
		f.open = map[string]*known{}
	}
	if len(f.open) == maxFolders {
		clear(f.open)
	}
	f.open[name] = &known{near, now}
	return near, nil
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
	for _, k := range f.open {
		errs = append(errs, k.close())
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
