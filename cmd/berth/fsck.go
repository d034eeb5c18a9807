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

--repair moves damaged blobs out of the way, so that the next push puts them right, and drops tags that
point at nothing. --rebuild makes berth's own records anew before that, from index.json and the
manifests; no other program may have the layout then. The exit code is 3 if a problem is left.`,
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
	cmd.Flags().BoolVar(&opts.Repair, "repair", false, "move what is damaged out of the way, and drop what points at nothing")
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

// nextStep is what puts a problem right.
func nextStep(p berth.Problem) string {
	switch {
	case p.Kind == berth.ProblemDamaged && p.Repaired:
		return "it is moved out of the way: push it again"
	case p.Kind == berth.ProblemDamaged:
		return "run berth fsck --repair, and push it again"
	case p.Kind == berth.ProblemMissing:
		return "push it again"
	case p.Repaired:
		return "repaired"
	case p.Kind == berth.ProblemIndex:
		return "run berth fsck --rebuild while no other program has the layout"
	}
	return "run berth fsck --repair"
}

// remains reports whether there is still something to do: what is missing, or was damaged and moved
// away, has to be pushed again.
func remains(p berth.Problem) bool {
	return !p.Repaired || p.Kind == berth.ProblemDamaged || p.Kind == berth.ProblemMissing
}

// checked is a check in one line.
func checked(r berth.FsckReport) string {
	line := fmt.Sprintf("checked %s, %s, %s: ", amount(r.Blobs, r.Bytes), count(r.Manifests, "manifest"), count(r.Tags, "tag"))
	left := len(slices.DeleteFunc(slices.Clone(r.Problems), func(p berth.Problem) bool { return !remains(p) }))
	switch repaired := len(r.Problems) - left; {
	case len(r.Problems) == 0:
		line += "all is well"
	case repaired == 0:
		line += count(left, "problem")
	default:
		line += fmt.Sprintf("%s repaired, %d left", count(repaired, "problem"), left)
	}
	if r.Sparse > 0 {
		line += "; " + count(r.Sparse, "image") + " with children missing by intention"
	}
	if r.Unknown > 0 {
		line += fmt.Sprintf("; %s that no repository has, which berth gc removes", count(r.Unknown, "file"))
	}
	return line
}
