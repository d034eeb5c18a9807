package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestMain lets the test's own binary be the processes that the program starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{cmdWriters, cmdVerifier}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

// Three rounds for real: children, kills, verifications.
func TestTorture(t *testing.T) {
	for _, durability := range []string{"process", "power"} {
		t.Run(durability, func(t *testing.T) {
			var out strings.Builder
			dir := t.TempDir()
			err := run(t.Context(), []string{"torture", "--rounds=3", "--skopeo=false", "--durability=" + durability, "--dir=" + dir}, &out)
			if err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			if !strings.Contains(out.String(), "torture: 3 rounds,") || !strings.Contains(out.String(), " 0 lost, 0 wrong, 0 unreadable, 0 refused,") {
				t.Errorf("the report is %q", &out)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{
		{}, {"other"}, {"torture", "--durability=perhaps"}, {"torture", "--round=3"}, {"torture", "more"},
	} {
		if err := run(t.Context(), args, &strings.Builder{}); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}
