package auth

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// demand is a challenge that was understood: what its host wants of requests.
type demand struct {
	scheme  string   // schemeBasic or schemeBearer
	realm   *url.URL // where tokens are had; nil with Basic, and where a Bearer challenge has none
	service string   // what the token server calls the registry
	scopes  []Scope  // what the challenged request needs, as the registry sees it

	rule   *dialRule // where the realm may be, once its name is resolved; nil: anywhere
	passed error     // why a stronger challenge beside this one could not be answered
}

func (d *demand) realmText() string {
	if d.realm == nil {
		return ""
	}
	return d.realm.String()
}

// demand reads a challenge that the request for target was answered with, from an address of that
// reach.
//
// Errors: *Error where the realm may not be asked.
func (t *Transport) demand(target *url.URL, c challenge, from reach) (*demand, error) {
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
	if known := hostReach(target.Hostname()); known != everywhere {
		from = known
	}
	d.realm = realm
	reason := refusal(target, realm, from)
	switch {
	case reason == "" && !sameOrigin(target, realm) && hostReach(realm.Hostname()) == everywhere:
		d.rule = &dialRule{addr: dialAddr(realm), from: from, allow: func() bool { return t.allows(target, realm) }}
	case reason != "" && !t.allows(target, realm):
		return nil, &Error{Registry: target.Host, Realm: line(realm.Host), Message: "realm " + reason, Err: berth.ErrUnauthorized}
	}
	return d, nil
}

func (t *Transport) allows(registry, realm *url.URL) bool {
	return t.AllowRealm != nil && t.AllowRealm(registry.Host, realm)
}

// resolveRealm returns the realm as an absolute http or https address. It may be relative to the
// request that was challenged (RFC 3986, 5). A user name in it is dropped, for a server does not
// choose what credentials it is sent. Its host is ASCII, as that of every URI is (RFC 3986, 3.2.2): in
// another form it would not be the one that is dialled.
func resolveRealm(target *url.URL, realm string) (*url.URL, error) {
	u, err := target.Parse(realm)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || !isASCII(u.Host) {
		return nil, &Error{
			Registry: target.Host, Realm: line(fmt.Sprintf("%q", realm)),
			Message: "realm is not an http address", Err: berth.ErrUnauthorized,
		}
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	return u, nil
}

// refusal says why a registry's realm is not asked for tokens; "" if it is. A token server is sent
// credentials, so nobody may listen to it; and an address that only this machine or its network can
// reach is not a stranger's to choose. The host of the registry itself is one that the user chose.
func refusal(registry, realm *url.URL, from reach) string {
	switch {
	case sameOrigin(registry, realm):
		return ""
	case realm.Scheme != "https" && !ocirequest.IsLoopback(realm.Hostname()):
		return "is not https" + canAllow
	case bareName(registry.Hostname()) == bareName(realm.Hostname()):
		return ""
	}
	return from.refusal(hostReach(realm.Hostname()))
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
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
