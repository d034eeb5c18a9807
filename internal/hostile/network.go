package hostile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
)

// Serve starts the registry at an address of the loopback interface, until the test ends, and returns
// that: "http://127.0.0.1:PORT". tb is a *testing.T or *testing.B.
func Serve(tb interface{ Cleanup(func()) }, registry *Registry) string {
	srv := httptest.NewServer(registry)
	tb.Cleanup(func() {
		registry.Close() // or srv would wait for what stands still
		srv.Close()
	})
	return srv.URL
}

// Network is an [http.RoundTripper] to handlers in this process, which can have any names and https
// addresses: real connections of net/http, through pipes in place of sockets. Https is only called so: there is no TLS
// on the pipes. Nothing else is in reach.
type Network struct {
	transport *http.Transport

	mu      sync.Mutex // mu guards the fields below
	hosts   map[string]*pipeListener
	servers []*http.Server
	serving sync.WaitGroup
	conns   sync.WaitGroup // that are being served
}

// NewNetwork returns a network without hosts. Close it before the test ends.
func NewNetwork() *Network {
	n := &Network{hosts: map[string]*pipeListener{}}
	n.transport = &http.Transport{
		DialContext:        func(ctx context.Context, _, addr string) (net.Conn, error) { return n.dial(ctx, "http://"+addr) },
		DialTLSContext:     func(ctx context.Context, _, addr string) (net.Conn, error) { return n.dial(ctx, "https://"+addr) },
		DisableCompression: true,
	}
	return n
}

// Handle puts a handler at an origin: "https://registry.example", "http://10.0.0.1:5000".
func (n *Network) Handle(origin string, h http.Handler) {
	req, err := http.NewRequest(http.MethodGet, origin, nil)
	if err != nil {
		panic(err)
	}
	port := req.URL.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[req.URL.Scheme]
	}
	if req.URL.Scheme == "https" {
		h = asTLS(h)
	}
	listener := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0), ConnState: n.count}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[req.URL.Scheme+"://"+net.JoinHostPort(req.URL.Hostname(), port)] = listener
	n.servers = append(n.servers, srv)
	n.serving.Go(func() { srv.Serve(listener) })
}

func (n *Network) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		n.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		n.conns.Done()
	}
}

// asTLS has a handler see requests as if they had come over TLS.
func asTLS(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = &tls.ConnectionState{}
		h.ServeHTTP(w, r)
	})
}

// RoundTrip sends a request to the handler of its origin.
func (n *Network) RoundTrip(req *http.Request) (*http.Response, error) {
	return n.transport.RoundTrip(req)
}

// CloseIdleConnections closes the connections that no request uses.
func (n *Network) CloseIdleConnections() { n.transport.CloseIdleConnections() }

// Close ends all hosts and connections, and returns when nothing is served any more. A [Registry] that stands still must be closed
// before.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, srv := range n.servers {
		srv.Close()
	}
	n.transport.CloseIdleConnections()
	n.serving.Wait()
	n.conns.Wait()
}

func (n *Network) dial(ctx context.Context, origin string) (net.Conn, error) {
	n.mu.Lock()
	listener := n.hosts[origin]
	n.mu.Unlock()
	if listener == nil {
		return nil, fmt.Errorf("no host at %s", origin)
	}
	client, server := net.Pipe()
	select {
	case listener.conns <- server:
		return client, nil
	case <-listener.closed:
		return nil, errors.New("host is down")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipeListener is a listener whose connections are pipes.
type pipeListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept waits for the next connection.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close has Accept return.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is of no meaning.
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
