// Package host is how a program comes by a running plugin, and how it leaves it again. Most programs want package
// sdk, which does that and more.
//
//	session, err := host.Open(ctx, host.Options{Layout: dir, Launcher: host.Binary("berth")})
//	defer session.Close()
//	session.Endpoint().Address // serves the OCI distribution API
//
// A layout has one plugin, and all programs that want the layout share it. [Open] asks whoever answers at the
// layout's control socket for a lease; where nobody does, it takes the layout's start.lock, looks once more, and
// starts a plugin, while others wait for that. A lease is a stream, which the kernel closes when its host dies:
// so a plugin knows whom it serves, and ends by itself when it has been idle for a while. Nobody is ever killed
// by a number.
//
// A [Launcher] is where the plugin comes from: a berth binary, the program's own binary started once
// more, or no other process at all. What follows is the same for all of them.
//
// A plugin that has crashed, or was ended, is replaced: by the first session that needs it, for all of them. The
// session's address and token stay what they were, if nobody has taken the address meanwhile.
//
// A private plugin, see [Options], serves one session and ends with it, whether that is closed or its process is
// killed. Two things tell it that its host is gone, each on its own: the lease's stream breaks, and its
// standard input, a pipe that the host holds, ends.
//
// [Attach] starts nothing: it talks to whatever process owns a layout, for work on the layout as a
// whole.
package host

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/berthoci/berth/plugin"
)

// Launcher starts a plugin.
type Launcher interface {
	// Launch starts a plugin, which takes calls when Launch returns. The context bounds the start alone.
	//
	// Errors: berth.ErrLayoutInUse, berth.ErrLayoutInvalid; plugin.ErrIncompatible.
	Launch(ctx context.Context, start Start) (Plugin, error)
}

// Start is what is to be started.
type Start struct {
	plugin.Config
	// Lock is the layout's start.lock, which the launcher takes over: it is held until the plugin takes calls
	// or has failed to. Nil: none.
	Lock *os.File
	// Logger is told what the plugin logs before its first lease.
	Logger *slog.Logger
}

// Plugin is a plugin that a session talks to.
type Plugin interface {
	plugin.Controller

	// Close lets the plugin go, when the session has no lease any more. A private one has ended when it
	// returns: by force, if it takes too long.
	Close() error
}

// Options say which layout to serve and how.
type Options struct {
	// Layout is the layout directory.
	Layout string
	// Launcher starts the plugin. It must be set.
	Launcher Launcher
	// Private wants a plugin for this session alone. Where another process has the layout that shares it with nobody,
	// Open without Private waits for three seconds before it says so.
	Private bool
	// Listen says how the session's address serves the layout.
	Listen plugin.ListenOptions
	// Durability is what the registry's answers promise at least: "process" or "power". Empty: "process".
	Durability string
	// IdleTimeout is how long a plugin that is shared stays when its last session is closed, at least. Zero:
	// plugin.DefaultIdleTimeout. Negative: it ends at once.
	IdleTimeout time.Duration
	// Logger is told what the plugin logs. Nil: nobody.
	Logger *slog.Logger
	// AccessLog gets one record of each request to the session's address. Nil: nobody.
	AccessLog *slog.Logger
}
