// Package embedded is the whole of berth inside somebody else's binary: the one place that joins the
// store, the server and the control plane.
//
// A tool that ships berth within itself begins its main function with [Main]:
//
//	func main() {
//		embedded.Main()
//		…
//		registry, err := sdk.Open(ctx, &sdk.Options{Layout: dir, Launcher: host.Self()})
//	}
//
// Started once more by itself, the binary then is the plugin. A test, or a program that wants no
// second process, uses [InProcess] instead. [Serve] is a registry in the foreground.
package embedded

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/berthoci/berth/plugin"
)

// Main is the plugin's main function. In a process that was not started to be a plugin it returns at
// once; otherwise it never does. Nothing should happen before it.
func Main() {
	if plugin.Requested() {
		os.Exit(run())
	}
}

// run serves one layout until its hosts are gone.
func run() int {
	// The host that reads this process's output may be gone when the last lines are written.
	signal.Ignore(syscall.SIGPIPE)
	cfg, err := plugin.ConfigFromEnviron()
	level := slog.LevelInfo
	if cfg.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(plugin.LogHandler(os.Stderr, level))
	if err != nil {
		log.Error("cannot start", "err", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := newController(ctx, cfg, log)
	if cfg.Private {
		go c.endWith(os.Stdin)
	}
	go func() {
		defer c.end()
		plugin.Serve(c)
	}()
	c.wait(ctx)
	err = c.close()
	removeScratch(cfg.Scratch)
	if err != nil {
		log.Error("did not close well", "err", err)
		return 1
	}
	return 0
}

// removeScratch removes the directory of the control plane's socket, also while that is being made.
func removeScratch(dir string) {
	const attempts = 10
	for range attempts {
		if dir == "" || os.RemoveAll(dir) == nil {
			return
		}
	}
}

// endWith ends the controller when the host's end of a pipe is closed.
func (c *controller) endWith(pipe io.Reader) {
	io.Copy(io.Discard, pipe)
	c.end()
}

// Version is the module's version in this binary: "v1.2.3", or "devel" where it was built from a
// working tree.
func Version() string {
	const module = "github.com/berthoci/berth"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module && m.Version != "" && m.Version != "(devel)" {
			return m.Version
		}
	}
	return "devel"
}
