package plugin

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// Dialer makes a connection to what answers calls.
type Dialer func(context.Context) (net.Conn, error)

// Connection is a Controller at the other end of connections.
type Connection struct {
	Controller
	client *client
}

// Connect talks to what [ServeControl] answers. Each lease has a connection to itself, and all other calls share
// one. The first of these is conn, which Connect takes over, and others are made when they are needed. When the
// other end is gone, calls return ErrGone, and leases are done.
func Connect(conn net.Conn, more Dialer) *Connection {
	c := &client{spare: conn, more: more}
	c.life, c.end = context.WithCancel(context.Background())
	return &Connection{c, c}
}

// Close ends the connections, and with them all that is under way.
func (c *Connection) Close() error { return c.client.close() }

// client is the host's side: its calls, and the connections that they go by.
type client struct {
	more Dialer
	life context.Context // ends with close
	end  context.CancelFunc

	mu    sync.Mutex // guards the fields below
	spare net.Conn   // nil: there is none any more
	calls *grpc.ClientConn
}

// dial is a connection for a purpose, until the client is closed.
func (c *client) dial(ctx context.Context, purpose byte) (net.Conn, error) {
	conn, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(c.life, func() { conn.Close() })
	if _, err := conn.Write([]byte{purpose}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return conn, nil
}

func (c *client) take(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	conn := c.spare
	c.spare = nil
	c.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	return c.more(ctx)
}

// control is what calls go by. gRPC is set up when it is first needed: that takes longer than a lease does.
func (c *client) control() controlpb.ControlClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = c.dialCalls()
	}
	if c.life.Err() != nil {
		c.calls.Close()
	}
	return controlpb.NewControlClient(c.calls)
}

// dialCalls has one connection, and not another one when that breaks: it could lead to another process.
func (c *client) dialCalls() *grpc.ClientConn {
	var used atomic.Bool
	conn, err := grpc.NewClient("passthrough:///berth", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, ErrGone
			}
			return c.dial(ctx, forCalls)
		}))
	if err != nil {
		panic(fmt.Sprint("options of gRPC: ", err)) // they are constant
	}
	return conn
}

func (c *client) close() error {
	c.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spare != nil {
		c.spare.Close()
		c.spare = nil
	}
	if c.calls == nil {
		return nil
	}
	return c.calls.Close()
}
