package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
)

// fake is a controller that a test decides about.
type fake struct {
	err      error
	lease    *fakeLease
	upkeep   fakeUpkeep
	checkout *fakeCheckout
	status   Status
	watched  berth.WatchOptions
	events   []berth.Event
}

var fakeInfo = Info{Version: "v1.2.3", Protocols: Protocols{1, 1}, Layout: "/lay\xffout", PID: 42, Identity: control.Identity{Device: 1 << 63, Inode: 7, Born: 9}}

func (f *fake) Hello(context.Context) (Info, error) { return fakeInfo, f.err }

func (f *fake) Status(context.Context) (Status, error) { return f.status, f.err }

func (f *fake) Drain(context.Context) error { return f.err }

func (f *fake) Hold(_ context.Context, pid int, opts LeaseOptions) (Endpoint, error) {
	f.lease.got = opts
	return Endpoint{Address: "127.0.0.1:" + strconv.Itoa(pid)}, f.err
}

func (f *fake) Watch(ctx context.Context, opts *berth.WatchOptions) iter.Seq2[berth.Event, error] {
	f.watched = *opts
	return func(yield func(berth.Event, error) bool) {
		for _, e := range f.events {
			if !yield(e, nil) {
				return
			}
		}
		if f.err != nil {
			yield(berth.Event{}, f.err)
		}
	}
}

func (f *fake) Flush(ctx context.Context) error {
	if errors.Is(f.err, context.DeadlineExceeded) {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

func (f *fake) Lease(_ context.Context, opts LeaseOptions) (Lease, error) {
	if f.err != nil {
		return nil, f.err
	}
	f.lease.got = opts
	return f.lease, nil
}

type imported struct {
	repository string
	digest     digest.Digest
	from       berth.LocalFile
}

type fakeLease struct {
	imported imported
	got      LeaseOptions
	listen   ListenOptions
	ending   chan struct{} // closed by the plugin's side
	done     chan struct{} // closed by the plugin's side
	gone     chan struct{} // closed when the lease is closed
	err      error         // of closing

	stopped bool
}

func newFake() *fake {
	lease := &fakeLease{ending: make(chan struct{}), done: make(chan struct{}), gone: make(chan struct{})}
	return &fake{lease: lease, checkout: &fakeCheckout{ended: make(chan struct{})}}
}

func (l *fakeLease) Grant() Grant {
	return Grant{fakeInfo, Endpoint{Address: "127.0.0.1:2", Token: "s", Socket: "/so\xffck"}}
}

func (l *fakeLease) Import(_ context.Context, repository string, d digest.Digest, from berth.LocalFile) (berth.ImportMethod, error) {
	l.imported = imported{repository, d, from}
	return berth.Cloned, l.err
}

func (l *fakeLease) Listen(_ context.Context, opts ListenOptions) (Endpoint, error) {
	l.listen = opts
	return Endpoint{Address: "127.0.0.1:1", Token: "t"}, nil
}

func (l *fakeLease) Ending() <-chan struct{} { return l.ending }

func (l *fakeLease) Stopped() bool { return l.stopped }

func (l *fakeLease) Done() <-chan struct{} { return l.done }

func (l *fakeLease) Close() error {
	close(l.gone)
	return l.err
}

// connect joins a controller and its client by connections in memory.
func connect(t *testing.T, c Controller) *Connection {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := ServeControl(listener, c)
	conn, err := listener.Dial()
	if err != nil {
		t.Fatal(err)
	}
	connection := Connect(conn, listener.DialContext)
	t.Cleanup(func() {
		connection.Close()
		shutdown(server)
	})
	return connection
}

func TestCallsCross(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	if info, err := c.Hello(t.Context()); err != nil || info != fakeInfo {
		t.Errorf("hello: got %+v, %v", info, err)
	}
	if err := errors.Join(c.Flush(t.Context()), c.Drain(t.Context())); err != nil {
		t.Error(err)
	}
	f.status = Status{
		Info: fakeInfo, Kind: KindPlugin, Started: time.Unix(7, 8).UTC(), Durability: "power", Ending: true, IdleTimeout: time.Minute,
		Leases: []LeaseStatus{{Holder{1, "bui\xffld", "v1"}, time.Unix(9, 0).UTC(), []Endpoint{{Address: "127.0.0.1:9", Socket: "/s"}}}},
		Usage:  berth.Usage{Repositories: 1, Tags: 2, Manifests: 3, Blobs: 4, Bytes: 5},
	}
	if got, err := c.Status(t.Context()); err != nil || !reflect.DeepEqual(got, f.status) {
		t.Errorf("status: got %+v, %v", got, err)
	}
	asks := fullLease()
	if at, err := c.Hold(t.Context(), 77, asks); err != nil || at.Address != "127.0.0.1:77" || !reflect.DeepEqual(f.lease.got.Listen, asks.Listen) {
		t.Errorf("hold: got %+v, %v, with options %+v", at, err, f.lease.got)
	}
}

// fullLease has something in each of its fields.
func fullLease() LeaseOptions {
	return LeaseOptions{
		Holder: Holder{42, "bui\xffld", "v1.2.3"}, Key: "k", IdleTimeout: -time.Second, Durability: "power",
		Listen: &ListenOptions{
			Address: "127.0.0.1:5", Token: "t", Socket: "abc", ReadOnly: true, AllowMissing: true, Hosts: []string{"a", "b:1"},
			AllowClasses: []string{"c"}, DenyClasses: []string{"d"}, MaxRequests: 1, MaxUploads: 2, MinChunk: 3,
			CertFile: "/c\xff", KeyFile: "/k\xff", Passwords: []byte("u:\xff"), Rules: []byte("rules: []\n"),
		},
	}
}

func TestALeaseCrosses(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	asks := fullLease()
	lease, err := c.Lease(t.Context(), asks)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.lease.got, asks) {
		t.Errorf("got %+v,\nwant %+v", f.lease.got, asks)
	}
	if got := lease.Grant(); got != f.lease.Grant() {
		t.Errorf("got %+v", got)
	}
	if at, err := lease.Listen(t.Context(), *asks.Listen); err != nil || at != (Endpoint{Address: "127.0.0.1:1", Token: "t"}) || !reflect.DeepEqual(f.lease.listen, *asks.Listen) {
		t.Errorf("listen: got %+v, %v, with options %+v", at, err, f.lease.listen)
	}
	f.lease.err = fmt.Errorf("flush: %w", berth.ErrLayoutInvalid)
	if err := lease.Close(); !errors.Is(err, berth.ErrLayoutInvalid) {
		t.Errorf("the plugin's error of closing: got %v", err)
	}
	wait(t, f.lease.gone, "the plugin's lease")
	if _, err := lease.Listen(t.Context(), ListenOptions{}); err == nil {
		t.Error("a lease that is closed listens")
	}
}

// A lease without wishes has none at the other end.
func TestAPlainLeaseCrosses(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	lease, err := c.Lease(t.Context(), LeaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.lease.got, LeaseOptions{}) {
		t.Errorf("got %+v", f.lease.got)
	}
	if at := lease.Grant().Endpoint; at != (Endpoint{}) {
		t.Errorf("an address that nobody asked for: %+v", at)
	}
	if err := lease.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnImportCrosses(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	lease, err := c.Lease(t.Context(), LeaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := imported{"app/web", "sha256:x", berth.LocalFile{Path: "/a\xff", Offset: 1, Size: 2, Device: 3, Inode: 1 << 63, Link: true}}
	if method, err := lease.Import(t.Context(), want.repository, want.digest, want.from); method != berth.Cloned || err != nil || f.lease.imported != want {
		t.Errorf("got %v, %v, of %+v", method, err, f.lease.imported)
	}
	f.lease.err = fmt.Errorf("file /a: %w: it is a pipe", berth.ErrUnsupported)
	if _, err := lease.Import(t.Context(), "", "", berth.LocalFile{}); !errors.Is(err, berth.ErrUnsupported) || err.Error() != f.lease.err.Error() {
		t.Errorf("got %v", err)
	}
	f.lease.err = nil
	if err := lease.Close(); err != nil {
		t.Error(err)
	}
	if _, err := lease.Import(t.Context(), "", "", berth.LocalFile{}); !errors.Is(err, ErrGone) {
		t.Errorf("after the lease's end: got %v", err)
	}
}

func TestALeaseThatIsTooLarge(t *testing.T) {
	c := connect(t, newFake())
	_, err := c.Lease(t.Context(), LeaseOptions{Listen: &ListenOptions{Rules: make([]byte, maxMessage)}})
	if err == nil || errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "size") {
		t.Errorf("got %v, want what is too large", err)
	}
}

func TestALeaseTellsThatThePluginEnds(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	lease, err := c.Lease(t.Context(), LeaseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if lease.Stopped() {
		t.Error("it is stopped before it ends")
	}
	f.lease.stopped = true
	close(f.lease.ending)
	wait(t, lease.Ending(), "the host's ignorance")
	if !lease.Stopped() {
		t.Error("the host is not told that it was stopped")
	}
	select {
	case <-lease.Done():
		t.Error("the lease is done before it has ended")
	default:
	}
	close(f.lease.done)
	wait(t, lease.Done(), "the host's lease")
}

func TestALeaseCarriesLogs(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	told := make(chan string, 10)
	logger := func(name string) *slog.Logger {
		return slog.New(slog.NewTextHandler(lineWriter(func(line string) { told <- name + " " + line }), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	lease, err := c.Lease(t.Context(), LeaseOptions{Logger: logger("log"), AccessLog: logger("access")})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	log := f.lease.got.Logger
	if log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("what the host does not want is sent")
	}
	log.With("blob", "b").WithGroup("g").Warn("careful", "n", 3, "f", 1.5, "err", errors.New("full"), slog.Group("h", "k", "v"))
	if got := <-told; !strings.HasPrefix(got, "log ") || !strings.Contains(got, `level=WARN msg=careful blob=b g.n=3 g.f=1.5 g.err=full g.h.k=v`) {
		t.Errorf("got %q", got)
	}
	f.lease.got.AccessLog.Info("request", "path", "/v2/")
	if got := <-told; !strings.HasPrefix(got, "access ") || !strings.Contains(got, `msg=request path=/v2/`) {
		t.Errorf("got %q", got)
	}
}

type lineWriter func(string)

func (w lineWriter) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}

// Whoever logs does not wait for a host that does not read, and the host is told how much it has missed.
func TestLogsThatNobodyTakesAreCounted(t *testing.T) {
	r := newRecords()
	log := r.logger(slog.LevelInfo, false)
	const more = 7
	for range maxRecords + more {
		log.Info("again")
	}
	for range maxRecords {
		if dropped := (<-r.queue).Dropped; dropped != 0 {
			t.Fatalf("%d are said to be lost before they were", dropped)
		}
	}
	log.Info("after")
	record := <-r.queue
	if record.Dropped != more {
		t.Errorf("%d are said to be lost, want %d", record.Dropped, more)
	}
	var out bytes.Buffer
	(&LeaseOptions{Logger: slog.New(slog.NewTextHandler(&out, nil))}).tell(record)
	if got := out.String(); !strings.Contains(got, "count=7") || !strings.Contains(got, "msg=after") {
		t.Errorf("got %q", got)
	}
}

func TestEventsCross(t *testing.T) {
	f := newFake()
	at := time.Unix(7, 8).UTC()
	f.events = []berth.Event{
		{Position: "1", Kind: berth.EventBookmark},
		{Position: "2", Kind: berth.EventPush, Time: at, Repository: "app", Tags: []string{"v1", "v2"}, Descriptor: v1.Descriptor{MediaType: "m", Digest: "sha256:x", Size: 9, ArtifactType: "a"}},
		{Position: "3", Kind: berth.EventGC, Time: at, GC: &berth.GCSummary{Tags: 1, Manifests: 2, Blobs: 3, Bytes: 4}},
	}
	c := connect(t, f)
	asks := berth.WatchOptions{After: "0", Pulls: true}
	var got []berth.Event
	for event, err := range c.Watch(t.Context(), &asks) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, event)
	}
	if !reflect.DeepEqual(got, f.events) || f.watched != asks {
		t.Errorf("got %+v, with %+v", got, f.watched)
	}
	f.err = fmt.Errorf("position 0: %w", berth.ErrEventsLost)
	var last error
	for _, last = range c.Watch(t.Context(), nil) {
	}
	if !errors.Is(last, berth.ErrEventsLost) {
		t.Errorf("got %v", last)
	}
	for range c.Watch(t.Context(), nil) {
		break // a consumer may leave
	}
}

// What was watched at one plugin can be gone on with at the next: its end is no error.
func TestAWatchEndsWithThePlugin(t *testing.T) {
	for what, end := range map[string]func(*ControlServer){
		"in good order": shutdown,
		"by a crash":    func(s *ControlServer) { s.grpc.Stop() },
	} {
		t.Run(what, func(t *testing.T) {
			f := newFake()
			f.events = []berth.Event{{Position: "1", Kind: berth.EventBookmark}}
			server, c := serveControl(t, hanging{f})
			for event, err := range c.Watch(t.Context(), nil) {
				if err != nil || event.Position != "1" {
					t.Errorf("got %+v, %v", event, err)
				}
				go end(server)
			}
		})
	}
}

// hanging is a controller whose watches go on until their context ends.
type hanging struct{ *fake }

func (h hanging) Watch(ctx context.Context, opts *berth.WatchOptions) iter.Seq2[berth.Event, error] {
	return func(yield func(berth.Event, error) bool) {
		h.fake.Watch(ctx, opts)(yield)
		<-ctx.Done()
		yield(berth.Event{}, ctx.Err())
	}
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		host, plugin Protocols
		common       int
	}{
		{Protocols{1, 1}, Protocols{1, 1}, 1},
		{Protocols{1, 2}, Protocols{1, 1}, 1},
		{Protocols{1, 1}, Protocols{1, 3}, 1},
		{Protocols{2, 3}, Protocols{1, 4}, 3},
		{Protocols{2, 2}, Protocols{1, 1}, 0},
		{Protocols{1, 1}, Protocols{2, 3}, 0},
	} {
		if got := c.host.Common(c.plugin); got != c.common {
			t.Errorf("%v and %v: got %d, want %d", c.host, c.plugin, got, c.common)
		}
		err := Meet(End{"v2.0.0", c.host}, End{"v1.0.0", c.plugin}, "go home")
		if (err == nil) != (c.common != 0) {
			t.Errorf("%v and %v: %v", c.host, c.plugin, err)
		}
		if err == nil {
			continue
		}
		for _, part := range []string{"berth v2.0.0 (control protocol " + c.host.String(), "berth v1.0.0 (control protocol " + c.plugin.String(), "go home"} {
			if !errors.Is(err, ErrIncompatible) || !strings.Contains(err.Error(), part) {
				t.Errorf("%v does not tell %q", err, part)
			}
		}
	}
	if got := Spoken(); got.Oldest < 1 || got.Newest < got.Oldest {
		t.Errorf("this build speaks %+v", got)
	}
}

// future is a plugin that speaks versions which this host does not.
type future struct{ *fake }

func (f future) Hello(context.Context) (Info, error) {
	info := fakeInfo
	info.Layout, info.Protocols = "/layout", Protocols{Spoken().Newest + 1, Spoken().Newest + 2}
	return info, nil
}

func TestALeaseOfAnotherAge(t *testing.T) {
	c := connect(t, future{newFake()})
	_, err := c.Lease(t.Context(), LeaseOptions{Holder: Holder{Version: "v0.9.0"}})
	if !errors.Is(err, ErrIncompatible) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"v1.2.3", "v0.9.0", "berth stop --layout /layout"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not tell %q", err, part)
		}
	}
	if err := c.Drain(t.Context()); err != nil {
		t.Errorf("the way out is barred: %v", err)
	}
}

func TestStartErrors(t *testing.T) {
	var line bytes.Buffer
	FailStart(slog.New(LogHandler(&line, slog.LevelInfo)), fmt.Errorf("layout /x: %w: process 42", berth.ErrLayoutInUse))
	err := StartError(line.String())
	if !errors.Is(err, berth.ErrLayoutInUse) || err.Error() != "layout /x: layout in use by another process: process 42" {
		t.Errorf("got %v", err)
	}
	line.Reset()
	FailStart(slog.New(LogHandler(&line, slog.LevelInfo)), errors.New("disk on fire"))
	if err := StartError(line.String()); err == nil || !strings.Contains(err.Error(), "disk on fire") || berth.Code(err) != "" {
		t.Errorf("got %v", err)
	}
	for _, other := range []string{"", "panic: no", "{}", `{"@message":"x"}`} {
		if err := StartError(other); err != nil {
			t.Errorf("%q: got %v", other, err)
		}
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
		c := connect(t, f)
		lease, err := c.Lease(t.Context(), LeaseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		close(f.lease.done)
		wait(t, lease.Done(), "the host's lease")
		wait(t, f.lease.gone, "the plugin's lease")
	})
	t.Run("the host dies", func(t *testing.T) {
		f := newFake()
		c := connect(t, f)
		lease, err := c.Lease(t.Context(), LeaseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		wait(t, f.lease.gone, "the plugin's lease")
		wait(t, lease.Done(), "the host's lease")
	})
	t.Run("the context of the call does not", func(t *testing.T) {
		f := newFake()
		c := connect(t, f)
		ctx, cancel := context.WithCancel(t.Context())
		lease, err := c.Lease(ctx, LeaseOptions{})
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
		c := connect(t, f)
		_, helloErr := c.Hello(t.Context())
		_, leaseErr := c.Lease(t.Context(), LeaseOptions{})
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
	c := connect(t, f)
	if err := c.Flush(t.Context()); !errors.Is(err, berth.ErrLayoutInvalid) || err.Error() != "layout /\uFFFD: not an OCI image layout" {
		t.Errorf("got %v", err)
	}
}

func TestErrorsWithoutACodeCross(t *testing.T) {
	f := newFake()
	f.err = errors.New("disk on fire")
	c := connect(t, f)
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
	if _, err := c.Lease(cancelled, LeaseOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: got %v", err)
	}
	c.Close()
	if _, err := c.Hello(t.Context()); err == nil {
		t.Error("a plugin that is gone said hello")
	}
}

func TestConfigGoesThroughTheEnvironment(t *testing.T) {
	want := Config{Layout: "/a b/ü\xff", Key: "k", Scratch: "/tmp/x", StartLock: 3, Durability: "power", IdleTimeout: time.Second, Debug: true, HostPID: 7, Version: "v1", Protocols: Protocols{1, 2}}
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
