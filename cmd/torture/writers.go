package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berthoci/berth/ocilayout"
)

// cmdWriters is the command that a parent starts this program with to put load on a layout.
const cmdWriters = "writers"

const (
	writers = 8
	// workTime is how long writers work before they rest, if they do.
	workTime = 3 * time.Second
)

// load says what the writers of one child do.
type load struct {
	layout     string
	durability string
	seed       uint64
	round      int
	flush      bool
	pace       time.Duration // the longest pause between two operations of a writer
	rest       time.Duration // how long all writers rest, each time after having worked for workTime
	budget     int64         // bytes after which layers are shared ones only
}

func (l *load) flags(f *flag.FlagSet) {
	f.StringVar(&l.layout, "layout", "", "")
	f.StringVar(&l.durability, "durability", "", "")
	f.Uint64Var(&l.seed, "seed", 0, "")
	f.IntVar(&l.round, "round", 0, "")
	f.BoolVar(&l.flush, "flush", false, "")
	f.DurationVar(&l.pace, "pace", 0, "")
	f.DurationVar(&l.rest, "rest", 0, "")
	f.Int64Var(&l.budget, "budget", 0, "")
}

// args are what flags parses.
func (l load) args() []string {
	return []string{cmdWriters, "--layout=" + l.layout, "--durability=" + l.durability,
		"--seed=" + strconv.FormatUint(l.seed, 10), "--round=" + strconv.Itoa(l.round),
		"--flush=" + strconv.FormatBool(l.flush), "--pace=" + l.pace.String(), "--rest=" + l.rest.String(),
		"--budget=" + strconv.FormatInt(l.budget, 10)}
}

// writersCommand opens a layout and writes to it until it is killed, or its parent is gone. The
// parent sends the state of the layout, and then a line for each mark that it wants.
func writersCommand(ctx context.Context, args []string, out io.Writer) error {
	var l load
	f := flag.NewFlagSet(cmdWriters, flag.ContinueOnError)
	l.flags(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	state, err := readState(in)
	if err != nil {
		return err
	}
	tell := &teller{out: out}
	go marks(in, tell)
	return l.run(ctx, state, tell)
}

func readState(in *bufio.Reader) (state State, err error) {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	return state, json.Unmarshal(line, &state)
}

// marks echoes what the parent sends. A parent that is gone takes its child along.
func marks(in *bufio.Reader, tell *teller) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(1)
		}
		id, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		tell.say(Event{Phase: Mark, ID: id})
	}
}

// run opens the layout and lets the writers work until the context ends or one of them is refused.
func (l load) run(ctx context.Context, state State, tell *teller) error {
	layout, err := openLayout(ctx, l.layout, l.durability)
	if err != nil {
		return err
	}
	tell.say(Event{Phase: Opened})
	shared, left := newShared(l.seed), &atomic.Int64{}
	left.Store(l.budget)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	begin := time.Now()
	var all sync.WaitGroup
	for n := range writers {
		random := rand.New(rand.NewPCG(l.seed, uint64(l.round*writers+n+1)))
		w := &writer{n: n, load: l, begin: begin, layout: layout, tell: tell, random: random, shared: shared, left: left}
		w.adopt(state)
		all.Go(func() {
			w.run(ctx)
			stop()
		})
	}
	all.Wait()
	return errors.Join(errors.New("the writers came to an end"), layout.Close())
}

// openLayout opens a layout whose warnings go to standard error.
func openLayout(ctx context.Context, dir, durability string) (*ocilayout.Layout, error) {
	d, err := ocilayout.ParseDurability(durability)
	if err != nil {
		return nil, err
	}
	return ocilayout.Open(ctx, dir, &ocilayout.Options{Durability: d, Logger: warnings()})
}

func warnings() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// teller writes events, each in one write.
type teller struct {
	mu   sync.Mutex // one line at a time
	out  io.Writer
	last atomic.Int64
}

func (t *teller) say(e Event) {
	line, err := e.encode()
	if err != nil {
		panic(err) // a line that does not fit is a mistake of this program
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.out.Write(line); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

// errNothing is returned by an operation that found nothing to do.
var errNothing = errors.New("nothing to do")

// tell runs one operation between its two lines, and reports whether it was done.
func (t *teller) tell(op Op, do func() error) bool {
	id := t.last.Add(1)
	t.say(Event{Phase: Begin, ID: id, Op: &op})
	err := do()
	switch {
	case err == nil:
		t.say(Event{Phase: Ack, ID: id})
	case errors.Is(err, errNothing):
		t.say(Event{Phase: Void, ID: id})
	default:
		t.say(Event{Phase: Refused, ID: id, Text: err.Error()})
	}
	return err == nil
}
