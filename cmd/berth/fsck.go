package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/embedded"
)

func (a *app) fsck() *cobra.Command {
	var opts berth.FsckOptions
	var rebuild bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Check all that the layout holds",
		Long: `Check all that the layout holds: every blob is read and hashed, and every tag is followed. It runs
beside pushes and pulls, of berth serve or of any other program that has the layout.

--repair moves damaged blobs to .berth/quarantine, so that the next push of the same image puts them
right, and drops tags for which their repository has no image on record. A blob or an image whose file is
missing has to be pushed again: its tags stay. --rebuild makes berth's own records anew before that, from
index.json and the manifests; no other program may have the layout then.
The exit code is 3 if a problem is left.`,
		Example: `  berth fsck
  berth fsck --repair --json`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.maintaining(cmd.Context(), embedded.MaintainOptions{Rebuild: rebuild}, func(m *embedded.Maintenance) error {
				report, err := m.Fsck(cmd.Context(), &opts)
				if err != nil {
					return err
				}
				return a.printChecked(report)
			})
			if rebuild && errors.Is(err, berth.ErrLayoutInUse) {
				return fmt.Errorf("--rebuild: %w", err)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&opts.Repair, "repair", false, "move damaged blobs to .berth/quarantine, and drop tags of no image")
	cmd.Flags().BoolVar(&rebuild, "rebuild", false, "make berth's own records anew first; the layout must be at rest")
	return cmd
}

func (a *app) printChecked(r berth.FsckReport) error {
	lines := []string{}
	for _, p := range r.Problems {
		lines = append(lines, problemLine(p))
	}
	if err := a.print(r, append(lines, checked(r))); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Problems, remains) {
		return errDrift
	}
	return nil
}

// problemLine tells what is wrong with what, and what to do next.
func problemLine(p berth.Problem) string {
	line := p.Kind
	if p.Digest != "" {
		line += "  " + string(p.Digest)
	}
	if len(p.References) > 0 {
		line += "  " + strings.Join(p.References, ", ")
	}
	return line + "  " + p.Detail + "; " + nextStep(p)
}

// nextStep tells what was done about a problem, and what puts it right.
func nextStep(p berth.Problem) string {
	switch {
	case p.Kind == berth.ProblemDamaged && p.Repaired:
		return "moved to .berth/quarantine: push it again"
	case p.Kind == berth.ProblemDamaged:
		return "run berth fsck --repair, and push it again"
	case p.Kind == berth.ProblemMissing:
		return "push it again"
	case p.Kind == berth.ProblemDangling && p.Repaired:
		return "the tag is dropped"
	case p.Repaired:
		return "repaired"
	case p.Kind == berth.ProblemIndex:
		return "run berth fsck --rebuild while no other program has the layout"
	}
	return "run berth fsck --repair"
}

// remains reports whether there is still something to do: what is missing, or was damaged and moved
// away, has to be pushed again.
func remains(p berth.Problem) bool { return !p.Repaired || toPush(p) }

// toPush reports whether the next push is all that helps.
func toPush(p berth.Problem) bool {
	return p.Kind == berth.ProblemMissing || p.Kind == berth.ProblemDamaged && p.Repaired
}

// checked is a check in one line.
func checked(r berth.FsckReport) string {
	line := fmt.Sprintf("checked %s, %s, %s: ", amount(r.Blobs, r.Bytes), count(r.Manifests, "manifest"), count(r.Tags, "tag"))
	if len(r.Problems) == 0 {
		line += "all is well"
	} else {
		line += count(len(r.Problems), "problem") + ": " + outcomes(r.Problems)
	}
	if r.Sparse > 0 {
		line += "; " + count(r.Sparse, "image") + " with children missing by intention"
	}
	if r.Unknown > 0 {
		line += fmt.Sprintf("; %s that no repository has, which berth gc removes", count(r.Unknown, "file"))
	}
	return line
}

// outcomes count what was done about problems, and what is left to do.
func outcomes(all []berth.Problem) string {
	var parts []string
	tally := func(what string, is func(berth.Problem) bool) {
		if n := len(slices.DeleteFunc(slices.Clone(all), func(p berth.Problem) bool { return !is(p) })); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	repaired := func(kind string) func(berth.Problem) bool {
		return func(p berth.Problem) bool { return p.Repaired && p.Kind == kind }
	}
	tally("moved to .berth/quarantine", repaired(berth.ProblemDamaged))
	tally("dropped (tags of no image)", repaired(berth.ProblemDangling))
	tally("repaired in the records", repaired(berth.ProblemIndex))
	tally("to push again", toPush)
	tally("to repair", func(p berth.Problem) bool { return !p.Repaired && !toPush(p) })
	return strings.Join(parts, ", ")
}
