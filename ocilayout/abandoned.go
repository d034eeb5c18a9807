package ocilayout

import (
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

const (
	// abandonedAfter is how long an upload may rest before its bytes are thrown away.
	abandonedAfter = 24 * time.Hour
	// sweepEvery is how often abandoned uploads are looked for.
	sweepEvery = time.Hour
	// maxResting bounds how many uploads may be left unfinished.
	maxResting = 2_000
)

// admitUpload refuses an upload where too many were begun and left. Files are counted only when there
// may be as many: an upload that is left and taken up again and again is one file.
func (l *Layout) admitUpload() error {
	t := &l.uploads
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.resting < maxResting {
		return nil
	}
	entries, err := fs.ReadDir(l.dir.Root().FS(), ingestPath)
	if err != nil {
		return err
	}
	t.resting = len(entries)
	for range t.empty {
		t.resting++
	}
	if t.resting < maxResting {
		return nil
	}
	return fmt.Errorf("%w: %d uploads were begun and not finished; finish or cancel them", berth.ErrTooManyRequests, t.resting)
}

// left counts an upload that is left for later.
func (t *uploadTable) left() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resting++
}

// keepEmpty notes that an upload rests without a file, if not too many do.
func (t *uploadTable) keepEmpty(state *uploadState) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.live) > maxStates {
		return false
	}
	state.empty = time.Now()
	return true
}

// takeEmpty ends that, and reports whether it was so.
func (t *uploadTable) takeEmpty(state *uploadState) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	empty := !state.empty.IsZero()
	state.empty = time.Time{}
	return empty
}

// empty yields the paths and states of uploads that rest without a file. The table must be locked.
func (t *uploadTable) empty(yield func(string, *uploadState) bool) {
	for path, state := range t.live {
		if !state.empty.IsZero() && !yield(path, state) {
			return
		}
	}
}

// leaveFiles gives each of them its file, for the next owner of the layout.
func (l *Layout) leaveFiles() {
	l.uploads.mu.Lock()
	defer l.uploads.mu.Unlock()
	for path := range l.uploads.empty {
		f, err := l.dir.Create(path, 0o644)
		if err != nil {
			l.log.Info("uploads that were begun are forgotten", "err", err)
			return
		}
		f.Close()
	}
}

// forgetEmpty forgets those that nobody will come back for.
func (t *uploadTable) forgetEmpty() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for path, state := range t.empty {
		if state.users == 0 && time.Since(state.empty) > abandonedAfter {
			delete(t.live, path)
		}
	}
}

// forget drops what is kept of an upload, unless somebody has it, or waits for it.
func (t *uploadTable) forget(path string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if state := t.live[path]; state != nil && state.users > 0 {
		return false
	}
	delete(t.live, path)
	return true
}

// sweepDue reports whether it is time to look for abandoned uploads again.
func (l *Layout) sweepDue() bool {
	l.uploads.mu.Lock()
	defer l.uploads.mu.Unlock()
	due := time.Since(l.uploads.swept) > sweepEvery
	if due {
		l.uploads.swept = time.Now()
	}
	return due
}

// sweepIngest throws away what nobody will come back for. At the start that is also every file that
// only a running process finishes.
func (l *Layout) sweepIngest(starting bool) error {
	entries, err := fs.ReadDir(l.dir.Root().FS(), ingestPath)
	if err != nil {
		return err
	}
	if starting {
		l.uploads.resting = len(entries)
	}
	l.uploads.forgetEmpty()
	for _, e := range entries {
		name := ingestPath + "/" + e.Name()
		info, err := e.Info()
		left := err == nil && l.ago(info.ModTime()) > abandonedAfter && l.uploads.forget(name)
		if left || starting && strings.HasPrefix(e.Name(), durable.TempPrefix) {
			l.log.Info("abandoned upload removed", "file", e.Name())
			l.dir.Root().Remove(name)
		}
	}
	return nil
}
