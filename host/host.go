// Package host is how a program comes by a running plugin, and how it leaves it again.
//
//	session, err := host.Open(ctx, host.Options{Layout: dir, Launcher: host.Binary("berth")})
//	defer session.Close()
//	session.Endpoint().Address // serves the OCI distribution API
//
// A [Launcher] is where the plugin comes from: a berth binary, the program's own binary started once
// more, or no other process at all. What follows is the same for all of them: say hello, take a
// lease, and have an address opened.
//
// A plugin that was started by [Open] is private: it serves this session and ends with it, whether
// the session is closed or the process is killed. Two things tell it that its host is gone, each on
// its own: the lease's stream breaks, and its standard input, a pipe that the host holds, ends.
//
// [Attach] starts nothing: it talks to whatever process owns a layout, for work on the layout as a
// whole.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/berthoci/berth/plugin"
)

// Launcher starts a plugin.
type Launcher interface {
	// Launch starts a plugin that serves cfg.Layout. The context bounds the start alone.
	Launch(ctx context.Context, cfg plugin.Config, log *slog.Logger) (Plugin, error)
}

// Plugin is a plugin that was started.
type Plugin interface {
	plugin.Controller

	// Close waits until the plugin, which no lease holds any more, has ended, and ends it by force
	// if that takes too long.
	Close() error
}

// Options say which layout to serve and how.
type Options struct {
	// Layout is the layout directory.
	Layout string
	// Launcher starts the plugin. It must be set.
	Launcher Launcher
	// Listen says how the session's address serves the layout.
	Listen plugin.ListenOptions
	// Durability is what the registry's answers promise: "process" or "power". Empty: "process".
	Durability string
	// Logger is told what the plugin logs. Nil: nobody.
	Logger *slog.Logger
}

// Session is a plugin that this program holds.
type Session struct {
	plugin   Plugin
	lease    plugin.Lease
	info     plugin.Info
	endpoint plugin.Endpoint
}

// Open starts a plugin for a layout. When it returns, the plugin answers at the session's endpoint.
//
// Errors: berth.ErrLayoutInUse if another process owns the layout, berth.ErrLayoutInvalid if the
// directory is none; whatever keeps the plugin from starting, with the binary's name.
func Open(ctx context.Context, opts Options) (_ *Session, err error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	layout, err := filepath.Abs(opts.Layout)
	if err != nil {
		return nil, err
	}
	cfg := plugin.Config{Layout: layout, Private: true, Durability: opts.Durability, Debug: opts.Logger.Enabled(ctx, slog.LevelDebug)}
	s := &Session{}
	if s.plugin, err = opts.Launcher.Launch(ctx, cfg, opts.Logger); err != nil {
		return nil, fmt.Errorf("start a registry for %s: %w", layout, err)
	}
	if err := s.join(ctx, opts.Listen); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// join greets the plugin, takes a lease and has an address opened.
func (s *Session) join(ctx context.Context, opts plugin.ListenOptions) (err error) {
	if s.info, err = s.plugin.Hello(ctx); err != nil {
		return err
	}
	if s.lease, err = s.plugin.Lease(ctx); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	if s.endpoint, err = s.lease.Listen(ctx, opts); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// Endpoint is where the session's registry is served.
func (s *Session) Endpoint() plugin.Endpoint { return s.endpoint }

// Info is who the plugin is.
func (s *Session) Info() plugin.Info { return s.info }

// Flush brings the layout's index.json up to date with all that was answered before.
func (s *Session) Flush(ctx context.Context) error { return s.plugin.Flush(ctx) }

// Done is closed when the plugin is gone, whatever the reason.
func (s *Session) Done() <-chan struct{} { return s.lease.Done() }

// Close gives the lease back and waits until the plugin has ended. What was answered is in the
// layout then, index.json included.
func (s *Session) Close() error {
	var err error
	if s.lease != nil {
		err = s.lease.Close()
	}
	return errors.Join(err, s.plugin.Close())
}
