package ocilayout

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

const (
	// maxEvents and maxEventBytes bound what the log keeps.
	maxEvents     = 64 << 10
	maxEventBytes = 16 << 20
	// maxEventTags is how many tags one event has. Who sets or removes more makes several.
	maxEventTags = 256
	// logFill is how full the pages of the log are made: it only grows at one end.
	logFill = 0.95
)

// bucketEvents is there while there is a log. A key is the event's number, in 8 bytes, the most significant
// first; numbers begin at 1 and leave none out. A value is a [berth.Event] without its position.
var bucketEvents = []byte("events")

var metaJournal = []byte("journal") // journalRecord, while there is a log

// journalRecord is what is known of the log. It changes in the transactions that the log changes in.
type journalRecord struct {
	// Log is the random id that tells positions in this log from those in another.
	Log string `json:"log"`
	// First and Last are the numbers of the events that are kept; First is Last + 1 where none is.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Bytes is how long their values are together.
	Bytes int64 `json:"bytes"`
	// Watched is when somebody last watched, and Pulls when somebody last watched who had asked for pulls;
	// zero: nobody has, for long. Seconds since 1970, give or take stampEvery.
	Watched int64 `json:"watched"`
	Pulls   int64 `json:"pulls,omitempty"`
	// PullsFrom is the number after which no pull is missing, while Pulls is not zero.
	PullsFrom uint64 `json:"pullsFrom,omitempty"`
}

// follows reports whether all that came after an event is kept.
func (r *journalRecord) follows(n uint64) bool { return r != nil && n+1 >= r.First && n <= r.Last }

// position is that of an event.
func (r *journalRecord) position(n uint64) string { return r.Log + "-" + strconv.FormatUint(n, 10) }

// number is the inverse of position; it fails for a position in another log.
func (r *journalRecord) number(position string) (n uint64, ok bool) {
	log, number, _ := strings.Cut(position, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	return n, err == nil && r != nil && log == r.Log
}

func readJournal(tx *bolt.Tx) (*journalRecord, error) {
	rec := &journalRecord{}
	found, err := get(tx, bucketMeta, metaJournal, rec)
	if err != nil || !found {
		return nil, err
	}
	if tx.Bucket(bucketEvents) == nil {
		return nil, fmt.Errorf("%w: its log is missing", errDamaged)
	}
	return rec, nil
}

// journal is the log of what happens to the layout, as far as somebody watches. An event is written in the
// transaction that makes the change; where there is no log, nothing is.
type journal struct {
	layout *Layout
	// most and mostBytes are the constants maxEvents and maxEventBytes. Tests change them.
	most      uint64
	mostBytes int64
	pulls     atomic.Bool // somebody wants to know of pulls

	// rec and batch belong to the writer: the log as its transaction has it, or nil, and the events that will
	// be added to it.
	rec   *journalRecord
	batch []berth.Event

	mu       sync.Mutex     // guards the fields below
	state    *journalRecord // after the last commit; not to be changed
	watchers int            // who watch at this moment
	pullers  int            // those of them that asked for pulls
	news     chan struct{}  // closed when state has changed
	tended   time.Time      // when tend last tried
}

func newJournal(l *Layout) *journal {
	return &journal{layout: l, most: maxEvents, mostBytes: maxEventBytes, news: make(chan struct{})}
}

// begin begins a transaction.
func (j *journal) begin(tx *bolt.Tx) (err error) {
	j.batch = nil
	j.rec, err = readJournal(tx)
	return err
}

// note adds an event to the transaction, if there is a log.
func (j *journal) note(e berth.Event) {
	if j.rec == nil {
		return
	}
	for len(e.Tags) > maxEventTags {
		part, rest := e, e
		part.Tags, rest.Tags = e.Tags[:maxEventTags], e.Tags[maxEventTags:]
		switch e.Kind {
		case berth.EventPush:
			rest.Kind = berth.EventTag // which the manifest has when it is there
		case berth.EventDelete:
			part.Kind = berth.EventUntag // before it is gone
		}
		j.batch = append(j.batch, part)
		e = rest
	}
	j.batch = append(j.batch, e)
}

// write writes what was noted, and lets go of the oldest events where there are too many.
func (j *journal) write(tx *bolt.Tx) error {
	if len(j.batch) == 0 || j.rec == nil {
		return nil
	}
	log, at := tx.Bucket(bucketEvents), time.Now().UTC()
	log.FillPercent = logFill
	for _, e := range j.batch {
		e.Time = at
		if err := j.add(tx, e); err != nil {
			return err
		}
	}
	if err := j.trim(log); err != nil {
		return err
	}
	return j.save(tx)
}

func (j *journal) add(tx *bolt.Tx, e berth.Event) error {
	j.rec.Last++
	k := eventKey(j.rec.Last)
	if err := put(tx, bucketEvents, k, e); err != nil {
		return err
	}
	j.rec.Bytes += int64(len(tx.Bucket(bucketEvents).Get(k)))
	return nil
}

// trim removes more than it must: what it changes lies at the other end of the file, and is changed the
// less often.
func (j *journal) trim(log *bolt.Bucket) error {
	if j.kept() <= j.most && j.rec.Bytes <= j.mostBytes {
		return nil
	}
	const share = 256
	for j.kept() > j.most-j.most/share || j.rec.Bytes > j.mostBytes-j.mostBytes/share && j.kept() > 0 {
		k := eventKey(j.rec.First)
		j.rec.Bytes -= int64(len(log.Get(k)))
		if err := log.Delete(k); err != nil {
			return err
		}
		j.rec.First++
	}
	return nil
}

func (j *journal) kept() uint64 { return j.rec.Last + 1 - j.rec.First }

func (j *journal) save(tx *bolt.Tx) error { return put(tx, bucketMeta, metaJournal, j.rec) }

// create begins a log.
func (j *journal) create(tx *bolt.Tx) error {
	j.rec = &journalRecord{Log: rand.Text(), First: 1}
	_, err := tx.CreateBucket(bucketEvents)
	return err
}

// forget ends the log, if there is one. What was noted in the same transaction is nobody's any more.
func (j *journal) forget(tx *bolt.Tx) error {
	if j.rec == nil {
		return nil
	}
	j.rec, j.batch = nil, nil
	if err := tx.DeleteBucket(bucketEvents); err != nil {
		return err
	}
	return remove(tx, bucketMeta, metaJournal)
}

// publish tells those who wait what the log is after a commit, or nil.
func (j *journal) publish(rec *journalRecord) {
	j.mu.Lock()
	defer j.mu.Unlock()
	told := j.state
	j.state = rec
	j.pulls.Store(rec != nil && rec.Pulls != 0)
	if told != nil && (rec == nil || rec.Log != told.Log || rec.Last != told.Last) {
		close(j.news)
		j.news = make(chan struct{})
	}
}

// current returns what the log is, or nil, and what is closed when that has changed.
func (j *journal) current() (*journalRecord, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state, j.news
}

func eventKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
