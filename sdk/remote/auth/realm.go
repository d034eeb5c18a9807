package auth

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// demand is a challenge that was understood: what its host wants of requests.
type demand struct {
	scheme  string   // schemeBasic or schemeBearer
	realm   *url.URL // where tokens are had; nil with Basic, and where a Bearer challenge has none
	service string   // what the token server calls the registry
	scopes  []Scope  // what the challenged request needs, as the registry sees it
}

func (d *demand) realmText() string {
	if d.realm == nil {
		return ""
	}
	return d.realm.String()
}

// demand reads a challenge that the request for target was answered with.
//
// Errors: *Error where the realm may not be asked.
func (t *Transport) demand(target *url.URL, c challenge) (*demand, error) {
	d := &demand{scheme: c.scheme, service: c.params["service"], scopes: parseScopes(c.params["scope"])}
	if d.service == "" {
		d.service = target.Host
	}
	if c.scheme != schemeBearer || c.params["realm"] == "" {
		return d, nil
	}
	realm, err := resolveRealm(target, c.params["realm"])
	if err != nil {
		return nil, err
	}
	if reason := refusal(target, realm); reason != "" && !t.allows(target, realm) {
		return nil, &Error{Registry: target.Host, Realm: line(realm.Host), Message: "realm " + reason, Err: berth.ErrUnauthorized}
	}
	d.realm = realm
	return d, nil
}

func (t *Transport) allows(registry, realm *url.URL) bool {
	return t.AllowRealm != nil && t.AllowRealm(registry.Host, realm)
}

// resolveRealm returns the realm as an absolute http or https address. It may be relative to the
// request that was challenged (RFC 3986, 5). A user name in it is dropped, for a server does not
// choose what credentials it is sent.
func resolveRealm(target *url.URL, realm string) (*url.URL, error) {
	u, err := target.Parse(realm)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return nil, &Error{
			Registry: target.Host, Realm: line(fmt.Sprintf("%q", realm)),
			Message: "realm is not an http address", Err: berth.ErrUnauthorized,
		}
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u, nil
}

// refusal says why a registry's realm is not asked for tokens; "" if it is. A token server is sent
// credentials, so it must be private to listen to; and an address that only this machine can reach
// is not a stranger's to choose.
func refusal(registry, realm *url.URL) string {
	switch {
	case sameOrigin(registry, realm):
		return ""
	case realm.Scheme != "https" && !ocirequest.IsLoopback(realm.Hostname()):
		return "is not https (AllowRealm can allow it)"
	case isInternal(realm.Hostname()) && !isInternal(registry.Hostname()):
		return "is a private address, and the registry is not (AllowRealm can allow it)"
	}
	return ""
}

// sameOrigin reports whether two addresses have the same scheme, host and port (RFC 6454, 5).
func sameOrigin(a, b *url.URL) bool { return originOf(a) == originOf(b) }

// originOf returns scheme, host and port in lower case, with the port always there.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	return strings.ToLower(u.Scheme + "://" + u.Hostname() + ":" + port)
}

func defaultPort(scheme string) string {
	if strings.EqualFold(scheme, "http") {
		return "80"
	}
	return "443"
}

// isInternal reports whether a host is an address that means something else on each network. It
// does not resolve names: the answer could be another one by the time of the connection.
func isInternal(host string) bool {
	if ocirequest.IsLoopback(host) {
		return true
	}
	name := bareName(host)
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return endsInNumber(name)
	}
	addr = addr.Unmap()
	return addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsUnspecified() || addr.IsMulticast() ||
		sharedAddresses().Contains(addr)
}

// sharedAddresses are those of carriers and clouds inside their own networks (RFC 6598).
func sharedAddresses() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10) }

// endsInNumber finds the IPv4 addresses that netip does not take and some resolvers do: "127.1",
// "2130706433", "0x7f.1" (WHATWG URL, 3.5, "ends in a number").
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func bareName(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }
