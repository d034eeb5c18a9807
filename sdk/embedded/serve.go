package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/server"
)

// ServeOptions say what Serve serves, and where.
type ServeOptions struct {
	// Layout is the layout directory.
	Layout string
	// Address is HOST:PORT. The host must be one of the loopback interface; port 0 is any that is
	// free.
	Address string
	// Server says how the layout is served.
	Server server.Options
	// Durability is what an answer promises, "process" or "power", as in sdk.Options. Empty: "process".
	Durability string
	// Ready is called once, with the address that the registry answers at. May be nil.
	Ready func(address string)
	// Logger is told what an operator should know. Nil: nobody.
	Logger *slog.Logger
}

// Serve serves a layout until the context ends. Requests that are under way may finish then, and the
// layout's index.json is brought up to date. Meanwhile [Maintain] reaches the layout through this
// process.
//
// Errors: berth.ErrLayoutInUse, berth.ErrLayoutInvalid; berth.ErrDenied for an address beyond the
// loopback interface.
func Serve(ctx context.Context, opts ServeOptions) (err error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if err := CheckAddress(opts.Address); err != nil {
		return fmt.Errorf("address %q: %w", opts.Address, err)
	}
	c := newController(ctx, plugin.Config{Layout: opts.Layout, Durability: opts.Durability}, opts.Logger)
	defer func() { err = errors.Join(err, c.close()) }()
	if c.failed != nil {
		return c.failed
	}
	c.upkeep.readOnly = opts.Server.ReadOnly
	listener, err := net.Listen("tcp", opts.Address)
	if err != nil {
		return fmt.Errorf("address %s: %w; stop what listens there, or choose another --addr", opts.Address, plainCause(err))
	}
	opts.Server.Logger = opts.Logger
	return c.serve(ctx, listener, &opts)
}

// serve answers at a listener until the context ends.
func (c *controller) serve(ctx context.Context, listener net.Listener, opts *ServeOptions) error {
	srv := newHTTPServer(c.layout, &opts.Server)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	c.open(slog.LevelWarn)
	if opts.Ready != nil {
		opts.Ready(listener.Addr().String())
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	c.quiesce()
	err := srv.shutdown()
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// plainCause is a network error without the operation and address that are told already.
func plainCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// CheckAddress says what is wrong with an address for [Serve]: one that is no HOST:PORT, or that others
// can reach, because nothing is encrypted there.
//
// Errors: berth.ErrDenied for an address beyond the loopback interface.
func CheckAddress(address string) error {
	name, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return errors.New("want HOST:PORT, like 127.0.0.1:5000")
	}
	if ip := net.ParseIP(name); name == "localhost" || (ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%w: only loopback addresses are served, like 127.0.0.1:5000", berth.ErrDenied)
}
