package ocilayout

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxTouched bounds how many digests one age remembers. Where it is reached, all count as touched
// until the age has passed: a collection then finds less to remove, and removes nothing wrong.
const maxTouched = 256 << 10

// recent remembers which blobs a client was told of within the grace period, and which are in
// use at this moment: no collection removes these. It is kept in memory, by a clock that does not
// jump.
type recent struct {
	seed  maphash.Seed
	grace time.Duration

	mu     sync.Mutex // guards the fields below
	ages   []age      // the newest last
	held   map[digest.Digest]int
	doomed map[digest.Digest]chan struct{}
	floor  time.Time // a collection asks for what was touched since; zero: none is running
}

// age is what was touched in a stretch of time.
type age struct {
	begin   time.Time
	touched map[uint64]struct{}
	full    bool
}

func newRecent(grace time.Duration) *recent {
	return &recent{seed: maphash.MakeSeed(), grace: grace,
		held: map[digest.Digest]int{}, doomed: map[digest.Digest]chan struct{}{}}
}

// touch notes that a client is told of a blob. Where the blob is being removed at this moment, it
// returns when that is over, so that the client is told the truth.
func (r *recent) touch(ctx context.Context, d digest.Digest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.wait(ctx, d); err != nil {
		return err
	}
	r.note(d)
	return nil
}

// hold keeps blobs from being removed until release is called, and for the grace period after.
func (r *recent) hold(ctx context.Context, all ...digest.Digest) (release func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, d := range all {
		if err := r.wait(ctx, d); err != nil {
			r.let(all[:i])
			return nil, err
		}
		r.note(d)
		r.held[d]++
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.let(all)
	}, nil
}

// let ends a hold.
func (r *recent) let(all []digest.Digest) {
	for _, d := range all {
		r.note(d)
		if r.held[d]--; r.held[d] == 0 {
			delete(r.held, d)
		}
	}
}

// wait returns when a digest is not being removed. The lock is let go meanwhile.
func (r *recent) wait(ctx context.Context, d digest.Digest) error {
	for {
		over, doomed := r.doomed[d]
		if !doomed {
			return nil
		}
		r.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (r *recent) note(d digest.Digest) {
	now := time.Now()
	if len(r.ages) == 0 || now.Sub(r.ages[len(r.ages)-1].begin) > r.grace/2 {
		r.begin(now)
	}
	newest := &r.ages[len(r.ages)-1]
	if len(newest.touched) >= maxTouched {
		newest.full = true
		return
	}
	newest.touched[maphash.String(r.seed, string(d))] = struct{}{}
}

// begin begins a new age and forgets those that nobody will ask for: all that they hold is older
// than the grace period, and than the collection that is running.
func (r *recent) begin(now time.Time) {
	over := now.Add(-r.grace)
	if !r.floor.IsZero() && r.floor.Before(over) {
		over = r.floor
	}
	for len(r.ages) > 1 && r.ages[1].begin.Before(over) {
		r.ages = r.ages[1:]
	}
	r.ages = append(r.ages, age{begin: now, touched: map[uint64]struct{}{}})
}

// collect begins a collection: all that is touched from the time that it returns is kept in mind until
// release is called.
func (r *recent) collect() (start time.Time, release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floor = time.Now()
	r.begin(r.floor)
	return r.floor, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.floor = time.Time{}
	}
}

// doom takes a blob for removal, unless it was touched since the given time or is in use. Who takes
// one must spare it in the end.
func (r *recent) doom(d digest.Digest, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[d] > 0 || r.doomed[d] != nil || r.touchedSince(d, since) {
		return false
	}
	r.doomed[d] = make(chan struct{})
	return true
}

// seize takes a blob as doom does, whoever was told of it; not one that is in use.
func (r *recent) seize(d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[d] > 0 || r.doomed[d] != nil {
		return false
	}
	r.doomed[d] = make(chan struct{})
	return true
}

// touched reports whether somebody was told of a blob since a time.
func (r *recent) touched(d digest.Digest, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.touchedSince(d, since)
}

func (r *recent) touchedSince(d digest.Digest, since time.Time) bool {
	sum := maphash.String(r.seed, string(d))
	for i, a := range r.ages {
		if i+1 < len(r.ages) && !r.ages[i+1].begin.After(since) {
			continue
		}
		if _, touched := a.touched[sum]; touched || a.full {
			return true
		}
	}
	return false
}

// spare ends what doom began: the blob is gone, or stays.
func (r *recent) spare(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.doomed[d])
	delete(r.doomed, d)
}
