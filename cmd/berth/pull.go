package main

import (
	"errors"
	"fmt"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/sync"
)

// selectFlags say what comes along of what is selected, and under which name, in both directions.
type selectFlags struct {
	sel       sync.Selection
	platforms []string
	alone     bool // without referrers
	dryRun    bool
}

func (f *selectFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.sel.Rename, "rename", "", "what a tag is called there: `TEMPLATE` of {repository}, {name} and {tag}")
	flags.StringSliceVar(&f.platforms, "platform", nil, "of an index, the image for this `OS/ARCH[/VARIANT]`; with several, the index with those images alone")
	flags.BoolVar(&f.sel.Sparse, "sparse", false, "keep the index also with one --platform")
	flags.BoolVar(&f.alone, "no-referrers", false, "leave behind what refers to an image: signatures, attestations, SBOMs")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would be done; exit with 3 if there is anything")
}

// read makes a selection of the flags.
func (f *selectFlags) read() error {
	f.sel.Referrers = !f.alone
	for _, text := range f.platforms {
		platform, err := manifest.ParsePlatform(text)
		if err != nil {
			return usageError{fmt.Errorf("flag --platform: %w", err)}
		}
		f.sel.Platforms = append(f.sel.Platforms, platform)
	}
	return nil
}

// pullFlags are what berth pull is told.
type pullFlags struct {
	selectFlags
	into string
}

func (f *pullFlags) define(cmd *cobra.Command) {
	f.selectFlags.define(cmd)
	cmd.Flags().StringVar(&f.into, "into", "", "put `PREFIX` before the names of repositories in the layout")
}

// forOne refuses what is about many images where there is one, and another number of arguments.
func (f *pullFlags) forOne(args []string) error {
	switch {
	case len(args) > 2:
		return fmt.Errorf("%q: one image goes to one place, berth pull REF DEST; several come into the layout where all begin with docker://", args)
	case len(args) < 2:
		return fmt.Errorf("%q: where shall it go? want berth pull REF DEST, or docker://REF for one that is to come into the layout", args[0])
	case f.sel.Sparse || f.dryRun || f.sel.Rename != "" || f.into != "" || len(f.platforms) > 1:
		return errors.New("--sparse, --dry-run, --rename, --into and several --platform are for what comes into the layout")
	}
	return nil
}

// platform is the only one that is chosen, or nil.
func (f *pullFlags) platform() (*v1.Platform, error) {
	if len(f.platforms) == 0 {
		return nil, nil
	}
	return parsePlatform(f.platforms[0])
}

// isNoRemote reports whether an argument does not say by its form that it is in a remote registry.
func isNoRemote(arg string) bool {
	for _, form := range []string{sdk.FormRegistry, "https://", "http://"} {
		if strings.HasPrefix(strings.TrimPrefix(arg, "!"), form) {
			return false
		}
	}
	return true
}

// pullInto brings images of remote registries into the layout.
func (a *app) pullInto(cmd *cobra.Command, f *pullFlags, args []string) error {
	if err := f.read(); err != nil {
		return err
	}
	if err := a.mayBeMade(); err != nil {
		return err
	}
	a.allowMissing = f.sel.Sparse || len(f.sel.Platforms) > 1
	opts := &sdk.SyncFromOptions{References: args, Prefix: f.into, Selection: f.sel}
	return a.with(cmd.Context(), func(registry *sdk.Registry) error {
		if f.dryRun {
			plan, err := registry.PlanSyncFrom(cmd.Context(), opts)
			return a.printPlan(plan, err)
		}
		a.resumable = true
		bars := a.progress()
		bars.sent = "fetched"
		opts.Progress = bars.event
		report, err := registry.SyncFrom(cmd.Context(), opts)
		bars.end()
		if report == nil {
			return err
		}
		return errors.Join(err, a.printReport(cmd.Context(), report, "fetched"))
	})
}
