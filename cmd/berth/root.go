package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

// app is what all commands share: the flags that all of them have.
type app struct {
	layout    string
	json      bool
	verbose   bool
	plainHTTP []string
	started   bool // a command's own work has begun: the command line was understood
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "berth",
		Short:         "An OCI registry for build tools",
		Long:          "berth serves an OCI image layout directory as a registry, brings images in and out of it,\npins their digests, and syncs selected tags to remote registries.",
		Version:       embedded.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.layout, "layout", "", "layout directory (default $"+sdk.LayoutVariable+", else the user's data directory)")
	flags.BoolVar(&a.json, "json", false, "print data as JSON")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log what goes on")
	flags.StringSliceVar(&a.plainHTTP, "plain-http", nil, "speak http to this remote `HOST[:PORT]`; may be repeated")
	root.AddCommand(a.serve(), a.push(), a.pull(), a.ls(), a.resolve(), a.pin(), a.sync())
	return root
}

// logger is for what a user wants to know only when asked.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// with opens the layout's registry for the time of one command.
func (a *app) with(ctx context.Context, work func(*sdk.Registry) error) (err error) {
	registry, err := sdk.Open(ctx, &sdk.Options{
		Layout:    a.layout,
		Launcher:  host.Self(),
		PlainHTTP: a.plainHTTP,
		UserAgent: "berth/" + embedded.Version(),
		Logger:    a.logger(),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	return work(registry)
}
