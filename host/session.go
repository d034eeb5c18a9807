package host

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// ErrClosed is what a session's methods return after Close.
var ErrClosed = errors.New("the session is closed")

// Session is a program's hold on a plugin. All methods may run at once.
type Session struct {
	opts   Options
	asks   plugin.LeaseOptions // all but the address
	life   context.Context     // ends with Close
	end    context.CancelFunc
	turn   chan struct{} // is taken by who joins a plugin
	minder sync.WaitGroup

	closing sync.Once
	closed  error

	mu   sync.Mutex // guards the fields below
	held *Hold
}

// Hold is a session's hold on one plugin, from the lease to its end.
type Hold struct {
	Plugin
	lease plugin.Lease
}

// Endpoint is where the plugin serves the session.
func (h *Hold) Endpoint() plugin.Endpoint { return h.lease.Grant().Endpoint }

// Info is who the plugin is.
func (h *Hold) Info() plugin.Info { return h.lease.Grant().Plugin }

// Done is closed when the hold has ended: the plugin is gone, or the session closed.
func (h *Hold) Done() <-chan struct{} { return h.lease.Done() }

// Ended reports whether it has.
func (h *Hold) Ended() bool { return isClosed(h.lease.Done()) }

// ending reports whether the plugin is about to end, or has ended, in good order.
func (h *Hold) ending() bool { return isClosed(h.lease.Ending()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// leave gives the lease back, and lets the plugin go. One that ends with this lease, as it should, has let the
// layout go when leave returns.
func (h *Hold) leave() error {
	ending := h.ending()
	owner, ownerErr := control.Owner(h.Info().Layout)
	err := errors.Join(h.lease.Close(), h.Plugin.Close())
	if h.ending() && !ending && ownerErr == nil && owner.PID != 0 && owner.PID != os.Getpid() {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		awaitEnd(ctx, h.Info().Layout, owner)
	}
	return err
}

// Open joins the plugin of a layout, or starts one. When it returns, the plugin answers at the session's
// endpoint.
//
// Errors: berth.ErrLayoutInUse if a process owns the layout that shares it with nobody, or for a private session
// with anybody; berth.ErrLayoutInvalid if the directory is none; berth.ErrDenied if it is another user's;
// plugin.ErrIncompatible; whatever keeps a plugin from starting, with the binary's name.
func Open(ctx context.Context, opts Options) (*Session, error) {
	if plugin.Requested() {
		return nil, errStrayPlugin // it would wait for the host that waits for it
	}
	s, err := newSession(opts)
	if err != nil {
		return nil, err
	}
	if _, err := s.Hold(ctx); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// Current is the session's hold, which may have ended.
func (s *Session) Current() *Hold {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// ControlDir is the layout's control directory, where programs may keep what they know about the layout, each in a directory
// of its own.
func (s *Session) ControlDir() string { return filepath.Join(s.Info().Layout, control.Dir) }

// Endpoint is where the session's registry is served.
func (s *Session) Endpoint() plugin.Endpoint { return s.Current().Endpoint() }

// Info is who the plugin is.
func (s *Session) Info() plugin.Info { return s.Current().Info() }

// Hold returns a hold that has not ended as far as is known. Where the plugin is gone, it joins or starts
// another.
//
// Errors: those of Open; ErrClosed; plugin.ErrGone where the plugin was private.
func (s *Session) Hold(ctx context.Context) (*Hold, error) {
	if h := s.Current(); h != nil && !h.Ended() && s.life.Err() == nil {
		return h, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.life.Done():
		return nil, ErrClosed
	}
	old := s.Current()
	switch {
	case s.life.Err() != nil:
		return nil, ErrClosed
	case old != nil && !old.Ended():
		return old, nil
	case old != nil && s.opts.Private:
		return nil, fmt.Errorf("layout %s: %w", s.opts.Layout, plugin.ErrGone)
	}
	h, err := s.join(ctx, old)
	if err != nil && s.life.Err() != nil {
		return nil, ErrClosed
	}
	if err != nil {
		return nil, err
	}
	if old != nil {
		old.leave()
	}
	s.mu.Lock()
	s.held = h
	s.mu.Unlock()
	s.minder.Go(func() { s.mind(h) })
	return h, nil
}

// mind replaces a plugin that is gone, so that others who use the session's address have it back soon. One
// that was stopped comes back when this session needs it.
func (s *Session) mind(h *Hold) {
	select {
	case <-h.Done():
	case <-s.life.Done():
		return
	}
	if s.opts.Private || h.lease.Stopped() {
		return
	}
	if _, err := s.Hold(s.life); err != nil && s.life.Err() == nil {
		s.opts.Logger.Warn("the registry is gone, and no other one could be started yet", "err", err)
	}
}

// Do runs what asks the plugin something that may be asked twice. It is run again if the plugin is gone
// before it has answered.
func (s *Session) Do(ctx context.Context, ask func(*Hold) error) error {
	for attempt := 0; ; attempt++ {
		h, err := s.Hold(ctx)
		if err != nil {
			return err
		}
		err = ask(h)
		lost := errors.Is(err, plugin.ErrGone) || errors.Is(err, plugin.ErrEnding)
		if !lost || attempt == maxAttempts || !s.Lost(ctx, h) {
			return err
		}
	}
}

// Flush brings the layout's index.json up to date with all that was answered before.
func (s *Session) Flush(ctx context.Context) error {
	return s.Do(ctx, func(c *Hold) error { return c.Flush(ctx) })
}

// ask is Do for what has an answer.
func ask[T any](ctx context.Context, s *Session, call func(*Hold) (T, error)) (answer T, err error) {
	err = s.Do(ctx, func(c *Hold) (err error) {
		answer, err = call(c)
		return err
	})
	return answer, err
}

// GC removes what no manifest leads to, and what the options' rules say.
func (s *Session) GC(ctx context.Context, opts *berth.GCOptions) (berth.GCReport, error) {
	return ask(ctx, s, func(c *Hold) (berth.GCReport, error) { return c.GC(ctx, opts) })
}

// Fsck checks all that the layout holds.
func (s *Session) Fsck(ctx context.Context, opts *berth.FsckOptions) (berth.FsckReport, error) {
	return ask(ctx, s, func(c *Hold) (berth.FsckReport, error) { return c.Fsck(ctx, opts) })
}

// Checkout keeps the directory still until its function is called.
func (s *Session) Checkout(ctx context.Context) (done func(context.Context) error, err error) {
	return ask(ctx, s, func(c *Hold) (func(context.Context) error, error) { return c.Checkout(ctx) })
}

// Import stores a blob of a repository from a file of this machine, as [berth.Importer] says.
func (s *Session) Import(ctx context.Context, repository string, d digest.Digest, from berth.LocalFile) (berth.ImportMethod, error) {
	return ask(ctx, s, func(h *Hold) (berth.ImportMethod, error) { return h.lease.Import(ctx, repository, d, from) })
}

// HoldFor opens an address for as long as another process of this machine runs, whatever becomes of the session.
func (s *Session) HoldFor(ctx context.Context, pid int, listen plugin.ListenOptions) (plugin.Endpoint, error) {
	asks := s.asks
	asks.Listen, asks.Logger, asks.AccessLog = &listen, nil, nil
	return ask(ctx, s, func(c *Hold) (plugin.Endpoint, error) { return c.Hold(ctx, pid, asks) })
}

// Status tells how the plugin is.
func (s *Session) Status(ctx context.Context) (plugin.Status, error) {
	return ask(ctx, s, func(c *Hold) (plugin.Status, error) { return c.Status(ctx) })
}

// Watch yields what happens to the layout, as [berth.Watcher] says. Where a plugin ends, it goes on at the
// next one, after what was yielded last: the sequence ends with an error, or with its consumer.
func (s *Session) Watch(ctx context.Context, opts *berth.WatchOptions) iter.Seq2[berth.Event, error] {
	return func(yield func(berth.Event, error) bool) {
		at := berth.WatchOptions{}
		if opts != nil {
			at = *opts
		}
		for {
			h, err := s.Hold(ctx)
			if err != nil {
				yield(berth.Event{}, err)
				return
			}
			for event, err := range h.Watch(ctx, &at) {
				if errors.Is(err, plugin.ErrEnding) {
					break
				}
				if !yield(event, err) || err != nil {
					return
				}
				if event.Position != "" {
					at.After = event.Position
				}
			}
			if !s.Lost(ctx, h) {
				yield(berth.Event{}, s.whyEnded(ctx))
				return
			}
		}
	}
}

// whyEnded is why a session does not go on at another plugin.
func (s *Session) whyEnded(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.life.Err() != nil:
		return ErrClosed
	}
	return plugin.ErrGone
}

// Stay returns when the context ends, and when the plugin was stopped. One that ends for another reason, or crashes,
// is replaced meanwhile.
//
// Errors: those of Open, where it cannot be replaced.
func (s *Session) Stay(ctx context.Context) error {
	for {
		h := s.Current()
		select {
		case <-ctx.Done():
			return nil
		case <-h.lease.Ending():
		case <-h.Done():
		}
		if h.lease.Stopped() {
			return nil
		}
		if !s.Lost(ctx, h) {
			return nil
		}
		if _, err := s.Hold(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// Lost waits until a hold is known to have ended, for who has seen a request fail on its way: that the plugin is
// gone is heard on another connection, a moment later. One that is about to end is waited for. It reports
// false where that is not why: the plugin is there, the session closed, or the context ended.
func (s *Session) Lost(ctx context.Context, h *Hold) bool {
	moment := time.NewTimer(newsTime)
	defer moment.Stop()
	select {
	case <-h.Done():
	case <-h.lease.Ending():
		select {
		case <-h.Done():
		case <-ctx.Done():
		case <-s.life.Done():
		}
	case <-moment.C:
	case <-ctx.Done():
	case <-s.life.Done():
	}
	return h.Ended() && ctx.Err() == nil && s.life.Err() == nil
}

// Close gives the lease back: when it returns, what was answered is on disk, index.json included, and nothing
// answers at the session's address any more. A private plugin has ended. Calls that are under way fail.
func (s *Session) Close() error {
	s.closing.Do(func() {
		s.end()
		s.turn <- struct{}{} // nobody joins any more
		s.minder.Wait()
		s.closed = s.Current().leave()
		<-s.turn
	})
	return s.closed
}
