package embedded

import (
	"context"
	"errors"
	"sync"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
)

// upkeep is what is done to a layout as a whole, on behalf of others: collections, checks and
// checkouts. All of it ends before the layout is closed.
type upkeep struct {
	layout *ocilayout.Layout
	// leaving is over when nothing may begin any more, patience when what has begun must end.
	leaving, patience context.Context
	leave, hurry      context.CancelFunc
	running           sync.WaitGroup

	mu        sync.Mutex // guards the field below, and beginning against leaving
	checkouts map[*checkout]bool
}

func newUpkeep(layout *ocilayout.Layout) *upkeep {
	u := &upkeep{layout: layout, checkouts: map[*checkout]bool{}}
	u.leaving, u.leave = context.WithCancel(context.Background())
	u.patience, u.hurry = context.WithCancel(context.Background())
	return u
}

// Flush implements [berth.Flusher].
func (u *upkeep) Flush(ctx context.Context) error { return u.layout.Flush(ctx) }

// GC implements [berth.Collector].
func (u *upkeep) GC(ctx context.Context, opts *berth.GCOptions) (report berth.GCReport, err error) {
	err = u.do(ctx, u.patience, func(ctx context.Context) (err error) {
		report, err = u.layout.GC(ctx, opts)
		return err
	})
	return report, err
}

// Fsck implements [berth.Checker].
func (u *upkeep) Fsck(ctx context.Context, opts *berth.FsckOptions) (report berth.FsckReport, err error) {
	err = u.do(ctx, u.patience, func(ctx context.Context) (err error) {
		report, err = u.layout.Fsck(ctx, opts)
		return err
	})
	return report, err
}

// Checkout implements [berth.Checkouter].
func (u *upkeep) Checkout(ctx context.Context) (done func(context.Context) error, err error) {
	held := &checkout{upkeep: u}
	err = u.do(ctx, u.leaving, func(ctx context.Context) (err error) {
		if held.done, err = u.layout.Checkout(ctx); err != nil {
			return err
		}
		u.note(held)
		if u.leaving.Err() != nil { // it was let go by one that was cut
			held.cut()
			return plugin.ErrEnding
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return held.end, nil
}

// do does a piece of work, which is to end when until is over.
func (u *upkeep) do(ctx, until context.Context, work func(context.Context) error) error {
	if !u.begin() {
		return plugin.ErrEnding
	}
	defer u.running.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(until, func() { cancel(plugin.ErrEnding) })()
	err := work(ctx)
	if err != nil && context.Cause(ctx) == plugin.ErrEnding {
		return plugin.ErrEnding
	}
	return err
}

func (u *upkeep) begin() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.leaving.Err() != nil {
		return false
	}
	u.running.Add(1)
	return true
}

func (u *upkeep) note(c *checkout) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.checkouts[c] = true
}

func (u *upkeep) forget(c *checkout) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.checkouts, c)
}

// isHeld reports whether the directory is held for somebody.
func (u *upkeep) isHeld() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.checkouts) > 0
}

// quiesce lets nothing begin any more, and ends checkouts: pushes wait for them.
func (u *upkeep) quiesce() {
	u.mu.Lock()
	u.leave()
	var held []*checkout
	for c := range u.checkouts {
		held = append(held, c)
	}
	u.mu.Unlock()
	for _, c := range held {
		c.cut()
	}
}

// drain returns when nothing is under way any more. What still is when the context ends is ended.
func (u *upkeep) drain(ctx context.Context) {
	u.quiesce()
	stop := context.AfterFunc(ctx, u.hurry)
	u.running.Wait()
	stop()
	u.hurry()
	u.quiesce() // one may have been about to begin
}

// checkout is a directory that is held for somebody.
type checkout struct {
	upkeep *upkeep
	done   func(context.Context) error
	once   sync.Once
	result error
}

// end takes in what was done to the directory.
func (c *checkout) end(ctx context.Context) error {
	c.once.Do(func() {
		c.result = c.done(ctx)
		c.upkeep.forget(c)
	})
	return c.result
}

// cut ends a checkout whose holder has not.
func (c *checkout) cut() {
	c.once.Do(func() {
		c.result = errors.Join(plugin.ErrCheckoutCut, c.done(context.Background()))
		c.upkeep.forget(c)
	})
}
