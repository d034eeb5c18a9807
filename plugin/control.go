package plugin

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
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
		grpc.ConnectionTimeout(greetingTime))
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

// Connection is a Controller at the other end of a connection.
type Connection struct {
	Controller
	grpc *grpc.ClientConn
	conn net.Conn
}

// Connect talks over a connection, which it takes over, to what ServeControl answers at its other end.
// When the other end is gone, calls return ErrGone, and leases are done.
func Connect(conn net.Conn) (*Connection, error) {
	var used atomic.Bool
	client, err := grpc.NewClient("passthrough:///berth", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0), // this connection is the only one
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, ErrGone
			}
			return conn, nil
		}))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Connection{Controller: newClient(client), grpc: client, conn: conn}, nil
}

// Close ends the connection, and with it all that is under way on it.
func (c *Connection) Close() error {
	err := c.grpc.Close()
	c.conn.Close() // in case that nothing was ever said
	return err
}
