package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/server"
)

// controller serves one layout to those who hold leases. It implements [plugin.Controller].
type controller struct {
	cfg    plugin.Config
	log    *slog.Logger
	layout *ocilayout.Layout
	failed error // why there is no layout: the answer to every call

	ended  chan struct{}
	ending sync.Once

	mu     sync.Mutex // guards the fields below
	leases map[*lease]bool
}

// newController opens the layout. Where that fails, the failure is what a host hears from Hello, with
// its code, rather than from a process that died.
func newController(ctx context.Context, cfg plugin.Config, log *slog.Logger) *controller {
	c := &controller{cfg: cfg, log: log, ended: make(chan struct{}), leases: map[*lease]bool{}}
	c.layout, c.failed = ocilayout.Open(ctx, cfg.Layout, &ocilayout.Options{Logger: log})
	return c
}

func (c *controller) Hello(context.Context) (plugin.Info, error) {
	info := plugin.Info{Version: Version(), Layout: c.cfg.Layout, PID: os.Getpid()}
	return info, c.failed
}

func (c *controller) Flush(ctx context.Context) error {
	if c.failed != nil {
		return c.failed
	}
	return c.layout.Flush(ctx)
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
	return l, nil
}

var errEnding = errors.New("the plugin is ending")

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

// end lets wait return.
func (c *controller) end() { c.ending.Do(func() { close(c.ended) }) }

// wait returns when the plugin is to end.
func (c *controller) wait(ctx context.Context) {
	select {
	case <-c.ended:
	case <-ctx.Done():
		c.end()
	}
}

// close ends all leases and closes the layout.
func (c *controller) close() error {
	c.end()
	c.mu.Lock()
	var held []*lease
	for l := range c.leases {
		held = append(held, l)
	}
	c.mu.Unlock()
	for _, l := range held {
		l.Close()
	}
	if c.layout == nil {
		return nil
	}
	return c.layout.Close()
}

// lease is what one host holds, and the addresses that were opened for it.
type lease struct {
	controller *controller
	done       chan struct{}
	closing    sync.Once

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
	go srv.Serve(listener)
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
