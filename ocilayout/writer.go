package ocilayout

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"

	"github.com/berthoci/berth/internal/durable"
)

// maxGroup bounds what one transaction takes together.
const maxGroup = 256

// opCommit is the step of a transaction, as a test's fault is told it.
const opCommit durable.Op = "commit"

// ErrClosed is returned by all that is asked of a layout after Close, or is cut short by it.
var ErrClosed = errors.New("layout is closed")

// change is one caller's part of a transaction.
type change struct {
	// check decides whether the change may be made, and writes nothing. May be nil.
	check func(*bolt.Tx) error
	// write makes it. gen is the generation that it belongs to.
	write func(tx *bolt.Tx, gen uint64) error
	// hidden: index.json does not show it, so there is no new generation.
	hidden bool
	// folder is a directory whose names must be on disk before the change is. May be empty.
	folder string
}

// writer is the one goroutine that writes to the index. It commits what is waiting together, so
// that callers that wait for the disk wait for it once.
type writer struct {
	layout  *Layout
	gate    *semaphore.Weighted // held by each commit, and wholly by who wants none
	jobs    chan *job
	alone   chan *job // each runs between two transactions
	stop    chan struct{}
	stopped chan struct{}
	ending  sync.Once
}

type job struct {
	change
	work   func() error // instead of a change
	result error
	done   chan struct{}
}

func newWriter(l *Layout) *writer {
	w := &writer{layout: l, gate: semaphore.NewWeighted(math.MaxInt64), jobs: make(chan *job, maxGroup), alone: make(chan *job),
		stop: make(chan struct{}), stopped: make(chan struct{})}
	go w.run()
	return w
}

// commit makes a change, and makes it as durable as the layout's answers are. It is all or nothing,
// and applied once: a context that ends while the change waits for its turn withdraws it, later it
// does not.
func (w *writer) commit(ctx context.Context, c change) error {
	leave, err := w.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return w.commitAlways(ctx, c)
}

// enter keeps others from holding the writer until leave is called. Whoever changes the directory before
// it commits does so in between.
func (w *writer) enter(ctx context.Context) (leave func(), err error) {
	if err := w.gate.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { w.gate.Release(1) }, nil
}

// hold waits until nobody is inside, and lets nobody enter until release is called.
func (w *writer) hold(ctx context.Context) (release func(), err error) {
	if err := w.gate.Acquire(ctx, math.MaxInt64); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { w.gate.Release(math.MaxInt64) }), nil
}

// commitAlways is commit for who has entered, or holds the writer.
func (w *writer) commitAlways(ctx context.Context, c change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return w.await(ctx, w.jobs, &job{change: c})
}

// between does some work while no transaction is made.
func (w *writer) between(ctx context.Context, work func() error) error {
	return w.await(ctx, w.alone, &job{work: work})
}

func (w *writer) await(ctx context.Context, queue chan<- *job, j *job) error {
	j.done = make(chan struct{})
	select {
	case queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.stop:
		return ErrClosed
	}
	select {
	case <-j.done:
		return j.result
	case <-w.stopped:
	}
	select {
	case <-j.done:
		return j.result
	default:
		return ErrClosed
	}
}

func (w *writer) end() {
	w.ending.Do(func() { close(w.stop) })
	<-w.stopped
}

func (w *writer) run() {
	defer close(w.stopped)
	for {
		select {
		case j := <-w.jobs:
			w.commitGroup(w.gather(j))
		case j := <-w.alone:
			j.result = j.work()
			close(j.done)
		case <-w.stop:
			return
		}
	}
}

// gather takes what is waiting, after it has let those go first who are about to ask too: a commit costs as
// much as a request or two, however little it changes.
func (w *writer) gather(first *job) []*job {
	runtime.Gosched()
	group := []*job{first}
	for len(group) < maxGroup {
		select {
		case j := <-w.jobs:
			group = append(group, j)
		default:
			return group
		}
	}
	return group
}

// commitGroup applies what passes its check. A failing check fails its own job; a failing write
// means that the index cannot be written, and fails all.
func (w *writer) commitGroup(group []*job) {
	err := w.prepare(group)
	if err == nil {
		err = w.layout.dir.Step(opCommit, indexPath, func() error {
			return w.layout.db.Update(func(tx *bolt.Tx) error { return w.apply(tx, group) })
		})
	}
	w.layout.cache.outdate()
	if err == nil {
		w.layout.journal.publish(w.layout.journal.rec)
	}
	for _, j := range group {
		if j.result == nil {
			j.result = err
		}
		close(j.done)
	}
}

// prepare puts on disk what must be there before the changes are.
func (w *writer) prepare(group []*job) error {
	if err := w.layout.epoch.begin(); err != nil {
		return err
	}
	// What was stored just before the layout was raised to power mode did not wait for the disk yet.
	if w.layout.mode() == Power {
		if err := w.layout.flushBlobs(); err != nil {
			return err
		}
	}
	flushed := map[string]error{}
	for _, j := range group {
		if j.folder == "" {
			continue
		}
		if _, done := flushed[j.folder]; !done {
			flushed[j.folder] = w.layout.dir.SyncDir(j.folder)
		}
		j.result = flushed[j.folder]
	}
	return nil
}

func (w *writer) apply(tx *bolt.Tx, group []*job) error {
	if err := w.layout.journal.begin(tx); err != nil {
		return err
	}
	gen := generation(tx) + 1
	shown := false
	for _, j := range group {
		if j.result == nil && j.check != nil {
			j.result = j.check(tx)
		}
		if j.result != nil {
			continue
		}
		if err := j.write(tx, gen); err != nil {
			return err
		}
		shown = shown || !j.hidden
	}
	if err := w.layout.journal.write(tx); err != nil || !shown {
		return err
	}
	return setGeneration(tx, max(gen, generation(tx)))
}
