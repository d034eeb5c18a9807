package auth

import (
	"context"
	"fmt"
	"net"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/berthoci/berth"
)

// GuardDial returns a function for [http.Transport.DialContext] that connects as d does, but to no
// address that a registry may not name as its realm: for a name that resolves to a private one, or to
// this machine. It looks at what is about to be connected to, so that a name which resolves to something
// else the next time changes nothing. It concerns only the requests that a [Transport] sends to token
// servers, and only new connections; one that a proxy makes is the proxy's to judge.
//
// A registry that was itself reached at such an address may name one: see [Transport]'s AllowRealm, which
// also is asked here.
//
// Errors of the function: those of d, and one that matches [berth.ErrUnauthorized].
func GuardDial(d *net.Dialer) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		rule, _ := ctx.Value(dialRuleKey{}).(*dialRule)
		if rule == nil || !strings.EqualFold(addr, rule.addr) {
			return d.DialContext(ctx, network, addr) // another address than the realm's is a proxy's
		}
		guarded := *d
		guarded.ControlContext = func(ctx context.Context, network, resolved string, c syscall.RawConn) error {
			if err := rule.check(resolved); err != nil {
				return err
			}
			return control(d, ctx, network, resolved, c)
		}
		return guarded.DialContext(ctx, network, addr)
	}
}

// control does what d has to do with a connection before it is made.
func control(d *net.Dialer, ctx context.Context, network, addr string, c syscall.RawConn) error {
	switch {
	case d.ControlContext != nil:
		return d.ControlContext(ctx, network, addr, c)
	case d.Control != nil:
		return d.Control(network, addr, c)
	}
	return nil
}

// dialRule is what must hold of the address of a realm.
type dialRule struct {
	addr  string // of the realm, as it is dialled
	from  reach  // of the registry that named it
	allow func() bool
}

type dialRuleKey struct{}

// under returns a context whose connections are made by the rule. A nil rule demands nothing.
func (r *dialRule) under(ctx context.Context) context.Context {
	return context.WithValue(ctx, dialRuleKey{}, r)
}

// check judges a resolved address, IP:PORT.
func (r *dialRule) check(resolved string) error {
	reason := r.from.refusal(nowhere)
	if ap, err := netip.ParseAddrPort(resolved); err == nil {
		reason = r.from.refusal(addrReach(ap.Addr()))
	}
	if reason == "" || r.allow() {
		return nil
	}
	return fmt.Errorf("realm %s %s: %w", line(r.addr), reason, berth.ErrUnauthorized)
}

// dialAddr is the address that http.Transport dials for u.
func dialAddr(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// route is the way that a request went.
type route struct {
	direct atomic.Bool  // and not over a proxy
	last   atomic.Int32 // the reach of the address
}

// watch returns a context by which the route of a request for u becomes known.
func watch(ctx context.Context, u *url.URL) (context.Context, *route) {
	r := new(route)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(hostPort string) { r.direct.Store(strings.EqualFold(hostPort, dialAddr(u))) },
		GotConn: func(info httptrace.GotConnInfo) { r.last.Store(int32(connReach(info.Conn))) },
	}), r
}

// reach returns everywhere where it is not known.
func (r *route) reach() reach {
	if !r.direct.Load() {
		return everywhere
	}
	return reach(r.last.Load())
}

func connReach(c net.Conn) reach {
	if addr := c.RemoteAddr(); addr != nil {
		if ap, err := netip.ParseAddrPort(addr.String()); err == nil {
			return addrReach(ap.Addr())
		}
	}
	return everywhere
}
