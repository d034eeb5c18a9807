package auth

import (
	"net/netip"
	"strings"

	"github.com/berthoci/berth/internal/ocirequest"
)

// reach says from where an address can be spoken to.
type reach int32

const (
	everywhere  reach = iota
	sameNetwork       // from one network: the address means something else on each
	sameMachine       // from this machine alone
	nowhere           // link-local, multicast and the like: no token server is there
)

const canAllow = " (AllowRealm can allow it)"

// refusal says why a registry of reach r may not name a realm of the other reach; "" if it may. Who is in
// a network may lead to others in it, and who is on this machine to what is near it.
func (r reach) refusal(realm reach) string {
	switch {
	case realm == sameNetwork && r == everywhere:
		return "is a private address, and the registry is not" + canAllow
	case realm == sameMachine && r != sameMachine:
		return "is on this machine, and the registry is not" + canAllow
	case realm == nowhere:
		return "is an address that no token server has" + canAllow
	}
	return ""
}

// hostReach judges a host as it is written. A name is everywhere: what it resolves to could be
// something else by the time of the connection, so that is judged then.
func hostReach(host string) reach {
	if ocirequest.IsLoopback(host) {
		return sameMachine
	}
	name := bareName(host)
	addr, err := netip.ParseAddr(name)
	switch {
	case err == nil:
		return addrReach(addr)
	case endsInNumber(name):
		return nowhere
	}
	return everywhere
}

func addrReach(addr netip.Addr) reach {
	addr = embedded(addr.WithZone("").Unmap())
	switch {
	case addr.IsLoopback():
		return sameMachine
	case addr.IsPrivate() || within(addr, "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15"): // RFC 6890
		return sameNetwork
	case !addr.IsGlobalUnicast() || within(addr, "0.0.0.0/8", "240.0.0.0/4", "fec0::/10"):
		return nowhere
	}
	return everywhere
}

// embedded returns the IPv4 address that a translator makes of an IPv6 one (RFC 6052, 2.1; RFC 3056, 2),
// or addr where it is none of these.
func embedded(addr netip.Addr) netip.Addr {
	bytes := addr.As16()
	switch {
	case within(addr, "64:ff9b::/96"):
		return netip.AddrFrom4([4]byte(bytes[12:]))
	case within(addr, "2002::/16"):
		return netip.AddrFrom4([4]byte(bytes[2:6]))
	}
	return addr
}

func within(addr netip.Addr, prefixes ...string) bool {
	for _, p := range prefixes {
		if netip.MustParsePrefix(p).Contains(addr) {
			return true
		}
	}
	return false
}

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
