package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/sync"
)

func (a *app) sync() *cobra.Command {
	var opts sdk.SyncOptions
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "sync --to HOST[/PREFIX] PATTERN...",
		Short: "Bring tags of the layout to a remote registry",
		Long: `Bring tags of the layout to a remote registry: what it lacks, and nothing else. PATTERN is
REPO[:TAG], with * for any characters but /, and /** for all that is below; without a tag it means all.

Credentials are those that docker login and podman login have stored. With --dry-run nothing is
sent, and the exit code is 3 if there is something to do.`,
		Example: `  berth sync --to registry.example.com/team app/hello:v1
  berth sync --to localhost:5001 'app/**'`,
		Args: arguments(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opts.To == "" {
				return usageError{errors.New("--to HOST[/PREFIX] is needed: where shall the tags go?")}
			}
			opts.Patterns = args
			run := a.apply
			if dryRun {
				run = a.plan
			}
			if err := a.mustExist(args); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(registry *sdk.Registry) error {
				return run(cmd, registry, &opts)
			})
		},
	}
	cmd.Flags().Var((*textValue)(&opts.To), "to", "remote registry, `HOST[/PREFIX]`")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be done; exit with 3 if there is anything")
	return cmd
}

func (a *app) plan(cmd *cobra.Command, registry *sdk.Registry, opts *sdk.SyncOptions) error {
	plan, err := registry.PlanSync(cmd.Context(), opts)
	if err != nil {
		return err
	}
	lines := []string{}
	for _, item := range plan.Items {
		lines = append(lines, line(plan.Host, item, verdict(item)))
	}
	if err := a.print(plan, lines); err != nil {
		return err
	}
	if len(plan.Drift()) > 0 {
		return errDrift
	}
	return nil
}

func (a *app) apply(cmd *cobra.Command, registry *sdk.Registry, opts *sdk.SyncOptions) error {
	bars := a.progress()
	opts.Progress = bars.event
	report, err := registry.Sync(cmd.Context(), opts)
	bars.end()
	if report == nil {
		return err
	}
	lines := []string{}
	for _, r := range report.Items {
		done := "unchanged"
		switch {
		case r.Error != "":
			done = "failed"
		case r.Drifted():
			done = fmt.Sprintf("synced (%d sent, %d mounted, %d there already)", r.Stats.Sent, r.Stats.Mounted, r.Stats.Existing)
		}
		lines = append(lines, line(report.Host, r.Item, done))
	}
	return errors.Join(err, a.print(report, lines))
}

func line(host string, item sync.Item, what string) string {
	return fmt.Sprintf("%s → %s/%s@%s  %s", item.Source, host, item.Target, item.Descriptor.Digest, what)
}

func verdict(item sync.Item) string {
	switch {
	case !item.Drifted():
		return "unchanged"
	case item.Was == "":
		return "new"
	}
	return "moves from " + item.Was
}
