package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// fake is a controller that a test decides about.
type fake struct {
	err      error
	lease    *fakeLease
	upkeep   fakeUpkeep
	checkout *fakeCheckout
}

func (f *fake) Hello(context.Context) (Info, error) {
	return Info{Version: "v1.2.3", Layout: "/lay\xffout", PID: 42, Device: 1 << 63, Inode: 7}, f.err
}

func (f *fake) Flush(ctx context.Context) error {
	if errors.Is(f.err, context.DeadlineExceeded) {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

func (f *fake) Lease(context.Context) (Lease, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.lease, nil
}

type fakeLease struct {
	got  ListenOptions
	done chan struct{} // closed by the plugin's side
	gone chan struct{} // closed when the lease is closed
}

func newFake() *fake {
	return &fake{lease: &fakeLease{done: make(chan struct{}), gone: make(chan struct{})}, checkout: &fakeCheckout{ended: make(chan struct{})}}
}

func (l *fakeLease) Listen(_ context.Context, opts ListenOptions) (Endpoint, error) {
	l.got = opts
	return Endpoint{Address: "127.0.0.1:1", Token: "t"}, nil
}

func (l *fakeLease) Done() <-chan struct{} { return l.done }

func (l *fakeLease) Close() error {
	close(l.gone)
	return nil
}

// connect joins a controller and its client by a connection in memory.
func connect(t *testing.T, c Controller) (Controller, *grpc.ClientConn) {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	controlpb.RegisterControlServer(server, newStub(c))
	go server.Serve(listener)
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
	})
	return newClient(conn), conn
}

func TestCallsCross(t *testing.T) {
	f := newFake()
	c, _ := connect(t, f)
	info, err := c.Hello(t.Context())
	if want := (Info{Version: "v1.2.3", Layout: "/lay\xffout", PID: 42, Device: 1 << 63, Inode: 7}); err != nil || info != want {
		t.Errorf("hello: got %+v, %v", info, err)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Errorf("flush: %v", err)
	}
	lease, err := c.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := ListenOptions{Anonymous: true, ReadOnly: true, AllowMissing: true}
	endpoint, err := lease.Listen(t.Context(), want)
	if err != nil || endpoint != (Endpoint{Address: "127.0.0.1:1", Token: "t"}) || f.lease.got != want {
		t.Errorf("listen: got %+v, %v, with options %+v", endpoint, err, f.lease.got)
	}
	if err := lease.Close(); err != nil {
		t.Error(err)
	}
	wait(t, f.lease.gone, "the plugin's lease")
	if _, err := lease.Listen(t.Context(), want); err == nil {
		t.Error("a lease that is closed listens")
	}
}

func wait(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s has not ended", what)
	}
}

func TestALeaseEndsWithEitherSide(t *testing.T) {
	t.Run("the plugin ends it", func(t *testing.T) {
		f := newFake()
		c, _ := connect(t, f)
		lease, err := c.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		close(f.lease.done)
		wait(t, lease.Done(), "the host's lease")
		wait(t, f.lease.gone, "the plugin's lease")
	})
	t.Run("the host dies", func(t *testing.T) {
		f := newFake()
		c, conn := connect(t, f)
		lease, err := c.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		wait(t, f.lease.gone, "the plugin's lease")
		wait(t, lease.Done(), "the host's lease")
	})
	t.Run("the context of the call does not", func(t *testing.T) {
		f := newFake()
		c, _ := connect(t, f)
		ctx, cancel := context.WithCancel(t.Context())
		lease, err := c.Lease(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := lease.Listen(t.Context(), ListenOptions{}); err != nil {
			t.Errorf("the lease ended with the call's context: %v", err)
		}
		lease.Close()
	})
}

func TestErrorsCross(t *testing.T) {
	for _, sentinel := range []error{berth.ErrLayoutInUse, berth.ErrLayoutInvalid, berth.ErrDenied} {
		f := newFake()
		f.err = fmt.Errorf("layout /x: %w: process 42 has it", sentinel)
		c, _ := connect(t, f)
		_, helloErr := c.Hello(t.Context())
		_, leaseErr := c.Lease(t.Context())
		_, gcErr := c.GC(t.Context(), nil)
		_, fsckErr := c.Fsck(t.Context(), nil)
		_, checkoutErr := c.Checkout(t.Context())
		for call, err := range map[string]error{
			"hello": helloErr, "lease": leaseErr, "flush": c.Flush(t.Context()),
			"gc": gcErr, "fsck": fsckErr, "checkout": checkoutErr,
		} {
			if !errors.Is(err, sentinel) || err.Error() != f.err.Error() {
				t.Errorf("%s: got %v, want %v", call, err, f.err)
			}
		}
	}
}

func TestErrorsThatAreNotUTF8Cross(t *testing.T) {
	f := newFake()
	f.err = fmt.Errorf("layout /\xff: %w", berth.ErrLayoutInvalid)
	c, _ := connect(t, f)
	if err := c.Flush(t.Context()); !errors.Is(err, berth.ErrLayoutInvalid) || err.Error() != "layout /\uFFFD: not an OCI image layout" {
		t.Errorf("got %v", err)
	}
}

func TestErrorsWithoutACodeCross(t *testing.T) {
	f := newFake()
	f.err = errors.New("disk on fire")
	c, conn := connect(t, f)
	if err := c.Flush(t.Context()); err == nil || !strings.Contains(err.Error(), "disk on fire") || berth.Code(err) != "" {
		t.Errorf("got %v", err)
	}
	f.err = context.DeadlineExceeded
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := c.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline: got %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Lease(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: got %v", err)
	}
	conn.Close()
	if _, err := c.Hello(t.Context()); err == nil {
		t.Error("a plugin that is gone said hello")
	}
}

func TestConfigGoesThroughTheEnvironment(t *testing.T) {
	want := Config{Layout: "/a b/ü\xff", Private: true, Scratch: "/tmp/x", Durability: "power", Debug: true}
	variable, err := want.Environ()
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(variable, "=")
	t.Setenv(name, value)
	if got, err := ConfigFromEnviron(); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{", "{}"} {
		t.Setenv(ConfigVariable, bad)
		if _, err := ConfigFromEnviron(); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestRequested(t *testing.T) {
	if Requested() {
		t.Error("this test was not started as a plugin")
	}
	t.Setenv(cookieKey, cookieValue)
	if !Requested() {
		t.Error("the cookie is not seen")
	}
}

// What the plugin logs is what go-plugin's host side reads, and comes out with level and attributes.
func TestLogsCross(t *testing.T) {
	var line bytes.Buffer
	slog.New(LogHandler(&line, slog.LevelInfo)).Warn("blob cannot be served", "digest", "sha256:x")
	var entry map[string]string
	if err := json.Unmarshal(line.Bytes(), &entry); err != nil {
		t.Fatal(err)
	}
	if entry["@level"] != "warn" || entry["@message"] != "blob cannot be served" || entry["digest"] != "sha256:x" {
		t.Errorf("got %v", entry)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000000Z07:00", entry["@timestamp"]); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	host := HostLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	host.Log(hclog.Error, "go-plugin talks of itself")
	host.Named("berth").Log(hclog.Warn, "blob cannot be served", "digest", "sha256:x")
	if got := out.String(); !strings.Contains(got, `level=WARN msg="blob cannot be served" digest=sha256:x`) || strings.Contains(got, "itself") {
		t.Errorf("got %q", got)
	}
}
