package embedded

import (
	"context"
	"errors"
	"fmt"

	"github.com/berthoci/berth/plugin"
)

// Hold takes a lease for another process, which need not speak with this one: it ends with that.
func (c *controller) Hold(ctx context.Context, pid int, opts plugin.LeaseOptions) (plugin.Endpoint, error) {
	ended, err := watchProcess(pid)
	if err != nil {
		return plugin.Endpoint{}, fmt.Errorf("process %d: %w", pid, err)
	}
	opts.Holder.PID = pid
	taken, err := c.Lease(ctx, opts)
	if err != nil {
		ended.stop()
		return plugin.Endpoint{}, err
	}
	watch := func() {
		defer ended.stop()
		select {
		case <-ended.c:
			taken.Close()
		case <-taken.Done():
		}
	}
	if !c.host(watch) {
		ended.stop()
		return plugin.Endpoint{}, errors.Join(plugin.ErrEnding, taken.Close())
	}
	return taken.Grant().Endpoint, nil
}

// host runs what close waits for, unless it is closing.
func (c *controller) host(guest func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return false
	}
	c.guests.Go(guest)
	return true
}

// seal lets no guest in any more, and returns when all leases are known that there will be.
func (c *controller) seal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealed = true
}

// ending is the end of a process that is not this one's child, and may belong to anybody.
type ending struct {
	c    <-chan struct{} // closed when it has ended
	stop func()          // no longer waits for it
}
