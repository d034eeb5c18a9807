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
	"syscall"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// Main is the plugin's main function. In a process that was not started to be a plugin it returns at
// once; otherwise it never does. Nothing should happen before it: such a process has an environment of what finds
// files, and nothing else of its host's, no standard streams, and the root directory as its own.
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
	closeInherited(cfg.StartLock)
	level := slog.LevelInfo
	if cfg.Debug {
		level = slog.LevelDebug
	}
	log := plugin.LogHandler(os.Stderr, level)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var c *controller
	if err == nil {
		c, err = startPlugin(ctx, cfg, log)
	}
	if err != nil {
		plugin.FailStart(slog.New(log), err)
		return 1
	}
	if cfg.Key != "" {
		go c.endWith(os.Stdin)
	}
	defer Dedicate()()
	go plugin.Announce()
	go c.settle()
	select {
	case <-c.use.over:
	case <-ctx.Done():
	}
	err = c.close()
	forgetCrashes(cfg.Layout)
	removeScratch(cfg.Scratch)
	if err != nil {
		c.log.Error("did not close well", "err", err)
		return 1
	}
	return 0
}

// startPlugin opens the layout and takes calls, and then lets others look for it who wait for the start.
func startPlugin(ctx context.Context, cfg plugin.Config, log slog.Handler) (*controller, error) {
	if cfg.StartLock != 0 {
		lock := control.Inherit(cfg.StartLock)
		defer lock.Release()
	}
	host := plugin.End{Version: cfg.Version, Protocols: cfg.Protocols}
	if err := plugin.Meet(host, plugin.Here(), "install the berth binary that belongs to the program, or update the program"); err != nil {
		return nil, err
	}
	c, err := newController(ctx, cfg, plugin.KindPlugin, log, DefaultGrace)
	if err != nil {
		return nil, err
	}
	if err := c.door.open(cfg.Layout, c); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// settle does what can wait until the host that started this process has a lease: it has read then what it waited
// for, and nobody needs this process's output any more. What would write to it must not be kept waiting, and not
// be killed for it.
func (c *controller) settle() {
	select {
	case <-c.claimed:
	case <-c.use.over:
		return
	}
	silence()
	removeScratch(c.cfg.Scratch)
	keepCrashes(c.cfg.Layout, c.log)
}

// removeScratch removes the directory of go-plugin's socket, also while that is being made.
func removeScratch(dir string) {
	const attempts = 10
	for range attempts {
		if dir == "" || os.RemoveAll(dir) == nil {
			return
		}
	}
}

// endWith ends the plugin when the host's end of a pipe is closed.
func (c *controller) endWith(pipe io.Reader) {
	io.Copy(io.Discard, pipe)
	c.use.finish()
}
