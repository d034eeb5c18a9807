package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/pin"
)

// app is what all commands share: the flags that all of them have.
type app struct {
	layout    string
	json      bool
	verbose   bool
	plainHTTP []string
	certDirs  []string
	// anonymousRetry is for credentials that are out of date.
	anonymousRetry bool
	// requests and requestsPerSecond bound what a remote registry is asked. Zero: as sdk.Options has it.
	requests          int
	requestsPerSecond float64
	allowMissing      bool // the layout is to take indexes without all of their images
	// idleTimeout is how long what serves the layout stays after this command.
	idleTimeout durationValue
	started     bool // a command's own work has begun: the command line was understood
	resumable   bool // what it has done so far need not be done again
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "berth",
		Short:         "An OCI registry for build tools",
		Long:          "berth serves an OCI image layout directory as a registry, brings images in and out of it,\npins their digests, and syncs selected tags to remote registries.",
		Version:       plugin.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
			log.SetOutput(io.Discard) // what net/http says by itself is not for users
		},
	}
	flags := root.PersistentFlags()
	flags.Var((*textValue)(&a.layout), "layout", "layout directory `DIR` (default $"+sdk.LayoutVariable+", else the user's data directory)")
	flags.BoolVar(&a.json, "json", false, "print data as JSON")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "log what goes on")
	flags.Var((*hostsValue)(&a.plainHTTP), "plain-http", "speak http to this remote `HOST[:PORT]`; may be repeated")
	flags.Var((*dirsValue)(&a.certDirs), "cert-dir", "have the CAs and client certificates of remote registries from `DIR`/HOST[:PORT]; may be repeated (default where Docker and podman have them)")
	flags.BoolVar(&a.anonymousRetry, "anonymous-retry", false, "read without the stored credentials where a remote registry turns them down")
	flags.Var(&a.idleTimeout, "idle-timeout", "how long what serves the layout stays when nobody uses it any more (default $"+sdk.IdleVariable+", else 10s)")
	root.AddCommand(a.serve(), a.status(), a.stop(), a.endpoint(), a.push(), a.pull(), a.ls(), a.resolve(), a.inspect(),
		a.tag(), a.rm(), a.referrers(), a.pin(), a.sync(), a.gc(), a.fsck(), a.checkout())
	return root
}

func (a *app) interrupted() error {
	if a.resumable {
		return errors.New("interrupted; the same command goes on where this one was")
	}
	return errors.New("interrupted")
}

// limitFlags bound what a remote registry is asked.
func (a *app) limitFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&a.requests, "requests", 0, "send a remote registry `N` requests at once, at most (default 32)")
	flags.Float64Var(&a.requestsPerSecond, "requests-per-second", 0, "begin `N` requests with a remote registry in a second, at most")
}

// arguments says what a command wants, where what it was given does not fit.
func arguments(fit cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if fit(cmd, args) == nil {
			return nil
		}
		return fmt.Errorf("arguments %q: want %s%s", args, strings.TrimSuffix(cmd.CommandPath(), cmd.Name()), cmd.Use)
	}
}

// logger is for who serves: what an operator should know, and all else only when asked.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	if a.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// teller is for the other commands: what happened to the layout as a whole, in words, and all else only
// when asked.
func (a *app) teller() *slog.Logger {
	if a.verbose {
		return a.logger()
	}
	return slog.New(newWarnings(warn))
}

// layoutDir is the layout that is meant.
func (a *app) layoutDir() (string, error) {
	if a.layout != "" {
		return a.layout, nil
	}
	return sdk.DefaultLayout()
}

// reading finds references in the layout, or in remote registries where they have hosts; where all
// have, no layout is opened.
func (a *app) reading(ctx context.Context, refs []string, work func(*sdk.Images) error) error {
	if err := checkReferences(refs); err != nil {
		return err
	}
	local := slices.DeleteFunc(slices.Clone(refs), hasHost)
	if len(local) == 0 {
		return work(sdk.NewImages(a.options()))
	}
	if err := a.mustExist(local); err != nil {
		return err
	}
	return a.with(ctx, func(registry *sdk.Registry) error { return work(registry.Images) })
}

// checkReferences refuses what is nothing but mistyped. Where something is not, each command tells of the rest.
func checkReferences(refs []string) error {
	var errs []error
	for _, ref := range refs {
		if plain, is := strings.CutPrefix(ref, sdk.FormRegistry); is {
			return usageError{fmt.Errorf("reference %.200q: leave out %s: write %.200s", ref, sdk.FormRegistry, plain)}
		}
		_, rest := pin.SplitHost(ref)
		_, err := berth.ParseReference(rest)
		if err == nil {
			return nil
		}
		errs = append(errs, usageError{err})
	}
	return errors.Join(errs...)
}

// hasHost reports whether a reference is one of a remote registry.
func hasHost(ref string) bool {
	host, _ := pin.SplitHost(ref)
	return host != ""
}

// with opens the layout's registry for the time of one command.
func (a *app) with(ctx context.Context, work func(*sdk.Registry) error) (err error) {
	registry, err := sdk.Open(ctx, a.options())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	return work(registry)
}

func (a *app) options() *sdk.Options {
	return &sdk.Options{
		Layout:      a.layout,
		Launcher:    host.Self(),
		IdleTimeout: a.idleTimeout.option(),
		PlainHTTP:   a.plainHTTP,
		CertDirs:    a.certDirs,
		Requests:    a.requests,
		UserAgent:   "berth/" + plugin.Version(),
		Logger:      a.teller(),

		AllowMissing:      a.allowMissing,
		AnonymousRetry:    a.anonymousRetry,
		RequestsPerSecond: a.requestsPerSecond,
	}
}
