package ocilayout

import (
	"context"
	"errors"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// maxGroup bounds what one transaction takes together.
const maxGroup = 256

var errClosed = errors.New("layout is closed")

// change is one caller's part of a transaction.
type change struct {
	// check decides whether the change may be made, and writes nothing. May be nil.
	check func(*bolt.Tx) error
	// write makes it. gen is the generation that it belongs to.
	write func(tx *bolt.Tx, gen uint64) error
}

// writer is the one goroutine that writes to the index. It commits what is waiting together, so
// that callers that wait for the disk wait for it once.
type writer struct {
	db      *bolt.DB
	jobs    chan *job
	stop    chan struct{}
	stopped chan struct{}
	ending  sync.Once
}

type job struct {
	change
	done chan error
}

func newWriter(db *bolt.DB) *writer {
	w := &writer{db: db, jobs: make(chan *job), stop: make(chan struct{}), stopped: make(chan struct{})}
	go w.run()
	return w
}

// commit makes a change durable. It is all or nothing, and applied once: a context that ends while
// the change waits for its turn withdraws it, later it does not.
func (w *writer) commit(ctx context.Context, c change) error {
	j := &job{change: c, done: make(chan error, 1)}
	select {
	case w.jobs <- j:
		return <-j.done
	case <-ctx.Done():
		return ctx.Err()
	case <-w.stop:
		return errClosed
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
		case <-w.stop:
			return
		}
	}
}

func (w *writer) gather(first *job) []*job {
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
	results := make([]error, len(group))
	err := w.db.Update(func(tx *bolt.Tx) error {
		gen := generation(tx) + 1
		for i, j := range group {
			if results[i] = runCheck(j.check, tx); results[i] != nil {
				continue
			}
			if err := j.write(tx, gen); err != nil {
				return err
			}
		}
		return setGeneration(tx, max(gen, generation(tx)))
	})
	for i, j := range group {
		if results[i] == nil {
			results[i] = err
		}
		j.done <- results[i]
	}
}

func runCheck(check func(*bolt.Tx) error, tx *bolt.Tx) error {
	if check == nil {
		return nil
	}
	return check(tx)
}
