package embedded

import (
	"context"
	"sync"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// door is where the owner of a layout takes calls. The zero door is shut.
type door struct {
	opening sync.WaitGroup // of who opens it while the owner works already
	server  *plugin.ControlServer
}

// open takes calls, once.
func (d *door) open(layout string, c plugin.Controller) error {
	listener, err := control.Listen(layout)
	if err != nil {
		return err
	}
	d.server = plugin.ServeControl(listener, c)
	return nil
}

// close takes no new calls, and waits until none is under way: not for longer than the context lasts, for clients
// that do not listen.
func (d *door) close(ctx context.Context) {
	d.opening.Wait()
	if d.server != nil {
		d.server.Shutdown(ctx)
	}
}
