package ocirequest

import (
	"net/netip"
	"strings"
)

// IsLoopback reports whether a host, without its port, is this machine: "localhost", a name below it
// (RFC 6761, 6.3), or a loopback address. The name is compared whole: "127.0.0.1.example.com" and
// "localhost.example.com" are others'. The server lets such names in, and a client speaks http to them.
func IsLoopback(host string) bool {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}
