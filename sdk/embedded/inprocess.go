package embedded

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/plugin"
)

// InProcess serves a layout from within this process: no binary, no second process, the same
// behaviour. Others share the layout for as long as the session lasts that has started it.
func InProcess() host.Launcher { return inProcess{} }

type inProcess struct {
	grace time.Duration   // the longest that a collection is going to be asked to leave. Zero: DefaultGrace
	door  *sync.WaitGroup // is done when others are let in. Nil: nobody wants to know
}

// Launch returns when the layout is open. Others are let in when the first lease has what it came for.
func (p inProcess) Launch(ctx context.Context, start host.Start) (host.Plugin, error) {
	c, err := newController(ctx, start.Config, plugin.KindProgram, start.Logger.Handler(), p.grace)
	if err != nil {
		if start.Lock != nil {
			start.Lock.Close()
		}
		return nil, err
	}
	if p.door != nil {
		p.door.Add(1)
	}
	l := &local{controller: c, launcher: p, lock: start.Lock, gone: make(chan struct{})}
	go l.attend()
	return l, nil
}

// local is a plugin in this process.
type local struct {
	*controller
	launcher inProcess
	lock     *os.File // the start lock, until others are let in. May be nil
	opening  sync.Once
	gone     chan struct{}
}

func (l *local) Lease(ctx context.Context, opts plugin.LeaseOptions) (plugin.Lease, error) {
	lease, err := l.controller.Lease(ctx, opts)
	l.opening.Do(func() { l.door.opening.Go(l.letIn) })
	return lease, err
}

// letIn takes calls from other processes, who wait for the start lock.
func (l *local) letIn() {
	if err := l.door.open(l.cfg.Layout, l); err != nil {
		l.log.Warn("no other process can share this layout, collect, check or check it out while it is served", "err", err)
	}
	l.isOpen()
}

func (l *local) isOpen() {
	if l.lock != nil {
		l.lock.Close()
	}
	if l.launcher.door != nil {
		l.launcher.door.Done()
	}
}

// attend closes the layout when that is asked for, by the session or from outside.
func (l *local) attend() {
	defer close(l.gone)
	<-l.use.over
	l.opening.Do(l.isOpen) // nobody is let in any more
	l.close()
}

func (l *local) Close() error {
	l.use.finish()
	<-l.gone
	return l.close()
}
