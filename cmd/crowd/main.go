// Crowd takes the sharing of one layout through what happens to it: many processes that open it at once, and
// processes that die. It is a program, because that needs processes.
//
//	crowd [--rounds N] [--processes N] [--images N] [--kill] [--idle 2s] [--launcher self] [--dir DIR] [--seed S] TOOL
//
// TOOL is a program with berth embedded that works as examples/buildtool does: for each name that it is given it
// pushes an image, and then writes a line NAME DIGEST; with -v its log is on standard error.
//
// In each round all processes open one new layout at once, push, and leave. With --kill, some of them are killed
// meanwhile (SIGKILL), at random instants, and so is whatever process serves the layout, a few times.
//
// # What is demanded
//
//   - A process that was not killed ends well, and has pushed all that it was told to.
//   - Without --kill exactly one process was started to serve the layout; in-process it may be more, for a tool that is
//     done takes its registry along.
//   - What was told to be pushed is in the layout: the tag, by the digest that was told, and index.json names it.
//   - Five seconds after the last process has ended, and the idle timeout has passed, no process of the round runs, and
//     nobody owns the layout. Those that serve it are found by their environment, so none is overlooked.
//
// One line is written for each thing that is wrong, and one for all. The exit code is 1 if anything was; the layout of
// that round stays on disk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// settings are what crowd was asked for.
type settings struct {
	tool, launcher, dir       string
	rounds, processes, images int
	kill                      bool
	idle                      time.Duration
	seed                      uint64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parse(os.Args[1:])
	if err == nil {
		err = s.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crowd:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("crowd", flag.ExitOnError)
	flags.IntVar(&s.rounds, "rounds", 100, "how often")
	flags.IntVar(&s.processes, "processes", 50, "how many processes open the layout")
	flags.IntVar(&s.images, "images", 4, "how many images each of them pushes")
	flags.BoolVar(&s.kill, "kill", false, "kill some of them, and what serves the layout")
	flags.DurationVar(&s.idle, "idle", 2*time.Second, "the idle timeout")
	flags.StringVar(&s.launcher, "launcher", "self", "what the tool starts: self, in-process, or a berth binary")
	flags.StringVar(&s.dir, "dir", "", "where the layouts are made; a temporary directory by default")
	flags.Uint64Var(&s.seed, "seed", 1, "of the instants at which processes are killed")
	flags.Parse(args)
	if flags.NArg() != 1 {
		return nil, errors.New("want one TOOL, a program like examples/buildtool")
	}
	var err error
	s.tool, err = filepath.Abs(flags.Arg(0))
	return s, err
}

// run runs all rounds, and stops at the first that goes wrong.
func (s *settings) run(ctx context.Context) error {
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "crowd-")
		if err != nil {
			return err
		}
		defer os.Remove(dir) // unless something was wrong in it
		s.dir = dir
	}
	var total tally
	for n := range s.rounds {
		r := &round{settings: s, layout: filepath.Join(s.dir, fmt.Sprintf("round%d", n)), random: rand.New(rand.NewPCG(s.seed, uint64(n)))}
		if err := r.run(ctx); err != nil {
			return fmt.Errorf("round %d, layout %s: %w", n, r.layout, err)
		}
		total.add(r.tally)
		if err := os.RemoveAll(r.layout); err != nil {
			return err
		}
	}
	fmt.Printf("%d rounds of %d processes: %s; nothing is wrong\n", s.rounds, s.processes, total)
	return nil
}

// tally counts what happened.
type tally struct{ pushed, started, killedTools, killedServers int }

func (t *tally) add(o tally) {
	t.pushed += o.pushed
	t.started += o.started
	t.killedTools += o.killedTools
	t.killedServers += o.killedServers
}

func (t tally) String() string {
	return fmt.Sprintf("%d images pushed, %d registries started, %d tools and %d registries killed", t.pushed, t.started, t.killedTools, t.killedServers)
}
