//go:build linux

package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// What is just missed is missed, and does not look as if it were met.
func TestNothingIsRoundedInFavour(t *testing.T) {
	for _, tc := range []struct {
		ours, peer, limit float64
		less, met         bool
		ratio             string
	}{
		{1149.9, 1000, 1.15, false, false, "1.14"},
		{1150, 1000, 1.15, false, true, "1.15"},
		{1200.1, 1000, 1.2, true, false, "1.21"},
		{1200, 1000, 1.2, true, true, "1.20"},
	} {
		b := &bench{figures: map[figure][]float64{{"x", berth}: {tc.ours}, {"x", crane}: {tc.peer}}}
		ratio, demand, met := b.judge(line{1, "", "x", berth, of("x", crane, distribution), tc.less, tc.limit})
		if ratio != tc.ratio || met != tc.met || strings.Contains(demand, "MISSED") == met {
			t.Errorf("%v of %v: %s, %s, %v", tc.ours, tc.peer, ratio, demand, met)
		}
	}
}

// The best of the peers is what counts, and what was not measured is neither met nor missed.
func TestTheBestCounts(t *testing.T) {
	b := &bench{figures: map[figure][]float64{{"x", berth}: {3, 1, 2}, {"x", crane}: {4}, {"x", distribution}: {1}}}
	for _, tc := range []struct {
		less bool
		want string
	}{{true, "2.00"}, {false, "0.50"}} {
		if ratio, _, _ := b.judge(line{1, "", "x", berth, of("x", crane, distribution), tc.less, 1}); ratio != tc.want {
			t.Errorf("less is better: %v: %s, want %s", tc.less, ratio, tc.want)
		}
	}
	if ratio, _, met := b.judge(line{1, "", "y", berth, of("y", crane), true, 1}); ratio != "–" || !met {
		t.Errorf("what was not measured: %s, %v", ratio, met)
	}
}

func TestRows(t *testing.T) {
	s, err := parse([]string{"-rows", "2,10", "-size", "64"})
	if err != nil || !s.wants(rowPush) || !s.wants(rowMemory, rowTag) || s.wants(rowTag) || s.size != 64<<20 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, args := range [][]string{{"-rows", "13"}, {"-rows", "x"}, {"-rounds", "0"}, {"-sync-images", "0"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
}

// What /proc says of this process is what it has done.
func TestWhatAProcessTook(t *testing.T) {
	before, err := cpu(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
	}
	after, err := cpu(os.Getpid())
	if took := after - before; err != nil || took <= 0 || took > 2 {
		t.Errorf("%v seconds, %v", took, err)
	}
	w := watcher{}
	w.watch("self", os.Getpid())()
	if use := w.uses()["self"]; use.anonymous < 100 || use.resident < use.anonymous {
		t.Errorf("memory in KiB: %+v", use)
	}
}

func TestWhereAnUploadEnds(t *testing.T) {
	for location, want := range map[string]string{
		"/v2/a/blobs/uploads/1":                      "/v2/a/blobs/uploads/1?digest=sha256:0",
		"http://127.0.0.1:5/v2/a/blobs/uploads/1?_s": "/v2/a/blobs/uploads/1?_s&digest=sha256:0",
	} {
		if got := finishPath(location, "sha256:0"); got != want {
			t.Errorf("%s: %s", location, got)
		}
	}
}
