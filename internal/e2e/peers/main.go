//go:build linux

// Peers compares berth with the registries that one would use in its place: the distribution registry, and
// that of crane with its blobs on disk. Both are built from this module's go.mod, berth from the tree that it
// lies in.
//
//	go run ./peers                 all of it
//	go run ./peers -rows 2,3       some rows
//	go run ./peers -tags 100000    and what one more tag costs at so many
//	go run ./peers -rows 12        and what brings a layout's tags to another registry: berth sync beside
//	                               crane, regsync, skopeo and a script
//
// Everything is measured over HTTP from this process, which shares the machine with the servers, with one
// client that does no more than it has to, the same for all. Each server is a process of its own with its
// defaults, on a fresh directory of the same file system, and all take turns within each round, in an order
// that changes with the round. What counts is the ratio of the medians of all rounds, of one run: absolute
// figures say little on a machine that does other things too. A ratio is never rounded in berth's favour.
//
// distribution waits for the disk before it answers; crane keeps tags and manifests in memory alone, and has
// lost them after a restart.
//
// Those who sync are each measured as a whole process, towards a distribution registry of its own that wants tokens: over
// loopback, and over a link that delays what goes through it. Nothing but loopback is spoken to here, too.
//
// It ends with code 1 if something failed or a demand was missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// settings are what a run is asked for.
type settings struct {
	rows       map[int]bool // none: all
	rounds     int
	size       int64 // of the big blob, in bytes
	images     int   // small ones, in a round
	tags       int   // at which one more is pushed besides
	syncImages int   // in the layout that is synced
	out        string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == bareCommand {
		fail(serveBare(os.Args[2]))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, s)
	}
	fail(err)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func parse(args []string) (s settings, err error) {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	rows := flags.String("rows", "", "measure only these rows of the table, as in `2,3`")
	flags.IntVar(&s.rounds, "rounds", 5, "take the medians of so many rounds")
	flags.Int64Var(&s.size, "size", 1<<10, "size of the big blob in `MiB`")
	flags.IntVar(&s.images, "images", 4000, "push so many small images in a round")
	flags.IntVar(&s.tags, "tags", 0, "push one more tag at this number of tags too")
	flags.IntVar(&s.syncImages, "sync-images", 100, "sync so many images to another registry")
	flags.StringVar(&s.out, "out", "../../out", "measure in this `DIR`, on the disk that is meant")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.size <<= 20
	if s.rounds < 1 || s.size <= 0 || s.images < clients || s.syncImages < 1 {
		return s, errors.New("at least one round, and something to push in it")
	}
	s.rows, err = parseRows(*rows)
	return s, err
}

func parseRows(text string) (map[int]bool, error) {
	rows := map[int]bool{}
	for field := range strings.SplitSeq(text, ",") {
		if field == "" {
			continue
		}
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || n > rowSync {
			return nil, fmt.Errorf("-rows: %q is none of 1 to %d", field, rowSync)
		}
		rows[n] = true
	}
	return rows, nil
}

// wants reports whether one of some rows is asked for.
func (s settings) wants(rows ...int) bool {
	for _, row := range rows {
		if len(s.rows) == 0 || s.rows[row] {
			return true
		}
	}
	return false
}

// errMissed ends a run in which berth is not as far ahead as it must be.
var errMissed = errors.New("a demand was missed")

func run(ctx context.Context, s settings) (err error) {
	b, err := newBench(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	err = b.measure(ctx)
	if err != nil && ctx.Err() == nil {
		return err
	}
	met := b.print(os.Stdout)
	if ctx.Err() != nil {
		return errors.New("interrupted: the table has what was measured until then")
	}
	if s.wants(rowPull) {
		if err := b.proveSendfile(ctx, os.Stdout); err != nil {
			return err
		}
	}
	if !met {
		return errMissed
	}
	return nil
}
