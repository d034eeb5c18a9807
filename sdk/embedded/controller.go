package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/server"
)

const (
	// openDelay is how long after its first lease a plugin takes calls from others: a short command
	// is over by then. Who looks for the owner of a layout tries for longer.
	openDelay = 50 * time.Millisecond
	// answerTimeout is how long clients may take to hear the last answers.
	answerTimeout = 2 * time.Second
)

// controller serves one layout to those who hold leases, and does for others what concerns the layout
// as a whole. It implements [plugin.Controller].
type controller struct {
	cfg    plugin.Config
	log    *slog.Logger
	layout *ocilayout.Layout
	failed error // why there is no layout: the answer to every call
	info   plugin.Info
	upkeep *upkeep
	door   door

	ended   chan struct{}
	ending  sync.Once
	opening sync.WaitGroup // of the door

	mu     sync.Mutex // guards the fields below
	leases map[*lease]bool
}

// newController opens the layout. Where that fails, the failure is what a host hears from Hello, with
// its code, rather than from a process that died.
func newController(ctx context.Context, cfg plugin.Config, log *slog.Logger) *controller {
	c := &controller{cfg: cfg, log: log, ended: make(chan struct{}), leases: map[*lease]bool{}}
	if c.layout, c.failed = openLayout(ctx, cfg, log); c.failed != nil {
		return c
	}
	c.upkeep = newUpkeep(c.layout)
	c.info, c.failed = whoIs(cfg.Layout)
	return c
}

// whoIs is what a process that serves a layout says of itself.
func whoIs(layout string) (info plugin.Info, err error) {
	info = plugin.Info{Version: Version(), PID: os.Getpid()}
	if info.Layout, err = filepath.Abs(layout); err != nil {
		return info, err
	}
	info.Device, info.Inode, err = control.Identify(layout)
	return info, err
}

func openLayout(ctx context.Context, cfg plugin.Config, log *slog.Logger) (*ocilayout.Layout, error) {
	opts := &ocilayout.Options{Logger: log}
	if cfg.Durability != "" {
		var err error
		if opts.Durability, err = ocilayout.ParseDurability(cfg.Durability); err != nil {
			return nil, err
		}
	}
	return ocilayout.Open(ctx, cfg.Layout, opts)
}

func (c *controller) Hello(context.Context) (plugin.Info, error) { return c.info, c.failed }

func (c *controller) Flush(ctx context.Context) error {
	if c.failed != nil {
		return c.failed
	}
	return c.upkeep.Flush(ctx)
}

func (c *controller) GC(ctx context.Context, opts *berth.GCOptions) (berth.GCReport, error) {
	if c.failed != nil {
		return berth.GCReport{}, c.failed
	}
	return c.upkeep.GC(ctx, opts)
}

func (c *controller) Fsck(ctx context.Context, opts *berth.FsckOptions) (berth.FsckReport, error) {
	if c.failed != nil {
		return berth.FsckReport{}, c.failed
	}
	return c.upkeep.Fsck(ctx, opts)
}

func (c *controller) Checkout(ctx context.Context) (func(context.Context) error, error) {
	if c.failed != nil {
		return nil, c.failed
	}
	return c.upkeep.Checkout(ctx)
}

// open takes calls from others too. Where that cannot be, it is told at a level.
func (c *controller) open(level slog.Level) { c.door.open(c.cfg.Layout, c, c.log, level) }

// openLater opens when whoever has taken a lease is not waiting for this process any more, if it still
// runs then. Who holds a lease has what it came for, and need not be warned that others have less.
func (c *controller) openLater() {
	select {
	case <-time.After(openDelay):
		c.open(slog.LevelInfo)
	case <-c.ended:
	}
}

func (c *controller) Lease(context.Context) (plugin.Lease, error) {
	if c.failed != nil {
		return nil, c.failed
	}
	l := &lease{controller: c, done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ended:
		return nil, errEnding
	default:
	}
	c.leases[l] = true
	c.opening.Go(c.openLater)
	return l, nil
}

// release ends a lease. A private plugin ends with its last.
func (c *controller) release(l *lease) {
	c.mu.Lock()
	delete(c.leases, l)
	last := len(c.leases) == 0
	c.mu.Unlock()
	if last && c.cfg.Private {
		c.end()
	}
}

// end lets wait return. No lease begins any more.
func (c *controller) end() {
	c.ending.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.ended)
	})
}

// wait returns when the plugin is to end.
func (c *controller) wait(ctx context.Context) {
	select {
	case <-c.ended:
	case <-ctx.Done():
		c.end()
	}
}

// quiesce takes no new calls, and ends checkouts, for which pushes would wait.
func (c *controller) quiesce() {
	c.end()
	c.opening.Wait()
	if c.upkeep == nil {
		return
	}
	c.upkeep.leave()
	c.door.beginClose()
	c.upkeep.quiesce()
}

// close ends all leases and all work, and closes the layout.
func (c *controller) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	c.quiesce()
	if c.layout == nil {
		return nil
	}
	for _, l := range c.held() {
		l.Close()
	}
	c.upkeep.drain(ctx)
	ctx, cancel = context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	c.door.close(ctx)
	return c.layout.Close()
}

// held returns the leases.
func (c *controller) held() (all []*lease) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := range c.leases {
		all = append(all, l)
	}
	return all
}

// lease is what one host holds, and the addresses that were opened for it.
type lease struct {
	controller *controller
	done       chan struct{}
	closing    sync.Once
	serving    sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	servers []*httpServer
	closed  bool
}

func (l *lease) Listen(_ context.Context, opts plugin.ListenOptions) (plugin.Endpoint, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return plugin.Endpoint{}, err
	}
	endpoint := plugin.Endpoint{Address: listener.Addr().String()}
	serverOptions := &server.Options{ReadOnly: opts.ReadOnly, AllowMissing: opts.AllowMissing, Logger: l.controller.log}
	if !opts.Anonymous {
		endpoint.Token = rand.Text()
		serverOptions.Authorizer = server.Token(endpoint.Token)
	}
	srv := newHTTPServer(l.controller.layout, serverOptions)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return plugin.Endpoint{}, errors.Join(errEnding, listener.Close())
	}
	l.servers = append(l.servers, srv)
	l.serving.Go(func() { srv.serve(listener) })
	return endpoint, nil
}

func (l *lease) Done() <-chan struct{} { return l.done }

// Close lets requests that are under way finish, for a while, and closes the addresses.
func (l *lease) Close() error {
	l.closing.Do(func() {
		l.mu.Lock()
		l.closed = true
		servers := l.servers
		l.mu.Unlock()
		for _, srv := range servers {
			srv.shutdown()
		}
		l.serving.Wait()
		l.controller.release(l)
		close(l.done)
	})
	return nil
}

// InProcess serves a layout from within this process: no binary, no second process, the same
// behaviour.
func InProcess() host.Launcher { return inProcess{} }

type inProcess struct{}

func (inProcess) Launch(ctx context.Context, cfg plugin.Config, log *slog.Logger) (host.Plugin, error) {
	return local{newController(ctx, cfg, log)}, nil
}

// local is a plugin in this process.
type local struct{ *controller }

func (l local) Close() error { return l.close() }
