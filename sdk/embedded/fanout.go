package embedded

import (
	"context"
	"log/slog"
	"slices"
	"sync"
)

// fanout is a log handler whose records go to all who listen at the time, and to a first one as long as nobody
// else does.
type fanout struct {
	mu        sync.Mutex // guards the fields below
	first     slog.Handler
	listeners []*slog.Logger // is replaced, and never changed
}

func newFanout(first slog.Handler) *fanout { return &fanout{first: first} }

// add makes a logger a listener, until stop is called. Nil is none, but silences the first one.
func (f *fanout) add(to *slog.Logger) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first = slog.DiscardHandler
	if to == nil {
		return func() {}
	}
	own := slog.New(to.Handler()) // the same logger may listen twice
	f.listeners = append(slices.Clone(f.listeners), own)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.listeners = slices.DeleteFunc(slices.Clone(f.listeners), func(l *slog.Logger) bool { return l == own })
	}
}

func (f *fanout) handlers() (all []slog.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.listeners {
		all = append(all, l.Handler())
	}
	return append(all, f.first)
}

func (f *fanout) Enabled(ctx context.Context, level slog.Level) bool {
	return slices.ContainsFunc(f.handlers(), func(h slog.Handler) bool { return h.Enabled(ctx, level) })
}

// asItIs is a fanout as a handler that adds nothing.
func (f *fanout) asItIs() wrapped { return wrapped{f, func(h slog.Handler) slog.Handler { return h }} }

func (f *fanout) Handle(ctx context.Context, r slog.Record) error { return f.asItIs().Handle(ctx, r) }

func (f *fanout) WithAttrs(attrs []slog.Attr) slog.Handler { return f.asItIs().WithAttrs(attrs) }

func (f *fanout) WithGroup(name string) slog.Handler { return f.asItIs().WithGroup(name) }

// wrapped is a fanout whose handlers are given something more.
type wrapped struct {
	*fanout
	wrap func(slog.Handler) slog.Handler
}

func (w wrapped) Handle(ctx context.Context, r slog.Record) error {
	for _, h := range w.handlers() {
		if h.Enabled(ctx, r.Level) {
			w.wrap(h).Handle(ctx, r.Clone())
		}
	}
	return nil
}

func (w wrapped) WithAttrs(attrs []slog.Attr) slog.Handler {
	return wrapped{w.fanout, func(h slog.Handler) slog.Handler { return w.wrap(h).WithAttrs(attrs) }}
}

func (w wrapped) WithGroup(name string) slog.Handler {
	return wrapped{w.fanout, func(h slog.Handler) slog.Handler { return w.wrap(h).WithGroup(name) }}
}
