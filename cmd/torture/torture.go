package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// recent is how many rounds what was touched is read whole.
	recent = 4
	// sampled is how many other manifests are read in each round, at random.
	sampled = 20
	// collectEvery and skopeoEvery are how many rounds lie between two collections, and two visits of skopeo.
	collectEvery = 10
	skopeoEvery  = 5
	// roundBudget bounds the bytes of new layers in one round.
	roundBudget = 8 << 20
)

const (
	earliestKill = 10 * time.Millisecond
	latestKill   = 600 * time.Millisecond
)

// tormentor goes through the rounds.
type tormentor struct {
	settings
	rounds  int
	skopeo  bool
	layout  string
	state   State
	touched map[string]int // the last round in which a manifest was pushed
	startup time.Duration  // how long a child took to open the layout, when that was last seen
	report  *report
}

// torture is the command: it parses flags and goes through all rounds.
func torture(ctx context.Context, args []string, out io.Writer) error {
	t := &tormentor{}
	f := flag.NewFlagSet("torture", flag.ContinueOnError)
	f.IntVar(&t.rounds, "rounds", 100, "how often a child is killed")
	f.BoolVar(&t.skopeo, "skopeo", true, "read tags with skopeo, too")
	if err := t.parse(f, args); err != nil {
		return err
	}
	return t.run(ctx, out)
}

func (t *tormentor) run(ctx context.Context, out io.Writer) error {
	if t.skopeo {
		if err := need("skopeo"); err != nil {
			return err
		}
	}
	dir, remove, err := t.makeDir("torture")
	if err != nil {
		return err
	}
	t.layout, t.touched, t.startup = filepath.Join(dir, "layout"), map[string]int{}, 50*time.Millisecond
	t.report = newReport(out, "rounds", "kills during start")
	fmt.Fprintf(out, "torture: %d rounds on %s, seed %d\n", t.rounds, t.layout, t.seed)
	err = t.all(ctx)
	err = errors.Join(err, t.report.end("torture", t.seed))
	if t.report.failed() {
		fmt.Fprintf(out, "torture: the layout is kept: %s\n", t.layout)
		return err
	}
	return errors.Join(err, remove())
}

// all goes through the rounds until one finds something.
func (t *tormentor) all(ctx context.Context) error {
	for round := range t.rounds {
		err := t.round(ctx, round)
		if err != nil || t.report.failed() {
			return err
		}
		t.report.add("rounds")
	}
	return nil
}

// round starts a child, kills it and looks at what it left.
func (t *tormentor) round(ctx context.Context, round int) error {
	c, err := startChild(load{layout: t.layout, durability: t.durabilityOf(round), seed: t.seed, round: round, budget: roundBudget}, t.state)
	if err != nil {
		return err
	}
	where := fmt.Sprintf("round %d (%s)", round, t.durabilityOf(round))
	problem := t.wait(ctx, c, t.random("kill", round))
	problem = errors.Join(problem, c.kill())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.report.heard(c.history, where)
	if problem != nil {
		t.report.find(where, Finding{Unreadable, problem.Error()})
	}
	return t.verify(ctx, c.history, round, where)
}

// wait lets the child live until its time has come.
func (t *tormentor) wait(ctx context.Context, c *child, random *rand.Rand) error {
	begin := time.Now()
	if random.IntN(8) == 0 {
		time.Sleep(time.Duration(random.Int64N(int64(t.startup))))
		if !isClosed(c.history.opened) {
			t.report.add("kills during start")
		}
		return nil
	}
	if _, err := await(ctx, c, "opening the layout", c.history.opened); err != nil {
		return err
	}
	t.startup = time.Since(begin)
	if _, err := await(ctx, c, "the first answer", c.history.first); err != nil {
		return err
	}
	time.Sleep(earliestKill + time.Duration(random.Int64N(int64(latestKill-earliestKill))))
	return nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// verify looks at the layout, and goes on from what was found in it.
func (t *tormentor) verify(ctx context.Context, h *History, round int, where string) error {
	for name := range h.Touched() {
		t.touched[name] = round
	}
	last := round == t.rounds-1
	task := Task{Layout: t.layout, Durability: t.durabilityOf(round), Expect: h.Expect(AfterKill()), Before: true, Collect: round%collectEvery == collectEvery-1}
	if !last {
		task.Read = t.selection(task.Expect, round)
	}
	t.report.demanded += task.Expect.demands()
	result, err := task.run(ctx)
	if err != nil {
		return err
	}
	t.report.verified(where, result)
	t.state = h.Settle(result.Tags, result.Manifests)
	maps.DeleteFunc(t.touched, func(name string, when int) bool { return round-when >= recent })
	return t.visit(ctx, result.Tags, round, where)
}

// selection is what is read whole: what was touched lately, and some of the rest.
func (t *tormentor) selection(x Expectation, round int) map[string]bool {
	selected := map[string]bool{}
	for name := range t.touched {
		selected[name] = true
	}
	names := slices.Sorted(maps.Keys(x.Manifests))
	random := t.random("sample", round)
	for _, i := range random.Perm(len(names))[:min(sampled, len(names))] {
		selected[names[i]] = true
	}
	return selected
}

// visit has skopeo read some tags now and then, and most at the end.
func (t *tormentor) visit(ctx context.Context, tags map[string]digest.Digest, round int, where string) error {
	some := 0
	switch {
	case !t.skopeo:
	case round == t.rounds-1:
		some = 200
	case round%skopeoEvery == 0:
		some = 3
	}
	names := slices.Sorted(maps.Keys(tags))
	for _, i := range t.random("skopeo", round).Perm(len(names))[:min(some, len(names))] {
		if err := inspect(ctx, t.layout, names[i], tags[names[i]]); err != nil {
			t.report.find(where, Finding{Unreadable, err.Error()})
		}
	}
	return ctx.Err()
}
