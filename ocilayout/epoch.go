package ocilayout

import (
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/berthoci/berth/internal/control"
)

// epoch keeps account of how the index is left, should the process end at this moment.
type epoch struct {
	layout *Layout
	found  control.Epoch // what the last owner left
	here   control.Place
	// left: there is an index that was in use when its last owner ended.
	left bool
	// lost: what that owner wrote without flushing it is no longer in memory.
	lost bool

	mu     sync.Mutex // guards the field below
	marked bool       // the file says that the index is in use
}

// readEpoch finds out what can be believed of what is there.
func (l *Layout) readEpoch() (err error) {
	l.epoch.layout = l
	if l.epoch.found, err = control.ReadEpoch(l.dir.Root()); err != nil {
		return err
	}
	if l.epoch.here, err = control.Here(l.dir.Root()); err != nil {
		return err
	}
	if _, err = l.dir.Root().Lstat(indexPath); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	found := l.epoch.found
	l.epoch.left = err == nil && !found.Clean
	l.epoch.lost = l.epoch.left && !found.Same(l.epoch.here) && found.Mode != Power.String()
	return err
}

// unused reports whether no index was ever written to here, as far as can be known. Then nothing was
// promised of what there is, and a power cut may have left any part of it.
func (e *epoch) unused() bool { return e.found.Mode == "" }

// begin says on disk that the index is being written to, before it first is.
func (e *epoch) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.marked {
		return nil
	}
	// An index that was made, or written in process mode, becomes one of power mode with all that it speaks of.
	if e.layout.mode() == Power && (e.left || e.unused()) {
		if err := e.layout.settle(); err != nil {
			return err
		}
	}
	if err := e.write(control.Epoch{}); err != nil {
		return err
	}
	e.marked = true
	e.layout.loadBallast()
	return nil
}

// changed reports whether the index was written to.
func (e *epoch) changed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.marked
}

// renew says on disk that the mode has changed.
func (e *epoch) renew(mode Durability) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.marked {
		return nil
	}
	err := e.write(control.Epoch{Mode: mode.String()})
	e.marked = err == nil // what is there after a failure is not known: the next change writes it again
	return err
}

// end says on disk how the index was left.
func (e *epoch) end() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	last := control.Epoch{Clean: true, Closed: time.Now().UTC()}
	if e.layout.db.damaged.Load() {
		last = control.Epoch{Damaged: true}
	}
	return e.write(last)
}

// write writes the file. What was made before it is on disk then.
func (e *epoch) write(now control.Epoch) error {
	if err := e.layout.dir.Settle(); err != nil {
		return err
	}
	now.Place = e.here
	if now.Mode == "" {
		now.Mode = e.layout.mode().String()
	}
	data, err := now.Encode()
	if err != nil {
		return err
	}
	return e.layout.dir.WriteFile(control.EpochFile, data, 0o600)
}

// rested reports whether the last owner closed the layout longer ago than d.
func (e *epoch) rested(d time.Duration) bool {
	since := time.Since(e.found.Closed)
	return e.found.Clean && since > d
}
