package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// ErrGone is what calls return when the process that should answer them has ended.
var ErrGone = errors.New("plugin is gone")

// ControlServer answers the calls of all hosts.
type ControlServer struct {
	grpc   *grpc.Server
	calls  *callers
	stub   *stub
	ending sync.Once
	served chan struct{}
}

// ServeControl answers with c what comes to a listener. Who may call is up to the listener; the server
// closes it.
func ServeControl(listener net.Listener, c Controller) *ControlServer {
	s := &ControlServer{stub: newStub(c), calls: &callers{Listener: listener, open: map[*caller]bool{}}, served: make(chan struct{})}
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(greetingTime), grpc.Creds(sorter{insecure.NewCredentials(), s.stub}))
	controlpb.RegisterControlServer(s.grpc, s.stub)
	go func() {
		defer close(s.served)
		s.grpc.Serve(s.calls)
	}()
	return s
}

// Shutdown closes the listener, ends checkouts, and lets the other calls that are under way finish;
// when the context ends, they are cut off. No call is running when it returns.
func (s *ControlServer) Shutdown(ctx context.Context) {
	s.ending.Do(func() { close(s.stub.ending) })
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.grpc.GracefulStop()
	}()
	select {
	case <-finished:
	case <-ctx.Done():
		s.calls.cut() // gRPC itself waits for those who have not greeted yet
		s.grpc.Stop()
	}
	<-finished
	<-s.served
}

// greetingTime is how long a caller may take to greet, as HTTP/2 has it.
const greetingTime = 10 * time.Second

// sorter looks what a connection is for, where gRPC lets others negotiate about security: in a goroutine of the
// connection's own, for which Shutdown waits.
type sorter struct {
	credentials.TransportCredentials
	stub *stub
}

func (s sorter) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var purpose [1]byte
	if _, err := io.ReadFull(conn, purpose[:]); err != nil {
		return nil, nil, err
	}
	switch purpose[0] {
	case forCalls:
		return s.TransportCredentials.ServerHandshake(conn)
	case forLease:
		s.stub.serveLease(conn)
		return nil, nil, credentials.ErrConnDispatched
	}
	return nil, nil, fmt.Errorf("a connection for %q", purpose)
}

func (s sorter) Clone() credentials.TransportCredentials { return s }

// callers are the connections of a listener.
type callers struct {
	net.Listener

	mu   sync.Mutex // guards the fields below
	open map[*caller]bool
	over bool
}

func (c *callers) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	own := &caller{conn, c}
	c.open[own] = true
	if c.over {
		conn.Close()
	}
	return own, nil
}

// cut closes all connections, now and from now on.
func (c *callers) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for one := range c.open {
		one.Conn.Close()
	}
}

// caller is one of them.
type caller struct {
	net.Conn
	all *callers
}

func (c *caller) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}
