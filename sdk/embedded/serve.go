package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/server"
)

// ServeOptions say what Serve serves, and where.
type ServeOptions struct {
	// Layout is the layout directory.
	Layout string
	// Address is HOST:PORT; port 0 is any that is free. A host beyond the loopback interface is served
	// only with a certificate and an Authorizer in Server. One that is a name is a name of the server.
	Address string
	// CertFile and KeyFile hold the server's certificate, with those of its issuers behind it, and its
	// private key, both as PEM. With them https is served, and nothing else: TLS 1.2 or later, HTTP/2 for
	// those who speak it. Files that change are read again, at most a second later; as long as
	// they do not fit, what was read before is used on. Empty: plain http.
	CertFile, KeyFile string
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
// loopback interface without TLS and an Authorizer; what is wrong with the certificate's files.
func Serve(ctx context.Context, opts ServeOptions) (err error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	guard := Guard{TLS: opts.CertFile != "", Auth: opts.Server.Authorizer != nil}
	if err := CheckAddress(opts.Address, guard); err != nil {
		return fmt.Errorf("address %q: %w", opts.Address, err)
	}
	if err := opts.Server.Validate(); err != nil {
		return err
	}
	certs, err := opts.certificates()
	if err != nil {
		return err
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
	opts.Server.Hosts = slices.Concat(opts.Server.Hosts, ownName(opts.Address, listener.Addr()))
	return c.serve(ctx, listener, &opts, certs)
}

// serve answers at a listener until the context ends.
func (c *controller) serve(ctx context.Context, listener net.Listener, opts *ServeOptions, certs *certificates) error {
	srv := newHTTPServer(c.layout, &opts.Server)
	srv.std.TLSConfig = certs.config()
	served := make(chan error, 1)
	go func() { served <- srv.serve(listener) }()
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

// ownName is the name that an address has, with the port that is listened at; none where it is an IP address,
// which the server knows by itself.
func ownName(address string, listening net.Addr) []string {
	name, _, _ := net.SplitHostPort(address)
	_, port, err := net.SplitHostPort(listening.String())
	if err != nil || name == "" || net.ParseIP(name) != nil {
		return nil
	}
	return []string{net.JoinHostPort(name, port)}
}

// Guard is what keeps others out of an address that they can reach.
type Guard struct {
	TLS  bool // what is sent is encrypted
	Auth bool // who asks has to show that it may
}

// missing is what an address beyond the loopback interface needs besides, in the words of berth serve.
func (g Guard) missing() string {
	var all []string
	if !g.TLS {
		all = append(all, "--tls-cert and --tls-key")
	}
	if !g.Auth {
		all = append(all, "--htpasswd or --access")
	}
	return strings.Join(all, ", and ")
}

// CheckAddress says what is wrong with an address for [Serve]: one that is no HOST:PORT, or that others
// can reach, unless it is guarded in both ways.
//
// Errors: berth.ErrDenied for an address beyond the loopback interface, and what has to be added for it.
func CheckAddress(address string, guard Guard) error {
	name, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return errors.New("want HOST:PORT, like 127.0.0.1:5000")
	}
	if ip := net.ParseIP(name); name == "localhost" || (ip != nil && ip.IsLoopback()) || guard.missing() == "" {
		return nil
	}
	return fmt.Errorf("%w: only loopback addresses, like 127.0.0.1:5000, are served like this; for others add %s", berth.ErrDenied, guard.missing())
}
