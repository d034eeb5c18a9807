package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
)

// loopbackDialer resolves every name to 127.0.0.1, without asking anybody.
func loopbackDialer() *net.Dialer {
	return &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go answerDNS(server)
		return client, nil
	}}}
}

// answerDNS answers one question over a stream (RFC 1035, 4.2.2).
func answerDNS(c net.Conn) {
	defer c.Close()
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return
	}
	raw := make([]byte, binary.BigEndian.Uint16(length[:]))
	var m dnsmessage.Message
	if _, err := io.ReadFull(c, raw); err != nil || m.Unpack(raw) != nil {
		return
	}
	m.Response, m.Additionals = true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	packed, err := m.Pack()
	if err != nil {
		return
	}
	c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...))
}

// guarded is a token server at https://example.com:PORT, which is this machine, and a guarded transport
// that reaches it.
func guarded(t *testing.T) (realm string, tokens *hostile.TokenServer, transport *http.Transport) {
	tokens = hostile.NewTokenServer(nil)
	srv := httptest.NewTLSServer(tokens)
	t.Cleanup(srv.Close)
	transport = srv.Client().Transport.(*http.Transport).Clone()
	transport.DialContext = GuardDial(loopbackDialer())
	t.Cleanup(transport.CloseIdleConnections)
	_, port, _ := strings.Cut(srv.Listener.Addr().String(), ":")
	return "https://example.com:" + port + "/token", tokens, transport
}

// refuseAll is a proxy that makes no connection, and counts who wanted one.
func refuseAll(t *testing.T, handler http.Handler) (proxy *url.URL, asked *atomic.Int32) {
	asked = new(atomic.Int32)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method == http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	proxy, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return proxy, asked
}

func proxyFor(host string, proxy *url.URL) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if r.URL.Hostname() == host {
			return proxy, nil
		}
		return nil, nil
	}
}

func TestCase11ARealmWhoseNameIsOfThisMachine(t *testing.T) {
	pull := func(rt *Transport, base string) error {
		resp, err := rt.RoundTrip(request(t, http.MethodGet, base+pathA, nil, pullA))
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	refused := func(t *testing.T, err error, tokens *hostile.TokenServer) {
		t.Helper()
		if !errors.Is(err, berth.ErrUnauthorized) || !strings.Contains(err.Error(), "on this machine") {
			t.Errorf("error is %v", err)
		}
		if n := len(tokens.Exchanges()); n != 0 {
			t.Errorf("%d exchanges", n)
		}
	}
	// A public registry: one whose address is not known to be of this machine.
	public := func(t *testing.T, realm string, transport http.RoundTripper) *Transport {
		s := newStage(t, hostile.Options{Realm: realm}, &hostile.TokenOptions{})
		return &Transport{Base: roundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "registry.example" {
				return s.network.RoundTrip(r)
			}
			return transport.RoundTrip(r)
		})}
	}
	t.Run("named by a public registry", func(t *testing.T) {
		realm, tokens, transport := guarded(t)
		refused(t, pull(public(t, realm, transport), registryURL), tokens)
	})
	t.Run("which the user allows", func(t *testing.T) {
		realm, tokens, transport := guarded(t)
		rt := public(t, realm, transport)
		rt.AllowRealm = func(registry string, u *url.URL) bool { return registry == "registry.example" && u.String() == realm }
		if err := pull(rt, registryURL); err != nil || len(tokens.Exchanges()) == 0 {
			t.Errorf("%d exchanges, %v", len(tokens.Exchanges()), err)
		}
	})
	t.Run("named by a registry of this machine", func(t *testing.T) {
		realm, tokens, transport := guarded(t)
		base := hostile.Serve(t, hostile.NewRegistry(&hostile.Options{Tokens: tokens, Realm: realm}))
		base = strings.Replace(base, "127.0.0.1", "registry.test", 1)
		if err := pull(&Transport{Base: transport}, base); err != nil || len(tokens.Exchanges()) == 0 {
			t.Errorf("%d exchanges, %v", len(tokens.Exchanges()), err)
		}
	})
	t.Run("named by a registry behind a proxy of this machine", func(t *testing.T) {
		realm, tokens, transport := guarded(t)
		proxy, _ := refuseAll(t, hostile.NewRegistry(&hostile.Options{Tokens: tokens, Realm: realm}))
		transport.Proxy = proxyFor("registry.test", proxy)
		refused(t, pull(&Transport{Base: transport}, "http://registry.test"), tokens)
	})
	t.Run("which a proxy connects to", func(t *testing.T) {
		realm, _, transport := guarded(t)
		proxy, asked := refuseAll(t, http.NotFoundHandler())
		transport.Proxy = proxyFor("example.com", proxy)
		err := pull(public(t, realm, transport), registryURL)
		if errors.Is(err, berth.ErrUnauthorized) || !strings.Contains(fmt.Sprint(err), "Bad Gateway") || asked.Load() == 0 {
			t.Errorf("error is %v after %d questions to the proxy", err, asked.Load())
		}
	})
}

func TestCase11AddressesOfARealm(t *testing.T) {
	tests := []struct {
		from     reach
		resolved string
		want     bool
	}{
		{everywhere, "8.8.8.8:443", true},
		{everywhere, "10.0.0.1:443", false},
		{everywhere, "[::ffff:10.0.0.1]:443", false},
		{everywhere, "127.0.0.1:443", false},
		{everywhere, "169.254.169.254:443", false},
		{everywhere, "[fd00:ec2::254]:443", false},
		{everywhere, "[fe80::1%eth0]:443", false},
		{everywhere, "[64:ff9b::7f00:1]:443", false},
		{everywhere, "no address", false},
		{sameNetwork, "10.0.0.1:443", true},
		{sameNetwork, "127.0.0.1:443", false},
		{sameNetwork, "169.254.169.254:443", false},
		{sameMachine, "127.0.0.1:443", true},
		{sameMachine, "10.0.0.1:443", true},
		{sameMachine, "169.254.169.254:443", false},
		{nowhere, "10.0.0.1:443", true},
		{nowhere, "127.0.0.1:443", false},
	}
	for _, tt := range tests {
		for _, allowed := range []bool{false, true} {
			rule := &dialRule{addr: "auth.example:443", from: tt.from, allow: func() bool { return allowed }}
			if err := rule.check(tt.resolved); (err == nil) != (tt.want || allowed) {
				t.Errorf("%s for a registry of reach %d, allowed %v: %v", tt.resolved, tt.from, allowed, err)
			}
		}
	}
}

func TestAGuardedDialerDoesWhatItDid(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	failed := errors.New("no sockets today")
	controls := map[string]*net.Dialer{
		"ControlContext": {
			ControlContext: func(context.Context, string, string, syscall.RawConn) error { return failed },
			Control:        func(string, string, syscall.RawConn) error { return nil },
		},
		"Control": {Control: func(string, string, syscall.RawConn) error { return failed }},
		"neither": {},
	}
	rule := &dialRule{addr: addr, from: sameMachine}
	for name, d := range controls {
		for _, ctx := range []context.Context{t.Context(), rule.under(t.Context())} {
			c, err := GuardDial(d)(ctx, "tcp", addr)
			if errors.Is(err, failed) != (name != "neither") {
				t.Errorf("%s: error is %v", name, err)
			}
			if err == nil {
				c.Close()
			}
		}
	}
}
