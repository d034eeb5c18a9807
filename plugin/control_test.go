package plugin

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth"
)

// serveControl answers at an address, and returns a connection to that.
func serveControl(t *testing.T, c Controller) (*ControlServer, *Connection) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := ServeControl(listener, c)
	t.Cleanup(func() { shutdown(server) })
	return server, dialControl(t, listener.Addr())
}

func dialControl(t *testing.T, at net.Addr) *Connection {
	t.Helper()
	more := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, at.Network(), at.String())
	}
	conn, err := more(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	connection := Connect(conn, more)
	t.Cleanup(func() { connection.Close() })
	return connection
}

func shutdown(s *ControlServer) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.Shutdown(ctx)
}

func TestCallsCrossASocket(t *testing.T) {
	f := newFake()
	f.upkeep.fsck = fullFsck
	server, c := serveControl(t, f)
	if info, err := c.Hello(t.Context()); err != nil || info.PID != 42 {
		t.Errorf("got %+v, %v", info, err)
	}
	if got, err := c.Fsck(t.Context(), nil); err != nil || got.Tags != fullFsck.Tags {
		t.Errorf("got %+v, %v", got, err)
	}
	f.err = berth.ErrLayoutInvalid
	if err := c.Flush(t.Context()); !errors.Is(err, berth.ErrLayoutInvalid) {
		t.Errorf("got %v", err)
	}
	shutdown(server)
	shutdown(server) // again is no harm
	for range 3 {
		if _, err := c.Hello(t.Context()); !errors.Is(err, ErrGone) {
			t.Errorf("after the end: got %v, want ErrGone", err)
		}
	}
}

// A shutdown ends what would last for ever, and waits for it.
func TestShutdownEndsACheckout(t *testing.T) {
	f := newFake()
	server, c := serveControl(t, f)
	done, err := c.Checkout(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shutdown(server)
	select {
	case <-f.checkout.ended:
	default:
		t.Error("the checkout is not ended")
	}
	if err := done(t.Context()); err == nil || err.Error() != ErrCheckoutCut.Error() {
		t.Errorf("its holder hears %v", err)
	}
}

func TestShutdownLetsCallsFinishUntilItsContextEnds(t *testing.T) {
	f := newFake()
	f.upkeep.hangs = make(chan struct{})
	server, c := serveControl(t, f)
	result := make(chan error, 1)
	go func() {
		_, err := c.GC(context.Background(), nil)
		result <- err
	}()
	<-f.upkeep.hangs
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.Shutdown(ctx)
	}()
	select {
	case <-ended:
		t.Fatal("it did not wait")
	case <-time.After(10 * time.Millisecond):
	}
	cancel()
	wait(t, ended, "the server")
	if err := <-result; err == nil {
		t.Error("a call that was cut off succeeded")
	}
}

func TestAConnectionThatNeverSpeaksIsClosed(t *testing.T) {
	near, far := net.Pipe()
	if err := Connect(near, nil).Close(); err != nil {
		t.Error(err)
	}
	far.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := far.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want its end", err)
	}
}

// A lease that its plugin does not end is cut off with the calls.
func TestShutdownCutsALease(t *testing.T) {
	f := newFake()
	server, c := serveControl(t, f)
	lease, err := c.Lease(t.Context(), LeaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	server.Shutdown(ctx)
	wait(t, f.lease.gone, "the plugin's lease")
	wait(t, lease.Done(), "the host's lease")
	if err := lease.Close(); err != nil {
		t.Error(err)
	}
}

// Who says what nobody understands is not listened to any longer, and others are.
func TestConnectionsForSomethingElseAreClosed(t *testing.T) {
	server, c := serveControl(t, newFake())
	at := server.calls.Addr()
	for name, said := range map[string]string{
		"HTTP":              "GET / HTTP/1.1\r\n\r\n",
		"no lease":          "L\x03abc",
		"too large a lease": "L\xff\xff\xff\xff\x7f",
		"no calls":          "C" + strings.Repeat("x", 100),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial(at.Network(), at.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			if _, err := conn.Write([]byte(said)); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) || len(answer) > 1<<10 {
				t.Errorf("got %q, %v", answer, err)
			}
		})
	}
	if _, err := c.Hello(t.Context()); err != nil {
		t.Error(err)
	}
	lease, err := c.Lease(t.Context(), LeaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Close(); err != nil {
		t.Error(err)
	}
}
