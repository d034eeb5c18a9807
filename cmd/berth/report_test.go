package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth"
)

func TestACollectionInLines(t *testing.T) {
	report := berth.GCReport{Tags: []berth.Removal{{Repository: "app", Tag: "v1", Reason: "old"}}, Manifests: []berth.Removal{{Repository: "app", Digest: "sha256:1", Reason: "older"}}, Blobs: 12, Bytes: 3565158, Left: 1, LeftBytes: 10}
	want := []string{"app:v1  old", "app@sha256:1  older", "removed 12 blobs, 3.4 MiB; 1 blob, 10 B left"}
	if got := collected(report, 10*time.Minute, true); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := collected(report, time.Minute, false); strings.Contains(strings.Join(got, " "), "left") {
		t.Errorf("of one that did not come to its end: %q", got)
	}
	report = berth.GCReport{DryRun: true}
	if got, want := collected(report, 0, true), []string{"would remove 0 blobs, 0 B; 0 blobs, 0 B left"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestWhySomethingIsSpared(t *testing.T) {
	report := berth.GCReport{Spared: 2, SparedBytes: 3 << 20}
	for _, c := range []struct {
		dry   bool
		grace time.Duration
		want  string
	}{
		{false, 10 * time.Minute, "spared 2 blobs, 3.0 MiB: may have been used or stored within the grace of 10m0s; run berth gc after that, or with --grace 0 where nobody pushes"},
		{true, 2 * time.Hour, "would spare 2 blobs, 3.0 MiB: may have been used or stored within the grace of 2h0m0s; run berth gc after that, or with --grace 0 where nobody pushes"},
		{false, 0, "spared 2 blobs, 3.0 MiB: in use meanwhile; run berth gc again"},
	} {
		report.DryRun = c.dry
		got := collected(report, c.grace, true)
		if last := got[len(got)-1]; last != c.want {
			t.Errorf("grace %v, dry run %v: got %q", c.grace, c.dry, last)
		}
	}
}

func TestRulesThatMatchNothing(t *testing.T) {
	there := []string{"app/hello", "app/web/api", "base"}
	rules := []berth.KeepRule{{Repositories: "app", Newest: 1}, {Repositories: "app/*", Newest: 2}, {Repositories: "**", Newest: 3}, {Repositories: "Base", Newest: 4}, {Repositories: "app/web/**", Newest: 5}, {Repositories: "base", Newest: 6}}
	if got, want := idleRules(rules, there), []berth.KeepRule{rules[0], rules[3]}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := idleRules(rules, nil); !slices.Equal(got, rules) {
		t.Errorf("where there is no repository: got %v", got)
	}
}

func TestACollectionAsData(t *testing.T) {
	raw, err := json.Marshal(collection{berth.GCReport{Blobs: 3}, []berth.KeepRule{{Repositories: "old/*", Newest: 2}}})
	if want := `{"blobs":3,"bytes":0,"left":0,"leftBytes":0,"idleRules":[{"repositories":"old/*","newest":2}]}`; err != nil || string(raw) != want {
		t.Errorf("got %s, %v", raw, err)
	}
}

func TestAFewOfManyNames(t *testing.T) {
	var names []string
	for n, want := range []string{"is none", "is 0", "are 0, 1", "are 0, 1, 2", "are 0, 1, 2, 3", "are 0, 1, 2, 3, 4", "are 0, 1, 2, 3, 4 and 1 more", "are 0, 1, 2, 3, 4 and 2 more"} {
		if got := listed(names); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		names = append(names, fmt.Sprint(n))
	}
}

func TestWhatIsLeftToDo(t *testing.T) {
	for _, c := range []struct {
		problem berth.Problem
		remains bool
		next    string
	}{
		{berth.Problem{Kind: berth.ProblemDamaged}, true, "--repair"},
		{berth.Problem{Kind: berth.ProblemDamaged, Repaired: true}, true, "moved to .berth/quarantine: push it again"},
		{berth.Problem{Kind: berth.ProblemMissing}, true, "push it again"},
		{berth.Problem{Kind: berth.ProblemMissing, Repaired: true}, true, "push it again"},
		{berth.Problem{Kind: berth.ProblemDangling}, true, "--repair"},
		{berth.Problem{Kind: berth.ProblemDangling, Repaired: true}, false, "the tag is dropped"},
		{berth.Problem{Kind: berth.ProblemIndex}, true, "--rebuild"},
		{berth.Problem{Kind: berth.ProblemIndex, Repaired: true}, false, "repaired"},
	} {
		if got := remains(c.problem); got != c.remains || !strings.Contains(nextStep(c.problem), c.next) {
			t.Errorf("%+v: remains %v, %q", c.problem, got, nextStep(c.problem))
		}
	}
}

func TestACheckInOneLine(t *testing.T) {
	report := berth.FsckReport{Blobs: 1, Bytes: 10, Manifests: 2, Tags: 1, Sparse: 1, Unknown: 3}
	const beside = "; 1 image with children missing by intention; 3 files that no repository has, which berth gc removes"
	if got, want := checked(report), "checked 1 blob, 10 B, 2 manifests, 1 tag: all is well"+beside; got != want {
		t.Errorf("got %q", got)
	}
	report.Problems = []berth.Problem{{Kind: berth.ProblemMissing}}
	if got, want := checked(report), "checked 1 blob, 10 B, 2 manifests, 1 tag: 1 problem: 1 to push again"+beside; got != want {
		t.Errorf("got %q", got)
	}
}

// Each problem is counted by what was done about it, and by what is left to do.
func TestTheOutcomesOfACheck(t *testing.T) {
	for _, c := range []struct {
		kind     string
		repaired bool
		want     string
	}{
		{berth.ProblemDamaged, true, "2 moved to .berth/quarantine, 2 to push again"},
		{berth.ProblemDamaged, false, "2 to repair"},
		{berth.ProblemMissing, true, "2 to push again"},
		{berth.ProblemMissing, false, "2 to push again"},
		{berth.ProblemDangling, true, "2 dropped (tags of no image)"},
		{berth.ProblemDangling, false, "2 to repair"},
		{berth.ProblemIndex, true, "2 repaired in the records"},
		{berth.ProblemIndex, false, "2 to repair"},
	} {
		p := berth.Problem{Kind: c.kind, Repaired: c.repaired}
		if got := outcomes([]berth.Problem{p, p}); got != c.want {
			t.Errorf("%+v: got %q, want %q", p, got, c.want)
		}
	}
	all := []berth.Problem{{Kind: berth.ProblemDamaged, Repaired: true}, {Kind: berth.ProblemMissing}, {Kind: berth.ProblemDangling, Repaired: true}, {Kind: berth.ProblemIndex}}
	if got, want := outcomes(all), "1 moved to .berth/quarantine, 1 dropped (tags of no image), 2 to push again, 1 to repair"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
