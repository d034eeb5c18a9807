package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// helloTimeout bounds how long an owner may take to say who it is: one that was stopped never does.
const helloTimeout = 10 * time.Second

// ErrNotRunning is returned by Attach where no process answers for a layout.
var ErrNotRunning = control.ErrNotRunning

// Owner is the process that owns a layout, as another process talks to it. A call that is under way
// when the owner ends returns plugin.ErrGone. Close ends what is under way: a collection, a check or a checkout.
type Owner struct {
	*plugin.Connection
	info plugin.Info
}

// silent tells of an owner that was stopped, or is far too busy.
func silent(layout string) error {
	who := "who owns it"
	if holder, err := control.Owner(layout); err == nil && holder.PID != 0 {
		who = holder.String()
	}
	return fmt.Errorf("%s has not answered for %v: end that process, or wait for it", who, helloTimeout)
}

// dial connects to the process that owns a layout.
func dial(ctx context.Context, layout string) (*plugin.Connection, error) {
	conn, err := control.Dial(ctx, layout)
	if err != nil {
		return nil, err
	}
	return plugin.Connect(conn, func(ctx context.Context) (net.Conn, error) { return control.Dial(ctx, layout) }), nil
}

// Attach finds the process that owns a layout, whether that is a plugin, a program that has berth in
// it, or berth serve. It must be of the same user, or this one root's. It takes no lease: a plugin that is shared
// may end when it has answered what it was asked.
//
// Errors: ErrNotRunning if nobody answers who owns this very directory; berth.ErrDenied where it is another
// user's.
func Attach(ctx context.Context, layout string) (*Owner, error) {
	connection, err := dial(ctx, layout)
	if err != nil {
		return nil, err
	}
	o := &Owner{Connection: connection}
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
		return recognise(layout, o.info)
	case errors.Is(err, plugin.ErrGone):
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	case limited.Err() != nil && ctx.Err() == nil:
		return silent(layout)
	}
	return err
}

// recognise refuses the owner of another directory: the socket came here with a copy of that.
func recognise(layout string, info plugin.Info) error {
	id, err := control.Identify(layout)
	if err == nil && id != info.Identity {
		err = fmt.Errorf("%w: what is in %s there leads to process %d, which serves %s", ErrNotRunning, control.Dir, info.PID, info.Layout)
	}
	return err
}

// Info is who the owner is.
func (o *Owner) Info() plugin.Info { return o.info }

// Stop drains the owner, and waits until it has let its layout go.
func (o *Owner) Stop(ctx context.Context) error {
	owner, err := control.Owner(o.info.Layout)
	if err != nil {
		return err
	}
	if err := o.Drain(ctx); err != nil && !errors.Is(err, plugin.ErrGone) {
		return err
	}
	return awaitEnd(ctx, o.info.Layout, owner)
}

// awaitEnd waits until a process owns a layout no more.
func awaitEnd(ctx context.Context, layout string, owner control.Holder) error {
	look := time.NewTicker(firstPause)
	defer look.Stop()
	for {
		if now, err := control.Owner(layout); err != nil || now != owner {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
