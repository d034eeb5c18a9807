package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/sync"
)

// syncFlags are what berth sync is told.
type syncFlags struct {
	selectFlags
	sdk.SyncOptions
	to    []string
	save  string
	plan  string
	file  string
	watch bool

	pruneMax int
}

func (a *app) sync() *cobra.Command {
	var f syncFlags
	cmd := &cobra.Command{
		Use:   "sync --to HOST[/PREFIX] PATTERN... | -f FILE",
		Short: "Bring tags of the layout to remote registries",
		Long: `Bring tags of the layout to remote registries: what they lack, and nothing else. A sync that was
stopped, or killed, goes on where it was. PATTERN is REPO[:TAG], with * for any characters but /, and
/** for all that is below; TAG can also be a range of versions or a regular expression between slashes;
without a tag it means all. A pattern that begins with ! takes away what those before it select.

With --watch it goes on, and brings every push that matches, until it is ended. A file that -f names
has several syncs, in YAML; docs/sync.md tells its form.

Credentials are those that docker login and podman login have stored. With --dry-run nothing is
sent, and the exit code is 3 if there is something to do.`,
		Example: `  berth sync --to registry.example.com/team app/hello:v1
  berth sync --to localhost:5001 'app/**' '!app/**:dev-*'
  berth sync --to registry.example.com --rename '{name}:{tag}-nightly' 'app/web:>=1.2 <2'
  berth sync --to registry.example.com --save plan.json app/web && berth sync --plan plan.json --to registry.example.com
  berth sync --watch --to registry.example.com/team 'app/**'
  berth sync -f sync.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.exclude(); err != nil {
				return err
			}
			if f.file != "" {
				return a.syncFile(cmd, &f, args)
			}
			if err := f.read(args); err != nil {
				return err
			}
			if err := a.mustExist(args); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(registry *sdk.Registry) error { return a.syncOne(cmd, registry, &f) })
		},
	}
	f.define(cmd)
	a.limitFlags(cmd)
	return cmd
}

// syncOne does what is asked about one sync.
func (a *app) syncOne(cmd *cobra.Command, registry *sdk.Registry, f *syncFlags) error {
	switch {
	case f.dryRun || f.save != "":
		return a.planSync(cmd, registry, f)
	case f.watch:
		return a.replicate(cmd, registry, f)
	}
	return a.applySync(cmd, registry, f)
}

// replicate brings every push that matches. That somebody ends it is no failure.
func (a *app) replicate(cmd *cobra.Command, registry *sdk.Registry, f *syncFlags) error {
	err := registry.Replicate(cmd.Context(), &f.SyncOptions, func(report *sync.Report, err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "berth:", err)
		}
		if report != nil {
			report.Items = slices.DeleteFunc(report.Items, func(r sync.Result) bool { return !r.Drifted() && r.Error == "" })
			a.printReport(cmd.Context(), report, "sent")
		}
	})
	if errors.Is(err, cmd.Context().Err()) {
		return nil
	}
	return err
}

func (f *syncFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.to, "to", nil, "remote registry, `HOST[/PREFIX]`; several get the same")
	f.selectFlags.define(cmd)
	flags.StringArrayVar(&f.sel.Immutable, "immutable", nil, "tags that `PATTERN` selects never change: they are not asked about again, and never moved")
	flags.BoolVar(&f.sel.Prune, "prune", false, "remove tags there that the patterns select and that are not here")
	flags.IntVar(&f.pruneMax, "prune-max", 10, "remove no tag at all if there are more than `N` to remove")
	flags.BoolVar(&f.Verify, "verify", false, "ask for each tag that was set what it is now")
	flags.StringVar(&f.save, "save", "", "keep the plan in `FILE`, and do nothing")
	flags.StringVar(&f.plan, "plan", "", "carry out the plan in `FILE`")
	flags.StringVarP(&f.file, "file", "f", "", "do the syncs in `FILE`")
	flags.BoolVar(&f.watch, "watch", false, "go on, and bring every push that matches")
}

// exclude refuses flags that mean different things to do.
func (f *syncFlags) exclude() error {
	named := []string{}
	for name, set := range map[string]bool{"--dry-run": f.dryRun, "--watch": f.watch, "--save": f.save != "", "--plan": f.plan != ""} {
		if set {
			named = append(named, name)
		}
	}
	slices.Sort(named)
	switch {
	case len(named) > 1:
		return usageError{fmt.Errorf("%s exclude each other", strings.Join(named, " and "))}
	case f.pruneMax < 0:
		return usageError{fmt.Errorf("--prune-max %d: it is how many tags may be removed; want 0 or more", f.pruneMax)}
	}
	if f.sel.PruneMax = f.pruneMax; f.pruneMax == 0 {
		f.sel.PruneMax = -1
	}
	return nil
}

// excludeFile refuses flags beside a file, which says all that they would.
func (f *syncFlags) excludeFile(cmd *cobra.Command) error {
	var named []string
	for _, name := range strings.Fields("to save plan rename platform sparse no-referrers immutable prune prune-max requests requests-per-second") {
		if cmd.Flags().Changed(name) {
			named = append(named, "--"+name)
		}
	}
	if len(named) > 0 {
		return usageError{fmt.Errorf("-f names a file, which says all of that; leave out %s", strings.Join(named, " and "))}
	}
	return nil
}

// read makes options of the flags and arguments.
func (f *syncFlags) read(args []string) error {
	switch {
	case len(f.to) == 0:
		return usageError{errors.New("--to HOST[/PREFIX] is needed: where shall the tags go?")}
	case len(slices.Compact(slices.Sorted(slices.Values(f.to)))) < len(f.to):
		return usageError{fmt.Errorf("--to names the same twice: %s", strings.Join(f.to, " "))}
	case slices.Contains(f.to, ""):
		return usageError{errors.New(`invalid argument "" for "--to" flag: it is empty`)}
	case f.plan == "" && len(args) == 0:
		return usageError{errors.New("which tags shall go there? want berth sync --to HOST[/PREFIX] and each PATTERN, like app/web:v*")}
	case f.plan != "" && len(args) > 0:
		return usageError{errors.New("--plan says which tags are meant; leave out the patterns")}
	}
	f.To, f.Also, f.Patterns = f.to[0], f.to[1:], args
	if err := f.selectFlags.read(); err != nil {
		return err
	}
	f.Selection = f.sel
	if f.plan != "" {
		return nil
	}
	if _, err := f.Selection.Matcher(args); err != nil {
		return usageError{err}
	}
	return nil
}

func (a *app) planSync(cmd *cobra.Command, registry *sdk.Registry, f *syncFlags) error {
	plan, err := registry.PlanSync(cmd.Context(), &f.SyncOptions)
	if f.save == "" {
		return a.printPlan(plan, err)
	}
	if err == nil {
		err = f.savePlan(plan)
	}
	if err == nil && !a.json {
		tellPlan(plan)
	}
	return err
}

// printPlan prints what would be done, as far as it could be found out. That there is something is the error errDrift.
func (a *app) printPlan(plan *sync.Plan, err error) error {
	if plan == nil {
		return err
	}
	lines := []string{}
	for _, item := range plan.Items {
		lines = append(lines, line(item, verdict(item)))
	}
	if err := errors.Join(err, a.print(plan, lines)); err != nil {
		return err
	}
	drift := plan.Drift()
	refused := func(i sync.Item) bool { return i.Change == sync.Refused }
	switch {
	case len(drift) == 0:
		return nil
	case slices.ContainsFunc(drift, refused):
		return errors.New("not all of it can be done")
	case !a.json:
		tellPlan(plan)
	}
	return errDrift
}

// tellPlan says how much there is to do.
func tellPlan(plan *sync.Plan) {
	fmt.Fprintf(os.Stderr, "%d of %d tags to do, %s to move\n", len(plan.Drift()), len(plan.Items), size(plan.Bytes()))
}

func (f *syncFlags) savePlan(plan *sync.Plan) error {
	data, err := json.MarshalIndent(plan, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(f.save, append(data, '\n'), 0o644)
}

func (f *syncFlags) loadPlan() (*sync.Plan, error) {
	data, err := os.ReadFile(f.plan)
	if err != nil {
		return nil, err
	}
	plan := &sync.Plan{}
	if err := json.Unmarshal(data, plan); err != nil {
		return nil, fmt.Errorf("plan %s: it is none that berth sync --save has made: %w", f.plan, err)
	}
	return plan, nil
}

func (a *app) applySync(cmd *cobra.Command, registry *sdk.Registry, f *syncFlags) error {
	a.resumable = true
	bars := a.progress()
	f.Progress = bars.event
	report, err := f.run(cmd, registry)
	bars.end()
	if report == nil {
		return err
	}
	return errors.Join(err, a.printReport(cmd.Context(), report, "sent"))
}

// printReport prints what was done, and how much of it, at the end. sent is what is said of what has moved.
func (a *app) printReport(ctx context.Context, report *sync.Report, sent string) error {
	lines, counts := []string{}, map[string]int{}
	for _, r := range report.Items {
		what := outcome(ctx, r)
		counts[what]++
		if what == synced {
			what = fmt.Sprintf("synced (%d %s, %d mounted, %d there already)", r.Stats.Sent, sent, r.Stats.Mounted, r.Stats.Existing)
		}
		lines = append(lines, line(r.Item, what))
	}
	err := a.print(report, lines)
	if !a.json && len(lines) > 1 {
		fmt.Fprintf(os.Stderr, "%s; %s %s\n", tally(counts), size(report.Total.Bytes), sent)
	}
	return err
}

// tally is how many there are of each outcome.
func tally(counts map[string]int) string {
	var parts []string
	for _, what := range []string{synced, removed, unchanged, failed, interrupted} {
		if n := counts[what]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	return strings.Join(parts, ", ")
}

func (f *syncFlags) run(cmd *cobra.Command, registry *sdk.Registry) (*sync.Report, error) {
	if f.plan == "" {
		return registry.Sync(cmd.Context(), &f.SyncOptions)
	}
	plan, err := f.loadPlan()
	if err != nil {
		return nil, err
	}
	return registry.ApplyPlan(cmd.Context(), plan, &f.SyncOptions)
}

func line(item sync.Item, what string) string {
	there := item.There()
	switch {
	case item.Source == "":
		return fmt.Sprintf("%s  %s", there, what)
	case !strings.Contains(there, "@"):
		there += "@" + string(item.Descriptor.Digest)
	}
	return fmt.Sprintf("%s → %s  %s", item.Here(), there, what)
}

// What has become of a tag.
const (
	synced      = "synced"
	removed     = "removed"
	unchanged   = "unchanged"
	failed      = "failed"
	interrupted = "interrupted"
)

func outcome(ctx context.Context, r sync.Result) string {
	switch {
	case r.Error != "" && ctx.Err() != nil:
		return interrupted
	case r.Error != "":
		return failed
	case r.Change == sync.Removed:
		return removed
	case !r.Drifted():
		return unchanged
	}
	return synced
}

func verdict(item sync.Item) string {
	text := string(item.Change)
	switch item.Change {
	case sync.Moves:
		text = "moves from " + string(item.Was)
	case sync.Refused:
		text = "refused: " + item.Reason
	case sync.Removed:
		text = "would be removed"
	}
	if n := len(item.Referrers); n > 0 {
		text += fmt.Sprintf(", and %d that refer to it", n)
	}
	return text
}
