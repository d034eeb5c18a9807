package embedded

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
)

const (
	// answerTimeout is how long clients may take to hear the last answers.
	answerTimeout = 2 * time.Second
	// ownPause is how often an owner is looked at that is about to end.
	ownPause = 5 * time.Millisecond
	// ownTime is how long it may take to.
	ownTime = time.Second
)

// controller serves one layout to those who hold leases, and does for others what concerns the layout
// as a whole. It implements [plugin.Controller].
type controller struct {
	cfg     plugin.Config
	kind    string
	info    plugin.Info
	started time.Time
	logs    *fanout
	log     *slog.Logger
	layout  *ocilayout.Layout
	upkeep  *upkeep
	door    door
	use     *use

	guests  sync.WaitGroup // leases that are held for other processes
	closing sync.Once
	closed  error

	mu      sync.Mutex    // guards the fields below
	sealed  bool          // no guest comes any more
	leases  []*lease      // in the order in which they were taken
	claimed chan struct{} // closed when who started this process has a lease
}

// newController opens the layout, for a kind of process, unless a key makes it private. What it logs goes to log
// until the first lease. Collections may be asked to leave what was used within grace, at the longest.
func newController(ctx context.Context, cfg plugin.Config, kind string, log slog.Handler, grace time.Duration) (*controller, error) {
	if cfg.Key != "" {
		kind = plugin.KindPrivate
	}
	logs := newFanout(log)
	c := &controller{cfg: cfg, kind: kind, started: time.Now(), logs: logs, log: slog.New(logs), claimed: make(chan struct{})}
	var err error
	if c.layout, err = openLayout(ctx, cfg, &ocilayout.Options{Logger: c.log, Grace: max(grace, DefaultGrace)}); err != nil {
		return nil, err
	}
	if c.info, err = whoIs(cfg.Layout); err != nil {
		return nil, errors.Join(err, c.layout.Close())
	}
	sweepSockets(cfg.Layout)
	c.upkeep = newUpkeep(c.layout)
	c.use = newUse(cfg.IdleTimeout, kind == plugin.KindPlugin, c.isMoved)
	return c, nil
}

// openLayout waits for an owner that is about to end, where others wait for this process.
func openLayout(ctx context.Context, cfg plugin.Config, opts *ocilayout.Options) (*ocilayout.Layout, error) {
	if cfg.Durability != "" {
		var err error
		if opts.Durability, err = ocilayout.ParseDurability(cfg.Durability); err != nil {
			return nil, err
		}
	}
	for began := time.Now(); ; {
		layout, err := ocilayout.Open(ctx, cfg.Layout, opts)
		if !errors.Is(err, berth.ErrLayoutInUse) || cfg.Key != "" || time.Since(began) > ownTime {
			return layout, err
		}
		select {
		case <-time.After(ownPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// whoIs is what a process that serves a layout says of itself.
func whoIs(layout string) (info plugin.Info, err error) {
	here := plugin.Here()
	info = plugin.Info{Version: here.Version, Protocols: here.Protocols, PID: os.Getpid()}
	if info.Layout, err = filepath.Abs(layout); err != nil {
		return info, err
	}
	info.Identity, err = control.Identify(layout)
	return info, err
}

// isMoved reports whether the layout is not where it was: nobody will find it there any more.
func (c *controller) isMoved() bool {
	id, err := control.Identify(c.cfg.Layout)
	return err != nil || id != c.info.Identity
}

func (c *controller) Hello(context.Context) (plugin.Info, error) { return c.info, nil }

// during runs a call, for which the plugin stays.
func (c *controller) during(call func() error) error {
	if err := c.use.begin(); err != nil {
		return err
	}
	defer c.use.end()
	return call()
}

func (c *controller) Flush(ctx context.Context) error {
	return c.during(func() error { return c.upkeep.Flush(ctx) })
}

func (c *controller) GC(ctx context.Context, opts *berth.GCOptions) (report berth.GCReport, err error) {
	err = c.during(func() (err error) {
		report, err = c.upkeep.GC(ctx, opts)
		return err
	})
	return report, err
}

func (c *controller) Fsck(ctx context.Context, opts *berth.FsckOptions) (report berth.FsckReport, err error) {
	err = c.during(func() (err error) {
		report, err = c.upkeep.Fsck(ctx, opts)
		return err
	})
	return report, err
}

// Checkout needs the plugin until it is done.
func (c *controller) Checkout(ctx context.Context) (func(context.Context) error, error) {
	if err := c.use.begin(); err != nil {
		return nil, err
	}
	done, err := c.upkeep.Checkout(ctx)
	if err != nil {
		c.use.end()
		return nil, err
	}
	ended := sync.OnceFunc(c.use.end)
	return func(ctx context.Context) error {
		defer ended()
		return done(ctx)
	}, nil
}

func (c *controller) Watch(ctx context.Context, opts *berth.WatchOptions) iter.Seq2[berth.Event, error] {
	return func(yield func(berth.Event, error) bool) {
		if err := c.use.begin(); err != nil {
			yield(berth.Event{}, err)
			return
		}
		defer c.use.end()
		c.layout.Watch(ctx, opts)(yield)
	}
}

func (c *controller) Status(ctx context.Context) (plugin.Status, error) {
	usage, err := c.layout.Usage(ctx)
	status := plugin.Status{
		Info: c.info, Kind: c.kind, Started: c.started.UTC(), Durability: c.layout.Durability().String(),
		Ending: c.use.isOver(), IdleTimeout: c.use.timeout(), Leases: []plugin.LeaseStatus{}, Usage: usage,
	}
	for _, l := range c.held() {
		status.Leases = append(status.Leases, l.status())
	}
	return status, err
}

func (c *controller) Drain(context.Context) error {
	c.log.Info("the registry was asked to end")
	c.use.stop()
	return nil
}

// Lease takes who asks, and raises what it asks for.
func (c *controller) Lease(ctx context.Context, opts plugin.LeaseOptions) (plugin.Lease, error) {
	l, err := c.admit(opts)
	if err != nil {
		return nil, err
	}
	if err := l.prepare(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// admit enters a lease.
func (c *controller) admit(opts plugin.LeaseOptions) (*lease, error) {
	if !c.mayHave(opts) {
		return nil, errPrivate(c.info)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.use.begin(); err != nil { // with mu held: who closes, and ends the use first, sees the lease then
		return nil, err
	}
	c.use.stay(cmp.Or(opts.IdleTimeout, plugin.DefaultIdleTimeout))
	l := &lease{controller: c, opts: opts, since: time.Now(), done: make(chan struct{})}
	l.stopLogs = c.logs.add(opts.Logger)
	c.leases = append(c.leases, l)
	if opts.Holder.PID == c.cfg.HostPID && !isClosed(c.claimed) {
		close(c.claimed)
	}
	return l, nil
}

// mayHave reports whether somebody may have a lease. A private plugin's are its host's; others may look.
func (c *controller) mayHave(opts plugin.LeaseOptions) bool {
	return opts.Key == c.cfg.Key || opts.Durability == "" && opts.Listen != nil && opts.Listen.ReadOnly
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// release forgets a lease. A private plugin ends with its host's last.
func (c *controller) release(l *lease) {
	c.mu.Lock()
	c.leases = slices.DeleteFunc(c.leases, func(other *lease) bool { return other == l })
	last := !slices.ContainsFunc(c.leases, func(other *lease) bool { return other.opts.Key == c.cfg.Key })
	c.mu.Unlock()
	l.stopLogs()
	if last && c.cfg.Key != "" {
		c.use.finish()
	}
	c.use.end()
}

// held returns the leases.
func (c *controller) held() []*lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.leases)
}

// close ends all leases and all work, and closes the layout. Until all is written the door stays open, to tell
// those who come that they have to wait.
func (c *controller) close() error {
	c.closing.Do(func() {
		c.use.finish()
		c.seal()
		c.upkeep.quiesce()
		var ending sync.WaitGroup
		for _, l := range c.held() {
			ending.Go(func() { l.Close() })
		}
		ending.Wait()
		c.guests.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		c.upkeep.drain(ctx)
		err := c.layout.Flush(context.Background())
		ctx, cancel = context.WithTimeout(context.Background(), answerTimeout)
		defer cancel()
		c.door.close(ctx)
		c.closed = errors.Join(err, c.layout.Close())
	})
	return c.closed
}
