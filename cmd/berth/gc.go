package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

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
needs it may be on its way; --grace 0 is for a layout that nobody pushes to at this moment. DURATION is
one like 90m, 36h, 30d or 2w.`,
		Example: `  berth gc
  berth gc --keep 'app/**=5' --untagged-after 2w --dry-run
  berth gc --max-bytes 10GiB --grace 0`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if untagged.given && untagged.Duration == 0 {
				return usageError{errors.New("--untagged-after: want a duration above zero, like 24h")}
			}
			opts.UntaggedAfter = untagged.Duration
			opts.Grace = graceOption(grace)
			work := embedded.MaintainOptions{Grace: grace.Duration}
			return a.maintaining(cmd.Context(), work, func(m *embedded.Maintenance) error {
				report, err := m.GC(cmd.Context(), &opts)
				return errors.Join(a.printCollected(report, graceOf(grace), err == nil), err)
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

// graceOption is what the registry is asked for: it takes zero for its own.
func graceOption(grace durationValue) time.Duration {
	if grace.given && grace.Duration == 0 {
		return -1
	}
	return grace.Duration
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
	opts.Logger = a.logger(slog.LevelWarn)
	m, err := embedded.Maintain(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return work(m)
}

// printCollected tells what a collection did. One that failed may have done a part.
func (a *app) printCollected(r berth.GCReport, grace time.Duration, whole bool) error {
	if !whole && len(r.Tags)+len(r.Manifests)+r.Blobs == 0 {
		return nil
	}
	lines := []string{}
	for _, t := range r.Tags {
		lines = append(lines, fmt.Sprintf("%s:%s  %s", t.Repository, t.Tag, t.Reason))
	}
	for _, m := range r.Manifests {
		lines = append(lines, fmt.Sprintf("%s@%s  %s", m.Repository, m.Digest, m.Reason))
	}
	return a.print(r, append(lines, collected(r, grace, whole)))
}

// collected is a collection in one line.
func collected(r berth.GCReport, grace time.Duration, whole bool) string {
	line := "removed "
	if r.DryRun {
		line = "would remove "
	}
	line += amount(r.Blobs, r.Bytes)
	if whole {
		line += "; " + amount(r.Left, r.LeftBytes) + " left"
	}
	if r.Spared > 0 {
		line += fmt.Sprintf("; %s spared: clients may have been told of them within %v", count(r.Spared, "blob"), grace)
	}
	return line
}

func amount(blobs int, bytes int64) string { return count(blobs, "blob") + ", " + size(bytes) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
