package embedded

import (
	"sync"
	"time"

	"github.com/berthoci/berth/plugin"
)

// firstLease is how long a plugin that was just started waits for its host, at least.
const firstLease = 3 * time.Second

// use counts who needs a plugin, and is over when nobody has for a while, or when it is finished.
type use struct {
	over chan struct{} // closed when it is, with mu held

	mu      sync.Mutex // guards the fields below
	users   int
	idles   bool // it is over by itself
	isMoved func() bool
	stays   time.Duration // without users, from now on
	first   time.Duration // what stays was at the start
	timer   *time.Timer
	turn    int  // counts beginnings: a timer of an earlier turn has nothing to say
	stopped bool // because that was asked for
}

// newUse counts for a plugin that begins now. isMoved ends one that nobody uses without delay.
func newUse(idleTimeout time.Duration, idles bool, isMoved func() bool) *use {
	if idleTimeout == 0 {
		idleTimeout = plugin.DefaultIdleTimeout
	}
	u := &use{over: make(chan struct{}), idles: idles, isMoved: isMoved, first: max(idleTimeout, 0)}
	u.stays = u.first
	if idles {
		u.timer = u.expireAfter(max(u.first, firstLease))
	}
	return u
}

// begin counts one more.
//
// Errors: plugin.ErrEnding.
func (u *use) begin() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.isOver() {
		return plugin.ErrEnding
	}
	u.users++
	u.turn++
	if u.timer != nil {
		u.timer.Stop()
	}
	return nil
}

// stay makes the plugin stay for longer when the last user has left; the longest time counts that one of them
// has asked for.
func (u *use) stay(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stays = max(u.stays, d)
}

// end counts one less.
func (u *use) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.users--; u.users > 0 || !u.idles || u.isOver() {
		return
	}
	d := u.stays
	u.stays = u.first
	if d == 0 || u.isMoved() {
		u.finishLocked()
		return
	}
	u.timer = u.expireAfter(d)
}

// expireAfter ends what nobody has used from now on.
func (u *use) expireAfter(d time.Duration) *time.Timer {
	turn := u.turn
	return time.AfterFunc(d, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.turn == turn {
			u.finishLocked()
		}
	})
}

// stop finishes it because somebody has asked for that.
func (u *use) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = u.stopped || !u.isOver()
	u.finishLocked()
}

func (u *use) wasStopped() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stopped
}

// finish ends it: nothing begins any more.
func (u *use) finish() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.finishLocked()
}

func (u *use) finishLocked() {
	if u.timer != nil {
		u.timer.Stop()
	}
	if !u.isOver() {
		close(u.over)
	}
}

func (u *use) isOver() bool { return isClosed(u.over) }

// timeout is how long the plugin would stay now without a user.
func (u *use) timeout() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stays
}
