package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

const (
	// joinTimeout bounds the time that it takes to join a plugin, or start one.
	joinTimeout = 40 * time.Second
	// inUseTime is how long a process may own the layout that takes no calls, at least: one may be starting,
	// or ending.
	inUseTime = 3 * time.Second
	// firstPause and longestPause bound how often is looked whether a plugin that somebody else starts takes
	// calls.
	firstPause   = time.Millisecond
	longestPause = 20 * time.Millisecond
	// newsTime is how long the news of a plugin's end may take.
	newsTime = time.Second
	// maxAttempts bounds how often one call is repeated, each time at another plugin.
	maxAttempts = 20
)

func newSession(opts Options) (*Session, error) {
	layout, err := filepath.Abs(opts.Layout)
	if err != nil {
		return nil, err
	}
	if opts.Layout = layout; opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Session{opts: opts, turn: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(context.Background())
	s.asks = plugin.LeaseOptions{
		Holder:      plugin.Holder{PID: os.Getpid(), Command: control.Command(), Version: plugin.Version()},
		IdleTimeout: opts.IdleTimeout,
		Durability:  opts.Durability,
		Logger:      opts.Logger,
		AccessLog:   opts.AccessLog,
	}
	if opts.Private {
		s.asks.Key = rand.Text()
	}
	return s, nil
}

// join attaches to a plugin, or starts one, however many do the same at once.
func (s *Session) join(ctx context.Context, old *Hold) (*Hold, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	if s.opts.Private {
		return s.launch(ctx, nil, old)
	}
	began := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		h, err := s.tryJoin(ctx, old)
		if err == nil || !mayPass(err) || errors.Is(err, berth.ErrLayoutInUse) && time.Since(began) > inUseTime {
			return h, err
		}
		select {
		case <-time.After(pause/2 + mathrand.N(pause)):
		case <-ctx.Done():
			return nil, fmt.Errorf("layout %s: %w while waiting: %w", s.opts.Layout, ctx.Err(), err)
		}
	}
}

// errStarting is why a session waits that may not start a plugin.
var errStarting = errors.New("another process has .berth/start.lock, to start a registry; end that process if it hangs")

// mayPass reports whether what keeps a session from joining may be over in a moment: another process starts
// the plugin, or the last one is not gone yet.
func mayPass(err error) bool {
	for _, passing := range []error{errStarting, control.ErrNotRunning, plugin.ErrEnding, plugin.ErrGone, berth.ErrLayoutInUse} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// tryJoin attaches, or starts a plugin if nobody else does.
func (s *Session) tryJoin(ctx context.Context, old *Hold) (*Hold, error) {
	h, err := s.attach(ctx, old)
	if !errors.Is(err, ErrNotRunning) {
		return h, err
	}
	lock, err := control.LockStart(s.opts.Layout, old == nil)
	if old != nil && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("layout %s: %w: the directory was removed while it was in use; open it anew", s.opts.Layout, berth.ErrLayoutInvalid)
	}
	if errors.Is(err, control.ErrHeld) {
		err = errStarting
	}
	if err != nil {
		return nil, err
	}
	// Whoever held the lock before may have started one since.
	if h, err := s.attach(ctx, old); !errors.Is(err, ErrNotRunning) {
		lock.Release()
		return h, err
	}
	return s.launch(ctx, lock.File(), old)
}

// attach takes a lease of the plugin that runs.
func (s *Session) attach(ctx context.Context, old *Hold) (*Hold, error) {
	connection, err := dial(ctx, s.opts.Layout)
	if err != nil {
		return nil, err
	}
	return s.take(ctx, connection, old)
}

// launch starts a plugin, and takes a lease of it.
func (s *Session) launch(ctx context.Context, lock *os.File, old *Hold) (*Hold, error) {
	s.opts.Logger.Info("starting a registry", "layout", s.opts.Layout)
	p, err := s.opts.Launcher.Launch(ctx, Start{Lock: lock, Logger: s.opts.Logger, Config: plugin.Config{
		Layout:      s.opts.Layout,
		Key:         s.asks.Key,
		Durability:  s.opts.Durability,
		IdleTimeout: s.opts.IdleTimeout,
		Debug:       s.opts.Logger.Enabled(ctx, slog.LevelDebug),
		HostPID:     s.asks.Holder.PID,
		Version:     s.asks.Holder.Version,
		Protocols:   plugin.Spoken(),
	}})
	if err != nil {
		return nil, fmt.Errorf("start a registry for %s: %w", s.opts.Layout, err)
	}
	return s.take(ctx, p, old)
}

// take takes a lease. A plugin that gives none, or not the one that is meant, is let go.
func (s *Session) take(ctx context.Context, p Plugin, old *Hold) (*Hold, error) {
	lease, err := s.lease(ctx, p, old)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	h := &Hold{p, lease}
	if err := s.recognise(h, old); err != nil {
		return nil, errors.Join(err, h.leave())
	}
	return h, nil
}

// lease asks for the address that the session had before, if it may have any.
func (s *Session) lease(ctx context.Context, p Plugin, old *Hold) (plugin.Lease, error) {
	asks, listen := s.asks, s.opts.Listen
	asks.Listen = &listen
	if asked := listen.Address; old != nil && isAnyPort(asked) {
		listen.Address = old.Endpoint().Address
		lease, err := s.answer(ctx, p, asks)
		if !errors.Is(err, plugin.ErrAddressInUse) {
			return lease, err
		}
		s.opts.Logger.Warn("another program has taken the registry's address", "address", listen.Address)
		listen.Address = asked
	}
	return s.answer(ctx, p, asks)
}

// isAnyPort reports whether an address leaves the port to chance.
func isAnyPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return address == "" || err == nil && port == "0"
}

// answer takes a lease of a plugin, which has some time for it.
func (s *Session) answer(ctx context.Context, p Plugin, asks plugin.LeaseOptions) (plugin.Lease, error) {
	limited, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	lease, err := p.Lease(limited, asks)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("layout %s: %w", s.opts.Layout, silent(s.opts.Layout))
	}
	return lease, err
}

// recognise refuses a plugin that serves another directory: than is meant, where the way to it came here with a
// copy of that, or than the session had before, where what was pushed is not.
func (s *Session) recognise(h *Hold, old *Hold) error {
	if err := recognise(s.opts.Layout, h.Info()); err != nil {
		return err
	}
	if old != nil && old.Info().Identity != h.Info().Identity {
		return fmt.Errorf("layout %s: %w: the directory was replaced while it was in use; open it anew", s.opts.Layout, berth.ErrLayoutInvalid)
	}
	return nil
}
