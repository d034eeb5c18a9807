package ocilayout

import (
	"context"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// keptFor is for how long there is a log that nobody watches.
	keptFor = 24 * time.Hour
	// stampEvery is how old the note may be that somebody does.
	stampEvery = time.Hour
	// tendEvery is how soon what could not be noted is tried again.
	tendEvery = time.Minute
)

// stale reports whether somebody who watches is to note it anew; at is when it was noted last. A clock that was
// set back must not keep a note fresh for ever.
func stale(at int64) bool {
	age := time.Since(time.Unix(at, 0))
	return age > stampEvery || age < -stampEvery
}

// over reports whether nobody has watched for too long.
func over(at int64) bool {
	age := time.Since(time.Unix(at, 0))
	return age > keptFor+stampEvery || age < -keptFor
}

// load reads what the last owner of the layout has left, and forgets it where it is too old. A log that
// cannot be forgotten goes on.
func (j *journal) load(ctx context.Context) error {
	err := j.layout.db.View(func(tx *bolt.Tx) error {
		rec, err := readJournal(tx)
		j.publish(rec)
		return err
	})
	if err == nil {
		j.tend(ctx)
	}
	return err
}

// tend notes that somebody watches, now and then, and forgets the log when for long nobody has.
func (j *journal) tend(ctx context.Context) {
	if !j.due() {
		return
	}
	if err := j.layout.writer.commitAlways(ctx, change{hidden: true, write: j.review}); err != nil {
		j.layout.log.Warn("the log of events cannot be tended", "err", err)
	}
}

// due reports whether there is something for review to change, and was not a moment ago.
func (j *journal) due() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	rec := j.state
	if rec == nil || time.Since(j.tended) < tendEvery {
		return false
	}
	due := j.watchers > 0 && stale(rec.Watched) || j.pullers > 0 && stale(rec.Pulls) ||
		over(rec.Watched) || rec.Pulls != 0 && over(rec.Pulls)
	if due {
		j.tended = time.Now()
	}
	return due
}

// review is a transaction's write that brings the log's record up to date.
func (j *journal) review(tx *bolt.Tx, _ uint64) error {
	if j.rec == nil {
		return nil
	}
	j.stamp()
	if over(j.rec.Watched) {
		return j.forget(tx)
	}
	return j.save(tx)
}

func (j *journal) stamp() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.watchers > 0 {
		j.rec.Watched = now()
	}
	if j.pullers > 0 {
		j.rec.Pulls = now()
	} else if over(j.rec.Pulls) {
		j.rec.Pulls = 0
	}
}
