package durable

import (
	"errors"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
)

// postponed is what is to be flushed later: what is made while nobody relies on it.
type postponed struct {
	on  atomic.Bool // what is to be flushed is put off
	any atomic.Bool // there may be something below

	mu      sync.Mutex      // guards the fields below, and is held while they are flushed
	files   map[string]bool // true: a flush of it has failed
	folders map[string]bool
}

// Postpone puts off every flush of a file or of a directory, until Resume or Settle is called. It is for who
// makes what nobody relies on yet: a power cut may leave any part of that.
func (d *Dir) Postpone() { d.postponed.on.Store(true) }

// Resume ends that. What was put off is flushed by Settle.
func (d *Dir) Resume() { d.postponed.on.Store(false) }

// Settle flushes what was put off, the files first. What could not be flushed is left for the next time, and
// written anew then: the system reports a write that failed once, and takes the bytes for written from then on.
func (d *Dir) Settle() error {
	p := &d.postponed
	p.on.Store(false)
	if !p.any.Load() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, failed := range p.files {
		if err := d.settleFile(name, failed); err != nil {
			p.files[name] = true
			return err
		}
		delete(p.files, name)
	}
	for name := range p.folders {
		if err := d.SyncDir(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(p.folders, name)
	}
	p.any.Store(false)
	return nil
}

func (d *Dir) settleFile(name string, failed bool) error {
	if !failed {
		return d.SyncPath(name)
	}
	info, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	data, err := d.root.ReadFile(name)
	if err != nil {
		return err
	}
	return d.WriteFile(name, data, info.Mode().Perm())
}

// file puts off the flush of a file, and reports whether it did.
func (p *postponed) file(name string) bool { return p.note(&p.files, name) }

// folder puts off the flush of a directory, and reports whether it did.
func (p *postponed) folder(name string) bool { return p.note(&p.folders, name) }

func (p *postponed) note(names *map[string]bool, name string) bool {
	if !p.on.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if *names == nil {
		*names = map[string]bool{}
	}
	(*names)[path.Clean(name)] = false
	p.any.Store(true)
	return true
}

// moved follows a file to its new name.
func (p *postponed) moved(from, to string) {
	if !p.on.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, noted := p.files[path.Clean(from)]; noted {
		p.files[path.Clean(to)] = false
	}
}
