package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/berthoci/berth/ocilayout"
)

const (
	cutsOfAChild = 10
	outerSize    = 4 << 30
	innerSize    = 1 << 30
	// childBudget bounds the bytes of new layers on one disk.
	childBudget = 256 << 20
	// longestPause between two operations of a writer keeps the disk from filling up, and leaves
	// something for the verifier to run on.
	longestPause = 20 * time.Millisecond
	// restLonger than what is promised is how long the writers rest now and then: what they did last
	// must be flushed, too, although nothing follows it.
	restLonger = time.Second
)

const (
	earliestCut = 200 * time.Millisecond
	latestCut   = 1800 * time.Millisecond
)

// The boot ids of the writers and of those who look at what they left, and the variable that tells them.
const (
	bootID        = "BERTH_BOOT_ID"
	bootOfWriters = bootID + "=00000000-0000-4000-8000-000000000001"
	bootAfterCut  = bootID + "=00000000-0000-4000-8000-000000000002"
)

// cutter cuts the power.
type cutter struct {
	settings
	cuts   int
	fs     string
	flush  bool
	within time.Duration
	dir    string
	outer  *disk
	report *report
	kept   string // copy of a layout in which something was found
}

// session is one child and its disk.
type session struct {
	*cutter
	disk       *disk
	child      *child
	durability string
	random     *rand.Rand
}

// powercut is the command: it parses flags and cuts the power as often as is wanted.
func powercut(ctx context.Context, args []string, out io.Writer) error {
	c := &cutter{}
	f := flag.NewFlagSet("powercut", flag.ContinueOnError)
	f.IntVar(&c.cuts, "cuts", 20, "how often the power is cut")
	f.StringVar(&c.fs, "fs", "ext4", "the layout's file system: ext4 or xfs")
	f.BoolVar(&c.flush, "flush", false, "writers ask for a flush now and then")
	f.DurationVar(&c.within, "within", 2500*time.Millisecond, "how long before a cut an answer must lie, to be promised in durability process")
	if err := c.parse(f, args); err != nil {
		return err
	}
	if _, known := fileSystems[c.fs]; !known {
		return fmt.Errorf("--fs %.20q: it is ext4 or xfs", c.fs)
	}
	if os.Getuid() != 0 {
		return errors.New("powercut: it mounts disks, which only root may")
	}
	if err := need("mkfs.ext4", "mkfs.xfs", "mount", "umount", "losetup"); err != nil {
		return err
	}
	return c.run(ctx, out)
}

// fileSystems are how the layout's file system is made, and how a clone of it is mounted.
var fileSystems = map[string]struct {
	mkfs    []string
	options string
}{
	"ext4": {[]string{"mkfs.ext4", "-q", "-F", "-i", "8192"}, ""},
	"xfs":  {[]string{"mkfs.xfs", "-q"}, "nouuid"}, // the original is mounted as well
}

// run makes the outer disk, cuts, and takes everything away again, whatever happened.
func (c *cutter) run(ctx context.Context, out io.Writer) (err error) {
	dir, remove, err := c.makeDir("powercut")
	if err != nil {
		return err
	}
	c.dir = dir
	var undo cleanups
	defer func() { err = errors.Join(err, undo.run()) }()
	undo.add(func() error {
		if c.kept != "" {
			return nil
		}
		return remove()
	})
	if c.outer, err = newDisk(ctx, filepath.Join(dir, "outer"), outerSize, "mkfs.xfs", "-q", "-m", "reflink=1"); err != nil {
		return err
	}
	undo.add(c.outer.remove)
	c.report = newReport(out, "cuts")
	fmt.Fprintf(out, "powercut: %d cuts of %s in %s, seed %d\n", c.cuts, c.fs, dir, c.seed)
	err = c.all(ctx)
	err = errors.Join(err, c.report.end("powercut", c.seed))
	if c.kept != "" {
		fmt.Fprintf(out, "powercut: the layout as the cut left it is kept: %s\n", c.kept)
	}
	return err
}

// all goes through the children until a cut finds something.
func (c *cutter) all(ctx context.Context) error {
	share := min(cutsOfAChild, (c.cuts+1)/2) // few cuts, too, go to both durabilities
	for n, done := 0, 0; done < c.cuts; n++ {
		cuts := min(share, c.cuts-done)
		if err := c.session(ctx, n, cuts); err != nil || c.report.failed() {
			return err
		}
		done += cuts
	}
	return nil
}

// session starts a child on a new disk and cuts its power several times.
func (c *cutter) session(ctx context.Context, n, cuts int) (err error) {
	s := &session{cutter: c, durability: c.durabilityOf(n), random: c.random("cut", n)}
	if s.disk, err = newDisk(ctx, c.outer.path("disk"), innerSize, fileSystems[c.fs].mkfs...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.disk.remove()) }()
	s.child, err = startChild(load{layout: s.disk.path("layout"), durability: s.durability, seed: c.seed, round: n,
		flush: c.flush, pace: longestPause, rest: c.within + restLonger, budget: childBudget}, nil, bootOfWriters)
	if err != nil {
		return err
	}
	where := fmt.Sprintf("child %d (%s)", n, s.durability)
	problem := s.cutAll(ctx, n, cuts)
	problem = errors.Join(problem, s.child.kill())
	c.report.heard(s.child.history, where)
	if problem != nil && ctx.Err() == nil {
		c.report.find(where, Finding{Unreadable, problem.Error()})
	}
	return ctx.Err()
}

func (s *session) cutAll(ctx context.Context, n, cuts int) error {
	if _, err := await(ctx, s.child, "opening the layout", s.child.history.opened); err != nil {
		return err
	}
	for i := range cuts {
		where := fmt.Sprintf("child %d cut %d (%s)", n, i, s.durability)
		select {
		case <-time.After(s.untilCut(i)):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.cut(ctx, where); err != nil || s.report.failed() {
			return err
		}
		s.report.add("cuts")
	}
	return nil
}

// untilCut is how long the writers are left alone. After a cut of a layout that is all new there is
// one where something has been promised.
func (s *session) untilCut(i int) time.Duration {
	wait := earliestCut + time.Duration(s.random.Int64N(int64(latestCut-earliestCut)))
	if i == 1 {
		wait += s.within
	}
	return wait
}

// cut pictures the disk at this instant and looks at the layout on it.
func (s *session) cut(ctx context.Context, where string) (err error) {
	cut := Cut{Heard: s.child.history.Position(), Unnamed: true}
	if s.durability == ocilayout.Process.String() {
		cut.Since, cut.Unnamed = time.Now().Add(-s.within), false
	}
	after, err := s.disk.clone(ctx, s.outer.path("clone"), fileSystems[s.fs].options, func() (err error) {
		if cut.Begun, err = s.child.mark(ctx); err != nil {
			return err
		}
		return reflink(s.outer.path("untouched"), s.outer.path("clone"))
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, after.remove()) }()
	task := Task{Layout: after.path("layout"), Durability: s.durability, Expect: s.child.history.Expect(cut)}
	s.report.demanded += task.Expect.demands()
	result, err := task.run(ctx, bootAfterCut)
	if err != nil || len(result.Findings) == 0 {
		return err
	}
	s.report.verified(where, result)
	return errors.Join(err, after.remove(), s.keep(ctx))
}

// mark returns a position that is behind everything that began before the call.
func (c *child) mark(ctx context.Context) (int, error) {
	if _, err := io.WriteString(c.in, "1\n"); err != nil {
		return 0, err
	}
	return await(ctx, c, "the mark", c.history.marks)
}

// keep copies the layout that the last cut left, and that nobody has opened.
func (s *session) keep(ctx context.Context) (err error) {
	left := &disk{file: s.outer.path("untouched")}
	defer func() { err = errors.Join(err, left.remove()) }()
	if err := left.attach(ctx, nil, fileSystems[s.fs].options); err != nil {
		return err
	}
	s.kept = filepath.Join(s.dir, "layout")
	_, err = output(ctx, "cp", "-a", left.path("layout"), s.kept)
	return err
}
