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
	if t.resting = len(entries); t.resting < maxResting {
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

// inUse reports whether somebody has the upload of that path, or waits for it.
func (t *uploadTable) inUse(path string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	state := t.live[path]
	return state != nil && state.users > 0
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
	for _, e := range entries {
		name := ingestPath + "/" + e.Name()
		info, err := e.Info()
		left := err == nil && l.ago(info.ModTime()) > abandonedAfter && !l.uploads.inUse(name)
		if left || starting && strings.HasPrefix(e.Name(), durable.TempPrefix) {
			l.log.Info("abandoned upload removed", "file", e.Name())
			l.dir.Root().Remove(name)
		}
	}
	return nil
}
