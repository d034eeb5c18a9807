package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth"
)

func TestDurations(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "30d": 30 * day, "2w": 14 * day, "1.5d": 36 * time.Hour, "0d": 0,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "w", "1", "1y", "-1h", "-1d", "1d2h", "NaNd", "Infw", "1e9w", "99999999999h"} {
		if got, err := parseDuration(text); err == nil || !strings.Contains(err.Error(), "30d") {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "1048576": 1 << 20, "1B": 1, "2KiB": 2 << 10, "3MiB": 3 << 20, "10GiB": 10 << 30, "1TiB": 1 << 40, "1.5GiB": 3 << 29,
		"1kB": 1000, "1KB": 1000, "500MB": 500_000_000, "2GB": 2_000_000_000, "1TB": 1_000_000_000_000, "10 GiB": 10 << 30,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "B", "GiB", "0", "0GiB", "-1", "1XB", "NaN", "Inf", "9e18KiB", "9223372036854775808", "1G iB"} {
		if got, err := parseSize(text); err == nil || !strings.Contains(err.Error(), "10GiB") {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
}

func TestFlagsOfOtherKinds(t *testing.T) {
	var keep keepValue
	for _, rule := range []string{"app/**=5", "*=1"} {
		if err := keep.Set(rule); err != nil {
			t.Error(err)
		}
	}
	if want := (keepValue{{Repositories: "app/**", Newest: 5}, {Repositories: "*", Newest: 1}}); !slices.Equal(keep, want) || keep.String() != "app/**=5 *=1" {
		t.Errorf("got %v", keep)
	}
	choice := choiceValue{"process", []string{"process", "power"}}
	if err := choice.Set("hope"); err == nil || choice.String() != "process" {
		t.Errorf("got %v, %v", choice, err)
	}
	if err := choice.Set("power"); err != nil || choice.String() != "power" {
		t.Errorf("got %v, %v", choice, err)
	}
	var grace durationValue
	if grace.String() != "" || graceOption(grace) != 0 {
		t.Errorf("a grace that is not given is %q, %v", &grace, graceOption(grace))
	}
	if err := grace.Set("0"); err != nil || grace.String() != "0s" || graceOption(grace) >= 0 {
		t.Errorf("no grace is %q, %v, %v", &grace, graceOption(grace), err)
	}
}

func TestACollectionInOneLine(t *testing.T) {
	report := berth.GCReport{Blobs: 12, Bytes: 3565158, Left: 1, LeftBytes: 10, Spared: 2}
	want := "removed 12 blobs, 3.4 MiB; 1 blob, 10 B left; 2 blobs spared: clients may have been told of them within 10m0s"
	if got := collected(report, 10*time.Minute, true); got != want {
		t.Errorf("got %q", got)
	}
	if got := collected(report, time.Minute, false); strings.Contains(got, "left") {
		t.Errorf("of one that did not come to its end: %q", got)
	}
	report = berth.GCReport{DryRun: true}
	if got, want := collected(report, 0, true), "would remove 0 blobs, 0 B; 0 blobs, 0 B left"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsLeftToDo(t *testing.T) {
	for _, c := range []struct {
		problem berth.Problem
		remains bool
		next    string
	}{
		{berth.Problem{Kind: berth.ProblemDamaged}, true, "--repair"},
		{berth.Problem{Kind: berth.ProblemDamaged, Repaired: true}, true, "push it again"},
		{berth.Problem{Kind: berth.ProblemMissing}, true, "push it again"},
		{berth.Problem{Kind: berth.ProblemMissing, Repaired: true}, true, "push it again"},
		{berth.Problem{Kind: berth.ProblemDangling}, true, "--repair"},
		{berth.Problem{Kind: berth.ProblemDangling, Repaired: true}, false, "repaired"},
		{berth.Problem{Kind: berth.ProblemIndex}, true, "--rebuild"},
		{berth.Problem{Kind: berth.ProblemIndex, Repaired: true}, false, "repaired"},
	} {
		if got := remains(c.problem); got != c.remains || !strings.Contains(nextStep(c.problem), c.next) {
			t.Errorf("%+v: remains %v, %q", c.problem, got, nextStep(c.problem))
		}
	}
}

func TestACheckInOneLine(t *testing.T) {
	dangling := berth.Problem{Kind: berth.ProblemDangling, Repaired: true}
	report := berth.FsckReport{Blobs: 1, Bytes: 10, Manifests: 2, Tags: 1, Sparse: 1, Unknown: 3, Problems: []berth.Problem{dangling, {Kind: berth.ProblemMissing}}}
	want := "checked 1 blob, 10 B, 2 manifests, 1 tag: 1 problem repaired, 1 left; 1 image with children missing by intention; 3 files that no repository has, which berth gc removes"
	if got := checked(report); got != want {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsSaidBesidesACommandsEnd(t *testing.T) {
	disk := errors.New("disk full")
	for _, err := range []error{exitStatus(3), errors.Join(exitStatus(3), nil), errors.Join(errors.Join(nil, exitStatus(3)))} {
		if got := besides(err); got != nil {
			t.Errorf("%v: got %v", err, got)
		}
	}
	if got := besides(errors.Join(errors.Join(exitStatus(3), disk), nil)); got == nil || got.Error() != "disk full" {
		t.Errorf("got %v", got)
	}
}
