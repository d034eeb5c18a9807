package embedded

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// door is the control socket of a layout, at which its owner takes calls. The zero door is shut.
type door struct {
	opening sync.Once
	closing sync.Once
	server  *plugin.ControlServer
	cut     context.CancelFunc // cuts off the calls that are under way
	shut    sync.WaitGroup
}

// open opens the door, once. Without one the registry serves all the same, which is told at a level.
func (d *door) open(layout string, c plugin.Controller, log *slog.Logger, level slog.Level) {
	d.opening.Do(func() {
		listener, err := control.Listen(layout)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			log.Debug("no control socket", "err", err)
		case err != nil:
			log.Log(context.Background(), level, "no control socket: nobody can collect, check or check out this layout while it is served", "err", err)
		default:
			d.server = plugin.ServeControl(listener, c)
		}
	})
}

// beginClose takes no new calls and lets those that are under way end.
func (d *door) beginClose() {
	d.opening.Do(func() {}) // never again; and if it is being opened, wait for that
	d.closing.Do(func() {
		if d.server == nil {
			return
		}
		var ctx context.Context
		ctx, d.cut = context.WithCancel(context.Background())
		d.shut.Go(func() { d.server.Shutdown(ctx) })
	})
}

// close waits until no call is under way: not for long, for clients that do not listen.
func (d *door) close(ctx context.Context) {
	d.beginClose()
	if d.cut == nil {
		return
	}
	stop := context.AfterFunc(ctx, d.cut)
	d.shut.Wait()
	stop()
	d.cut()
}
