package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/plugin"
)

// ServeOptions say what Serve serves, and where.
type ServeOptions struct {
	// Layout is the layout directory.
	Layout string
	// Listen says how and where the layout is served. Address must be set; port 0 is any that is free.
	Listen plugin.ListenOptions
	// Durability is what an answer promises, "process" or "power", as in sdk.Options. Empty: "process".
	Durability string
	// Ready is called once, when the registry answers, with the place where it does. May be nil.
	Ready func(at plugin.Endpoint)
	// Logger is told what an operator should know. Nil: nobody.
	Logger *slog.Logger
	// AccessLog gets one record of each request. Nil: nobody.
	AccessLog *slog.Logger
}

// Serve serves a layout until the context ends, or somebody drains the registry. Requests that are under way may
// finish then, and the layout's index.json is brought up to date. Where a plugin has the layout already, Serve has
// that one listen; otherwise it is this process that others share.
//
// Errors: those of host.Open; plugin.ErrAddressInUse; berth.ErrDenied for an address beyond the loopback interface
// without TLS and passwords; what is wrong with the other options.
func Serve(ctx context.Context, opts ServeOptions) error {
	if _, _, err := examine(&opts.Listen, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	var door sync.WaitGroup
	session, err := host.Open(ctx, host.Options{
		Layout:     opts.Layout,
		Launcher:   inProcess{door: &door},
		Listen:     opts.Listen,
		Durability: opts.Durability,
		Logger:     opts.Logger,
		AccessLog:  opts.AccessLog,
	})
	if err != nil {
		return err
	}
	door.Wait() // so that who waits for Ready can share it
	if opts.Ready != nil {
		opts.Ready(session.Endpoint())
	}
	return errors.Join(session.Stay(ctx), session.Close())
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
