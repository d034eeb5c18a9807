package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// helloTimeout bounds how long an owner may take to say who it is: one that was stopped never does.
const helloTimeout = 10 * time.Second

// ErrNotRunning is returned by Attach where no process answers for a layout.
var ErrNotRunning = control.ErrNotRunning

// Owner is the process that owns a layout, as another process talks to it. A call that is under way
// when the owner ends returns plugin.ErrGone.
type Owner struct {
	plugin.Controller
	info       plugin.Info
	connection *plugin.Connection
}

// Attach finds the process that owns a layout, whether that is a plugin, a program that has berth in
// it, or berth serve. It must be of the same user, or this one root's.
//
// Errors: ErrNotRunning if nobody answers who owns this very directory.
func Attach(ctx context.Context, layout string) (*Owner, error) {
	conn, err := control.Dial(ctx, layout)
	if err != nil {
		return nil, err
	}
	connection, err := plugin.Connect(conn)
	if err != nil {
		return nil, err
	}
	o := &Owner{Controller: connection, connection: connection}
	if err := o.greet(ctx, layout); err != nil {
		o.Close()
		return nil, fmt.Errorf("layout %s: %w", layout, err)
	}
	return o, nil
}

// greet finds out who answers.
func (o *Owner) greet(ctx context.Context, layout string) (err error) {
	limited, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	o.info, err = o.Hello(limited)
	switch {
	case err == nil:
		return o.recognise(layout)
	case errors.Is(err, plugin.ErrGone):
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	case limited.Err() != nil && ctx.Err() == nil:
		return fmt.Errorf("%w: who owns it does not answer", ErrNotRunning)
	}
	return err
}

// recognise refuses the owner of another directory: the socket came here with a copy of that.
func (o *Owner) recognise(layout string) error {
	device, inode, err := control.Identify(layout)
	if err == nil && (device != o.info.Device || inode != o.info.Inode) {
		err = fmt.Errorf("%w: %s there leads to process %d, which serves %s", ErrNotRunning, control.SocketFile, o.info.PID, o.info.Layout)
	}
	return err
}

// Info is who the owner is.
func (o *Owner) Info() plugin.Info { return o.info }

// Close ends the connection, and what is under way on it: a collection, a check or a checkout.
func (o *Owner) Close() error { return o.connection.Close() }
