package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"iter"

	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// bookmarkEvery is after how many events that were not asked for a consumer is told how far it has come.
const bookmarkEvery = 1024

// errEnough: the consumer has left its loop.
var errEnough = errors.New("the consumer has enough")

// Watch implements [berth.Watcher]. The first watch of a layout begins the log, which is kept in the index: what
// was answered has its event in it, also after a kill. It keeps the last 65 536 events, or 16 MiB of them,
// and is forgotten when nobody has watched for a day, when the index is made anew, and in a copy of the layout.
//
// A manifest that is found damaged, or put back, is no event, and neither are blobs and uploads.
func (l *Layout) Watch(ctx context.Context, opts *berth.WatchOptions) iter.Seq2[berth.Event, error] {
	if opts == nil {
		opts = &berth.WatchOptions{}
	}
	asked := *opts
	return func(yield func(berth.Event, error) bool) {
		w := &watch{layout: l, opts: asked, yield: func(e berth.Event) bool { return yield(e, nil) }}
		err := w.run(ctx)
		if errors.Is(err, errEnough) || errors.Is(err, ErrClosed) {
			return
		}
		yield(berth.Event{}, err)
	}
}

// watch is one consumer of the log.
type watch struct {
	layout *Layout
	opts   berth.WatchOptions
	yield  func(berth.Event) bool
	log    string
	at     uint64 // the event that was seen last
	last   string // the position that was yielded last
	passed int    // events since the last that was yielded
	begun  uint64 // the event that was the last when the watch began
}

func (w *watch) run(ctx context.Context) error {
	if err := w.alive(ctx); err != nil {
		return err
	}
	rec, leave, err := w.layout.journal.join(ctx, w.opts.Pulls)
	if err != nil {
		return err
	}
	defer leave()
	if err := w.start(rec); err != nil {
		return err
	}
	if err := w.tell(rec, berth.Event{Kind: berth.EventBookmark}); err != nil {
		return err
	}
	for {
		if err := w.step(ctx); err != nil {
			return err
		}
	}
}

// start finds the place to begin at.
func (w *watch) start(rec *journalRecord) error {
	w.log, w.at, w.begun = rec.Log, rec.Last, rec.Last
	if w.opts.After == "" {
		return nil
	}
	n, ok := rec.number(w.opts.After)
	switch {
	case !ok || n > rec.Last:
		return w.lost("it is none of this log")
	case w.opts.Pulls && n < rec.PullsFrom:
		return w.lost("what was pulled then was not kept")
	}
	w.at = n
	return w.check(rec)
}

// check reports whether what follows is still kept.
func (w *watch) check(rec *journalRecord) error {
	if rec == nil || rec.Log != w.log {
		return w.lost("the log was begun anew")
	}
	if !rec.follows(w.at) {
		return w.lost("it was too much")
	}
	return nil
}

func (w *watch) lost(why string) error {
	from := w.last
	if from == "" {
		from = w.opts.After
	}
	return fmt.Errorf("watch after %.80q: %w: %s", from, berth.ErrEventsLost, why)
}

// step yields what is there, or waits for more.
func (w *watch) step(ctx context.Context) error {
	rec, news := w.layout.journal.current()
	if err := w.check(rec); err != nil {
		return err
	}
	if rec.Last == w.at {
		return w.await(ctx, news)
	}
	page, err := w.layout.readEvents(rec, w.at)
	if err != nil {
		return err
	}
	if len(page) == 0 {
		return w.lost("it was too much")
	}
	for _, e := range page {
		if err := w.alive(ctx); err != nil {
			return err
		}
		w.at++
		if err := w.pass(rec, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *watch) await(ctx context.Context, news <-chan struct{}) error {
	select {
	case <-news:
	case <-ctx.Done():
	case <-w.layout.life.Done():
	}
	return w.alive(ctx)
}

// alive returns what has ended the watch.
func (w *watch) alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.layout.life.Err() != nil {
		return ErrClosed
	}
	return nil
}

// pass yields an event if it was asked for.
func (w *watch) pass(rec *journalRecord, e berth.Event) error {
	if w.opts.Pulls && e.Kind == berth.EventPull || e.Kind != berth.EventPull && e.Kind != berth.EventBookmark {
		return w.tell(rec, e)
	}
	if w.passed++; w.passed < bookmarkEvery && w.at != w.begun {
		return nil
	}
	return w.tell(rec, berth.Event{Kind: berth.EventBookmark})
}

func (w *watch) tell(rec *journalRecord, e berth.Event) error {
	w.passed = 0
	w.last = rec.position(w.at)
	e.Position = w.last
	if !w.yield(e) {
		return errEnough
	}
	return nil
}

// readEvents reads a page of those events that come after one, and were there in the state that is given. It
// is empty where they are gone since.
func (l *Layout) readEvents(state *journalRecord, after uint64) (page []berth.Event, err error) {
	size := 0
	err = l.db.View(func(tx *bolt.Tx) error {
		rec, err := readJournal(tx)
		if err != nil || rec == nil || rec.Log != state.Log || !rec.follows(after) {
			return err
		}
		limit := int(min(state.Last-after, pageSize))
		return scan(tx, span{bucket: bucketEvents, after: eventKey(after)}, limit, func(k, v []byte) error {
			if size += len(v); size > pageBytes && len(page) > 0 {
				return errPageFull
			}
			page = append(page, berth.Event{})
			return decode(k, v, &page[len(page)-1])
		})
	})
	if errors.Is(err, errPageFull) {
		err = nil
	}
	return page, err
}

// join begins to watch: it returns the log as it is, and begins one where there is none. leave must be called.
func (j *journal) join(ctx context.Context, pulls bool) (rec *journalRecord, leave func(), err error) {
	j.count(1, pulls)
	leave = func() { j.count(-1, pulls) }
	rec, _ = j.current()
	// Who is counted keeps the log from being forgotten.
	if rec != nil && !stale(rec.Watched) && (!pulls || !stale(rec.Pulls)) {
		return rec, leave, nil
	}
	err = j.layout.writer.commitAlways(ctx, change{hidden: true, write: func(tx *bolt.Tx, gen uint64) (err error) {
		rec, err = j.open(tx, gen, pulls)
		return err
	}})
	if err != nil {
		leave()
		return nil, nil, err
	}
	return rec, leave, nil
}

func (j *journal) count(n int, pulls bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.watchers += n
	if pulls {
		j.pullers += n
	}
}

// open is a transaction's write that makes sure that there is a log, with pulls if they are asked for. The
// pulls of another time may lie before: a number is taken, so that a position from then is told apart.
func (j *journal) open(tx *bolt.Tx, gen uint64, pulls bool) (*journalRecord, error) {
	if j.rec == nil {
		if err := j.create(tx); err != nil {
			return nil, err
		}
	}
	if pulls && j.rec.Pulls == 0 {
		j.note(berth.Event{Kind: berth.EventBookmark})
		j.rec.PullsFrom = j.rec.Last + uint64(len(j.batch))
	}
	return j.rec, j.review(tx, gen)
}
