package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/plugin"
)

// DefaultGrace is how long a layout spares a blob that it has told a client of, where nothing else is
// asked for.
const DefaultGrace = ocilayout.DefaultGrace

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
// that owns it, or opens it, and then owns it until Close, for others too who want it meanwhile.
//
// Errors: those of host.Open; berth.ErrLayoutInUse where Rebuild wants the layout at rest.
func Maintain(ctx context.Context, opts MaintainOptions) (*Maintenance, error) {
	if opts.Rebuild {
		return rebuild(ctx, opts)
	}
	owner, err := host.Attach(ctx, opts.Layout)
	if err == nil {
		return &Maintenance{owner, owner, owner, owner, repositoriesAt(owner), owner.Close}, nil
	}
	if !errors.Is(err, host.ErrNotRunning) {
		return nil, err
	}
	session, err := host.Open(ctx, host.Options{
		Layout:   opts.Layout,
		Launcher: inProcess{grace: opts.Grace},
		Listen:   plugin.ListenOptions{ReadOnly: true, Token: rand.Text()},
		Logger:   opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	list := func(ctx context.Context) ([]string, error) { return catalog(ctx, session.Endpoint()) }
	return &Maintenance{session, session, session, session, list, session.Close}, nil
}

// rebuild opens a layout that is at rest, and makes its index anew.
func rebuild(ctx context.Context, opts MaintainOptions) (*Maintenance, error) {
	layout, err := ocilayout.Open(ctx, opts.Layout, &ocilayout.Options{
		Logger: opts.Logger, Rebuild: true, Grace: max(opts.Grace, DefaultGrace),
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
