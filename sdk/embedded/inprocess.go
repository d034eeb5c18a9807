package embedded

import (
	"context"
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

// Launch returns when the layout is open. Others are let in a moment later.
func (p inProcess) Launch(ctx context.Context, start host.Start) (host.Plugin, error) {
	kind := plugin.KindProgram
	if start.Key != "" {
		kind = plugin.KindPrivate
	}
	c, err := newController(ctx, start.Config, kind, start.Logger.Handler(), p.grace)
	if err != nil {
		if start.Lock != nil {
			start.Lock.Close()
		}
		return nil, err
	}
	if p.door != nil {
		p.door.Add(1)
	}
	c.door.opening.Go(func() {
		if p.door != nil {
			defer p.door.Done()
		}
		if err := c.door.open(start.Layout, c); err != nil {
			c.log.Warn("no other process can share this layout, collect, check or check it out while it is served", "err", err)
		}
		if start.Lock != nil {
			start.Lock.Close()
		}
	})
	l := local{c, make(chan struct{})}
	go l.attend()
	return l, nil
}

// local is a plugin in this process.
type local struct {
	*controller
	gone chan struct{}
}

// attend closes the layout when that is asked for, by the session or from outside.
func (l local) attend() {
	defer close(l.gone)
	<-l.use.over
	l.close()
}

func (l local) Close() error {
	l.use.finish()
	<-l.gone
	return l.close()
}
