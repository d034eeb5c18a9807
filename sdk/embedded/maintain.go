package embedded

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/ocilayout"
)

// DefaultGrace is how long a layout spares a blob that it has told a client of, where nothing else is
// asked for.
const DefaultGrace = ocilayout.DefaultGrace

const (
	// startTime is how long an owner may take from its lock to its socket.
	startTime = 2 * time.Second
	// firstPause and longestPause bound how often it is looked for meanwhile.
	firstPause   = 5 * time.Millisecond
	longestPause = 200 * time.Millisecond
)

// MaintainOptions say which layout is maintained.
type MaintainOptions struct {
	// Layout is the layout directory.
	Layout string
	// Grace is the longest that GC is going to be called with. A layout that somebody owns has its own
	// limit. Zero: DefaultGrace.
	Grace time.Duration
	// Rebuild throws the index away and makes it anew from index.json and what that names. The layout
	// must be at rest.
	Rebuild bool
	// Logger is told what an operator should know. Nil: nobody.
	Logger *slog.Logger
}

// Maintenance is a layout, for work on it as a whole.
type Maintenance struct {
	berth.Flusher
	berth.Collector
	berth.Checker
	berth.Checkouter
	repositories func(context.Context) ([]string, error)
	close        func() error
}

// Maintain gives access to a layout whether somebody serves it or it is at rest: it asks the process
// that owns it, or opens it, and then owns it until Close.
//
// Errors: berth.ErrLayoutInUse if who owns it cannot be asked, or where Rebuild wants it at rest;
// berth.ErrLayoutInvalid.
func Maintain(ctx context.Context, opts MaintainOptions) (*Maintenance, error) {
	deadline := time.Now().Add(startTime)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		m, err := maintainOnce(ctx, opts)
		if !errors.Is(err, berth.ErrLayoutInUse) || opts.Rebuild || time.Now().After(deadline) {
			return m, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// maintainOnce asks the owner; if there is none, it becomes that.
func maintainOnce(ctx context.Context, opts MaintainOptions) (*Maintenance, error) {
	if !opts.Rebuild {
		owner, err := host.Attach(ctx, opts.Layout)
		if err == nil {
			return &Maintenance{owner, owner, owner, owner, repositoriesAt(owner), owner.Close}, nil
		}
		if !errors.Is(err, host.ErrNotRunning) {
			return nil, err
		}
	}
	layout, err := ocilayout.Open(ctx, opts.Layout, &ocilayout.Options{
		Logger: opts.Logger, Rebuild: opts.Rebuild, Grace: max(opts.Grace, DefaultGrace),
	})
	if err != nil {
		return nil, err
	}
	u := newUpkeep(layout)
	return &Maintenance{u, u, u, u, repositoriesOf(layout), func() error {
		u.hurry()
		u.drain(context.Background())
		return layout.Close()
	}}, nil
}

// Close ends what is under way. A layout that was at rest is at rest again.
func (m *Maintenance) Close() error { return m.close() }
