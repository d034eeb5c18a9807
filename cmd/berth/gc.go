package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/spf13/cobra"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/embedded"
)

func (a *app) gc() *cobra.Command {
	var opts berth.GCOptions
	var grace, untagged durationValue
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what no image needs, and images by rules",
		Long: `Remove the blobs that no image needs, and before that the tags and images that the rules end. Without
rules all images stay. It runs beside pushes and pulls, of berth serve or of any other program that
has the layout.

A blob that a client pushed or was told of within the grace period is spared, because the image that
needs it may be on its way. What an earlier process told its clients is not known: so nothing is removed
within one grace period of the start of the one that has the layout or, at rest, of the last one's end;
where that was killed, of the next command's. What was spared goes with the first berth gc after that;
--grace 0 is for a layout that nobody pushes to at this moment. DURATION is one like 90m, 36h, 30d or 2w.

A file in blobs/ that no push brought and index.json does not lead to stays for an hour, whatever the
grace: another program may be about to name it. Where no image is known at all, such files stay.`,
		Example: `  berth gc
  berth gc --keep 'app/**=5' --untagged-after 2w --dry-run
  berth gc --max-bytes 10GiB --grace 0`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if untagged.given && untagged.Duration == 0 {
				return usageError{errors.New("--untagged-after: want a duration above zero, like 24h")}
			}
			opts.UntaggedAfter = untagged.Duration
			opts.Grace = grace.option()
			work := embedded.MaintainOptions{Grace: grace.Duration}
			return a.maintaining(cmd.Context(), work, func(m *embedded.Maintenance) error {
				return a.collect(cmd.Context(), m, &opts, graceOf(grace))
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&opts.DryRun, "dry-run", false, "remove nothing, and tell what would be")
	flags.Var(&grace, "grace", "spare what clients were told of within this `DURATION` (default 10m); 0 spares nothing")
	flags.Var((*keepValue)(&opts.Keep), "keep", "keep the newest N tags of the repositories that match, `PATTERN=N`; may be repeated, and the first that matches counts")
	flags.Var(&untagged, "untagged-after", "end images that had no tag for this `DURATION`")
	flags.Var((*sizeValue)(&opts.MaxBytes), "max-bytes", "end images, least recently used first, beyond this `SIZE`, like 10GiB or 500MB")
	return cmd
}

func graceOf(grace durationValue) time.Duration {
	if grace.given {
		return grace.Duration
	}
	return embedded.DefaultGrace
}

// maintaining gives access to the layout as a whole, for the time of one command.
func (a *app) maintaining(ctx context.Context, opts embedded.MaintainOptions, work func(*embedded.Maintenance) error) (err error) {
	if err := a.mustExist(nil); err != nil {
		return err
	}
	if opts.Layout, err = a.layoutDir(); err != nil {
		return err
	}
	if err := mustNotWaitForItself(opts.Layout); err != nil {
		return err
	}
	opts.Logger = a.teller()
	m, err := embedded.Maintain(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return work(m)
}

// collect runs one collection. One that failed may have done a part.
func (a *app) collect(ctx context.Context, m *embedded.Maintenance, opts *berth.GCOptions, grace time.Duration) error {
	idle, err := warnOfIdle(ctx, m, opts.Keep)
	if err != nil {
		return err
	}
	report, err := m.GC(ctx, opts)
	if err != nil && len(report.Tags)+len(report.Manifests)+report.Blobs == 0 {
		return err
	}
	return errors.Join(a.print(collection{report, idle}, collected(report, grace, err == nil)), err)
}

// collection is a report, with what the registry has no word for.
type collection struct {
	berth.GCReport
	// IdleRules matched no repository.
	IdleRules []berth.KeepRule `json:"idleRules,omitempty"`
}

// warnOfIdle warns of rules that match no repository: most likely a pattern is mistyped, and what was meant
// to go stays.
func warnOfIdle(ctx context.Context, m *embedded.Maintenance, rules []berth.KeepRule) ([]berth.KeepRule, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	repositories, err := m.Repositories(ctx)
	if err != nil {
		return nil, err
	}
	idle := idleRules(rules, repositories)
	for _, rule := range idle {
		warn(fmt.Sprintf("--keep %s=%d matches no repository; there %s", rule.Repositories, rule.Newest, listed(repositories)))
	}
	return idle, nil
}

// idleRules returns the rules that match none of some repositories.
func idleRules(rules []berth.KeepRule, repositories []string) []berth.KeepRule {
	return slices.DeleteFunc(slices.Clone(rules), func(rule berth.KeepRule) bool {
		return slices.ContainsFunc(repositories, func(name string) bool {
			ok, _ := doublestar.Match(rule.Repositories, name)
			return ok
		})
	})
}

// listed names the first of some repositories.
func listed(names []string) string {
	const most = 5
	switch n := len(names); {
	case n == 0:
		return "is none"
	case n == 1:
		return "is " + names[0]
	case n > most:
		return fmt.Sprintf("are %s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return "are " + strings.Join(names, ", ")
}

// collected tells what a collection did, and what it spared and why.
func collected(r berth.GCReport, grace time.Duration, whole bool) []string {
	lines := []string{}
	for _, t := range r.Tags {
		lines = append(lines, fmt.Sprintf("%s:%s  %s", t.Repository, t.Tag, t.Reason))
	}
	for _, m := range r.Manifests {
		lines = append(lines, fmt.Sprintf("%s@%s  %s", m.Repository, m.Digest, m.Reason))
	}
	line := "removed "
	if r.DryRun {
		line = "would remove "
	}
	line += amount(r.Blobs, r.Bytes)
	if whole {
		line += "; " + amount(r.Left, r.LeftBytes) + " left"
	}
	if lines = append(lines, line); r.Spared > 0 {
		lines = append(lines, spared(r, grace))
	}
	return lines
}

// spared says why something stays, and when it will go.
func spared(r berth.GCReport, grace time.Duration) string {
	line := "spared "
	if r.DryRun {
		line = "would spare "
	}
	line += amount(r.Spared, r.SparedBytes)
	if grace == 0 {
		return line + ": in use meanwhile; run berth gc again"
	}
	return line + fmt.Sprintf(": may have been used or stored within the grace of %v; run berth gc after that, or with --grace 0 where nobody pushes", grace)
}

func amount(blobs int, bytes int64) string { return count(blobs, "blob") + ", " + size(bytes) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
