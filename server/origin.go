package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// checkOrigin refuses what a browser may have been tricked into sending: a request to a name that is not
// this server's (DNS rebinding), and one that a page of another origin makes (RFC 6454; Fetch Metadata,
// Sec-Fetch-Site). A page of "null" origin is one of another.
func (c *call) checkOrigin() error {
	if !c.knownHost() {
		return fmt.Errorf("%w: %.100q is not a name of this registry; who runs it can add names", berth.ErrDenied, c.r.Host)
	}
	for _, origin := range c.r.Header["Origin"] {
		if !strings.EqualFold(origin, address(c.r)) {
			return fmt.Errorf("%w: no requests from web pages", berth.ErrDenied)
		}
	}
	for _, site := range c.r.Header["Sec-Fetch-Site"] {
		if site == "cross-site" || site == "same-site" {
			return fmt.Errorf("%w: no requests from web pages", berth.ErrDenied)
		}
	}
	return nil
}

// knownHost is ownHost for what was asked the same way last time.
func (c *call) knownHost() bool {
	local, _ := c.r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	last := c.known.Load()
	if last != nil && local != nil && last.host == c.r.Host && last.tls == (c.r.TLS != nil) && last.port == local.Port && last.ip.Equal(local.IP) {
		return true
	}
	if !c.ownHost() {
		return false
	}
	if local != nil {
		c.known.Store(&knownName{c.r.Host, c.r.TLS != nil, local.Port, local.IP})
	}
	return true
}

// address is where a request went to, as the client sees it.
func address(r *http.Request) string { return scheme(r) + "://" + r.Host }

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// ownHost reports whether the Host header names this server: by a name that was configured, or, with the
// port that the connection came to, by one of the loopback interface or by the address that it came to.
func (c *call) ownHost() bool {
	name, port := hostname(c.r.Host), c.port()
	if slices.ContainsFunc(c.opts.Hosts, func(own string) bool { return matchesHost(own, name, port) }) {
		return true
	}
	local, known := c.local()
	if known && port != strconv.Itoa(int(local.Port())) {
		return false
	}
	return ocirequest.IsLoopback(name) || known && name == local.Addr().String()
}

// local is the address that a connection came to. It is not known of one to a Unix socket.
func (c *call) local() (addr netip.AddrPort, known bool) {
	tcp, known := c.r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !known {
		return addr, false
	}
	addr = tcp.AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port()), true
}

// port is that of the Host header, which leaves out the usual one (RFC 9110, 7.2).
func (c *call) port() string {
	port := (&url.URL{Host: c.r.Host}).Port()
	switch {
	case port != "":
		return port
	case c.r.TLS != nil:
		return "443"
	}
	return "80"
}

// matchesHost compares an entry of Options.Hosts. One without a port stands for all ports.
func matchesHost(own, name, port string) bool {
	u := url.URL{Host: own}
	return hostname(own) == name && (u.Port() == "" || u.Port() == port)
}

// hostname is a Host header without its port and without brackets, in the one form of equal names.
func hostname(host string) string {
	name := strings.TrimSuffix(strings.ToLower((&url.URL{Host: host}).Hostname()), ".")
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().WithZone("").String()
	}
	return name
}

// validateHost says what is wrong with an entry of Options.Hosts. A colon is before a port, or in brackets.
func validateHost(own string) error {
	u, err := url.Parse("//" + own)
	if err != nil || u.Host != own || strings.Contains(own, "*") || strings.HasSuffix(own, ":") ||
		u.Hostname() == "" || own[0] != '[' && strings.Contains(u.Hostname(), ":") {
		return fmt.Errorf("%.100q is no name of a host: want HOST or HOST:PORT, like registry.example.com:5000", own)
	}
	return nil
}
