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
	links *links
}

// Connect talks to what [ServeControl] answers. Each lease has a connection to itself, and all other calls share
// one. The first of these is conn, which Connect takes over, and others are made when they are needed. When the
// other end is gone, calls return ErrGone, and leases are done.
func Connect(conn net.Conn, more Dialer) *Connection {
	l := &links{spare: conn, more: more}
	l.life, l.end = context.WithCancel(context.Background())
	return &Connection{&client{l}, l}
}

// Close ends the connections, and with them all that is under way.
func (c *Connection) Close() error { return c.links.close() }

// links are a host's connections to one plugin.
type links struct {
	more Dialer
	life context.Context // ends with close
	end  context.CancelFunc

	mu    sync.Mutex // guards the fields below
	spare net.Conn   // nil: there is none any more
	calls *grpc.ClientConn
}

// dial is a connection for a purpose, until the links are closed.
func (l *links) dial(ctx context.Context, purpose byte) (net.Conn, error) {
	conn, err := l.take(ctx)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(l.life, func() { conn.Close() })
	if _, err := conn.Write([]byte{purpose}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return conn, nil
}

func (l *links) take(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	conn := l.spare
	l.spare = nil
	l.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	return l.more(ctx)
}

// control is what calls go by. gRPC is set up when it is first needed: that takes longer than a lease does.
func (l *links) control() controlpb.ControlClient {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls == nil {
		l.calls = l.dialCalls()
	}
	if l.life.Err() != nil {
		l.calls.Close()
	}
	return controlpb.NewControlClient(l.calls)
}

// dialCalls has one connection, and not another one when that breaks: it could lead to another process.
func (l *links) dialCalls() *grpc.ClientConn {
	var used atomic.Bool
	conn, err := grpc.NewClient("passthrough:///berth", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, ErrGone
			}
			return l.dial(ctx, forCalls)
		}))
	if err != nil {
		panic(fmt.Sprint("options of gRPC: ", err)) // they are constant
	}
	return conn
}

func (l *links) close() error {
	l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spare != nil {
		l.spare.Close()
		l.spare = nil
	}
	if l.calls == nil {
		return nil
	}
	return l.calls.Close()
}
