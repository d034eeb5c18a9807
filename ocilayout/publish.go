package ocilayout

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"

	"github.com/berthoci/berth/internal/durable"
)

const (
	// publishDelay is how long index.json may lag behind an answer, so that many changes are written
	// as one.
	publishDelay = 100 * time.Millisecond
	// publishShare bounds the work: index.json is written no sooner than this many times the cost
	// of the last time after it.
	publishShare = 20
	// flushWithin is how soon after a change a flush begins in process mode, whatever it costs.
	flushWithin = time.Second
	// retryDelay is how soon a flush that failed, on a full disk say, is tried again.
	retryDelay = time.Second
	// watchEvery is how often index.json is looked at for the edits of others.
	watchEvery = 250 * time.Millisecond
)

// projected is an index.json that was written or merged.
type projected struct {
	Stamp durable.Stamp `json:"stamp"`
	// Checksum is that of the whole file.
	Checksum string `json:"checksum"`
	// Generation is what it shows.
	Generation uint64 `json:"generation"`
}

// publisher keeps index.json in step with the index, and the disk with both.
type publisher struct {
	layout  *Layout
	cost    atomic.Int64  // of the last time, in nanoseconds
	dirty   chan struct{} // something is to be published or flushed
	urgent  chan struct{} // somebody waits for it
	stop    chan struct{}
	stopped chan struct{}
	ending  sync.Once

	turn *semaphore.Weighted // of one; guards the fields below
	last projected           // the index.json that is known
	// exact: nothing but the file has changed since, so it says what was taken out even where its
	// annotations are lost.
	exact bool
	// outgoing are the files that were index.json a moment ago, which a slow writer may still have open.
	outgoing []outgoing
}

func newPublisher(l *Layout) *publisher {
	return &publisher{layout: l, turn: semaphore.NewWeighted(1), dirty: make(chan struct{}, 1),
		urgent: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
}

// wake tells that the index has changed.
func (p *publisher) wake() { signal(p.dirty) }

// hurry asks for a flush at once.
func (p *publisher) hurry() {
	signal(p.urgent)
	signal(p.dirty)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *publisher) begin() { go p.run() }

func (p *publisher) run() {
	defer close(p.stopped)
	watch := time.NewTicker(watchEvery)
	defer watch.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-watch.C:
			p.watch()
			continue
		case <-p.dirty:
		}
		if !p.pause(p.delay()) {
			return
		}
		if err := p.flush(context.Background()); err != nil {
			p.layout.log.Error("index.json is behind", "err", err, "retry", retryDelay)
			p.wake()
			p.pause(retryDelay)
		}
	}
}

// delay is how long a change may wait for others. In power mode it is durable already.
func (p *publisher) delay() time.Duration {
	delay := max(publishDelay, publishShare*time.Duration(p.cost.Load()))
	if p.layout.mode() == Process {
		delay = min(delay, flushWithin)
	}
	return delay
}

// pause waits, and reports whether to go on.
func (p *publisher) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-p.urgent:
		return true
	case <-p.stop:
		return false
	}
}

// watch takes in what another program wrote to index.json while nothing else goes on.
func (p *publisher) watch() {
	if p.layout.uses.crowded() {
		p.layout.writeUses(context.Background())
	}
	p.layout.journal.tend(context.Background())
	if p.layout.sweepDue() {
		p.layout.sweepIngest(false)
	}
	if !p.turn.TryAcquire(1) {
		return // somebody is looking, or does not want anybody to
	}
	defer p.turn.Release(1)
	p.retire(time.Now())
	if p.unchanged() {
		return
	}
	if err := p.mergeOutside(context.Background()); err != nil {
		p.layout.log.Warn("index.json was edited and cannot be read", "err", err)
	}
}

// unchanged reports whether index.json is the file that is known, as far as a look can tell.
func (p *publisher) unchanged() bool {
	info, err := p.layout.dir.Root().Lstat(v1.ImageIndexFile)
	return err == nil && durable.StampOf(info) == p.last.Stamp
}

// halt ends the goroutine.
func (p *publisher) halt() {
	p.ending.Do(func() { close(p.stop) })
	<-p.stopped
}

// flush takes in what others wrote, puts on disk what was answered, and brings index.json up to
// date, in this order: so index.json names nothing that a power cut could take away.
func (p *publisher) flush(ctx context.Context) error {
	if err := p.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer p.turn.Release(1)
	return p.flushInTurn(ctx)
}

func (p *publisher) flushInTurn(ctx context.Context) error {
	if err := p.layout.dir.Settle(); err != nil {
		return err
	}
	return p.catchUp(ctx)
}

// catchUp brings index.json up to date, merging what others write meanwhile.
func (p *publisher) catchUp(ctx context.Context) error {
	const attempts = 10
	for range attempts {
		if err := p.mergeOutside(ctx); err != nil {
			return err
		}
		done, err := p.publish(ctx)
		if err != nil || done {
			return err
		}
	}
	return errors.New("index.json is being rewritten by another program without pause")
}

// publish writes index.json, if it would change, after it has flushed what the file is to name. It
// reports whether index.json is up to date: it is not if another program wrote to it meanwhile.
func (p *publisher) publish(ctx context.Context) (done bool, err error) {
	start := time.Now()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	gen, err := p.generation()
	if err != nil {
		return false, err
	}
	defer func() { p.cost.Store(int64(time.Since(start))) }()
	if gen == p.last.Generation && p.unchanged() {
		return true, p.layout.flushBlobs()
	}
	next, temp, err := p.write()
	// Blobs are flushed also where there is no room for another index.json: writers may wait for that.
	if err = errors.Join(err, p.layout.flushBlobs()); err != nil {
		p.layout.dir.Root().Remove(temp)
		return false, err
	}
	done, err = p.exchange(ctx, next, temp)
	// One that shows nothing need not be known: whatever it is found to show is somebody else's.
	if err == nil && p.last.Generation > 0 {
		p.note(ctx)
	}
	return done, err
}

// note writes down which index.json is ours, for a start after a kill. One that is not noted is compared
// with one that is older, which takes more for the edit of another program than there is.
func (p *publisher) note(ctx context.Context) {
	last := p.last
	err := p.layout.writer.commitAlways(ctx, change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
		return put(tx, bucketMeta, metaProjected, last)
	}})
	if err != nil {
		p.layout.log.Info("which index.json was written last is not noted", "err", err)
	}
}

// remember reads what note wrote.
func (p *publisher) remember() error {
	return p.layout.db.View(func(tx *bolt.Tx) error {
		_, err := get(tx, bucketMeta, metaProjected, &p.last)
		return err
	})
}

func (p *publisher) generation() (gen uint64, err error) {
	err = p.layout.db.View(func(tx *bolt.Tx) error {
		gen = generation(tx)
		return nil
	})
	return gen, err
}

// state is what the index knows that an index.json says of itself.
type state struct {
	generation uint64
	layout     string // the layout's id
	others     map[string]string
}

func (p *publisher) whatIs() (is state, err error) {
	err = p.layout.db.View(func(tx *bolt.Tx) error {
		is = state{generation(tx), layoutID(tx), map[string]string{}}
		_, err := foreignAnnotations(tx, &is.others)
		return err
	})
	return is, err
}

// first takes in what was written to index.json while nobody owned the layout. Bringing index.json
// up to date can wait, except where there is none.
func (p *publisher) first(ctx context.Context) error {
	if err := p.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer p.turn.Release(1)
	if err := p.remember(); err != nil {
		return err
	}
	if err := p.mergeOutside(ctx); err != nil {
		return err
	}
	if err := p.left(ctx); err != nil {
		return err
	}
	if err := p.settleIn(ctx); err != nil || p.last != (projected{}) {
		return err
	}
	return p.catchUp(ctx)
}

// settleIn gives a layout that was copied an id of its own: from now on the generations of the two are not
// the same, and neither are the numbers of events.
func (p *publisher) settleIn(ctx context.Context) error {
	found, here := p.layout.epoch.found, p.layout.epoch.here
	if found.Mode == "" || found.Device == here.Device && found.Inode == here.Inode {
		return nil
	}
	return p.layout.writer.commitAlways(ctx, change{write: func(tx *bolt.Tx, _ uint64) error {
		return errors.Join(p.layout.journal.forget(tx), tx.Bucket(bucketMeta).Put(metaLayout, []byte(rand.Text())))
	}})
}

// refresh takes in an edit of index.json if there is one, for a reader that has not found what it
// looks for. It reports whether there was one.
func (p *publisher) refresh(ctx context.Context) bool {
	info, err := p.layout.dir.Root().Lstat(v1.ImageIndexFile)
	// Whoever has the lock is about to look, or does not want anybody to.
	if err != nil || !p.turn.TryAcquire(1) {
		return false
	}
	defer p.turn.Release(1)
	if durable.StampOf(info) == p.last.Stamp {
		return false
	}
	return p.mergeOutside(ctx) == nil
}
