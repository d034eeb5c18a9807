package ocilayout

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// countEvents counts what the log holds, and checks it against its record.
func countEvents(t *testing.T, l *Layout) (n int) {
	t.Helper()
	err := l.db.View(func(tx *bolt.Tx) error {
		log := tx.Bucket(bucketEvents)
		rec, err := readJournal(tx)
		if err != nil || rec == nil {
			if log != nil {
				t.Error("there is a log without a record")
			}
			return err
		}
		size := int64(0)
		err = log.ForEach(func(k, v []byte) error {
			if want := eventKey(rec.First + uint64(n)); string(k) != string(want) {
				t.Errorf("event %d has key %x, want %x", n, k, want)
			}
			n++
			size += int64(len(v))
			return nil
		})
		if rec.Last+1-rec.First != uint64(n) || rec.Bytes != size {
			t.Errorf("the log has %d events, %d bytes; its record says %+v", n, size, rec)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// alterJournal changes the record of the log as time would.
func alterJournal(t *testing.T, l *Layout, alter func(*journalRecord)) {
	t.Helper()
	err := l.writer.commit(t.Context(), change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
		alter(l.journal.rec)
		return l.journal.save(tx)
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// reviewJournal does at once what the layout does now and then.
func reviewJournal(t *testing.T, l *Layout) {
	t.Helper()
	if err := l.writer.commit(t.Context(), change{hidden: true, write: l.journal.review}); err != nil {
		t.Fatal(err)
	}
}

func long(ago time.Duration) int64 { return time.Now().Add(-ago).Unix() }

func TestAWatchGoesOnAfterARestart(t *testing.T) {
	for _, d := range []Durability{Process, Power} {
		dir := t.TempDir()
		opts := &Options{Durability: d}
		l := openWith(t, dir, opts)
		at := bookmark(t, l, nil)
		var want []string
		for i := range 3 {
			img := pushImage(t, repo(t, l, "app"), fmt.Sprint("layer ", i), "latest")
			want = append(want, pushIt("app", img.desc.Digest, "latest"))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = openWith(t, dir, opts)
		}
		last := wantEvents(t, l, after(at), want...)
		edit(t, dir, without("app:latest"))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openWith(t, dir, opts)
		if events, _ := follow(t, l, after(last)); len(events) != 1 || events[0].Kind != berth.EventUntag {
			t.Errorf("%s: what was taken out at rest gave %q", d, tellEvents(events))
		}
	}
}

// pushWithoutEnd is a program that pushes to a layout, and tells each tag that was answered, until it is killed.
func pushWithoutEnd(dir string) error {
	l, err := Open(context.Background(), dir, nil)
	if err != nil {
		return err
	}
	r, err := l.Repository("app")
	for i := 0; err == nil; i++ {
		tag := fmt.Sprint("v", i)
		if err = pushSmall(context.Background(), r, tag); err == nil {
			fmt.Println(tag)
		}
	}
	return err
}

func TestWhatWasAnsweredBeforeAKillHasItsEvent(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	at := bookmark(t, l, nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	answered := killPushing(t, dir, 50)
	l = open(t, dir)
	events, last := follow(t, l, after(at))
	var got []string
	for _, e := range events {
		got = append(got, e.Tags...)
	}
	if len(got) < len(answered) || len(got) > len(answered)+1 || !slices.Equal(got[:len(answered)], answered) {
		t.Errorf("answered were %q, told %q", answered, got)
	}
	if there := listTags(t, repo(t, l, "app")); len(there) != len(got) {
		t.Errorf("there are %d tags, and %d were told", len(there), len(got))
	}
	wantEvents(t, l, after(last))
}

// killPushing lets a program push, kills it after some answers, and returns all that it has told.
func killPushing(t *testing.T, dir string, n int) (answered []string) {
	t.Helper()
	cmd, out := startChild(t, pushingVariable, dir)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if answered = append(answered, lines.Text()); len(answered) == n {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if len(answered) < n {
		t.Fatalf("the child told %q", answered)
	}
	return answered
}

// The log keeps so many events, or so many bytes; who comes too late is told.
func TestTheLogIsBounded(t *testing.T) {
	l := open(t, t.TempDir())
	l.journal.most = 8
	r := repo(t, l, "app")
	at := bookmark(t, l, nil)
	img := pushImage(t, r, "one", "v0")
	early := wantEvents(t, l, after(at), pushIt("app", img.desc.Digest, "v0"))
	for i := range 8 {
		pushTag(t, r, img.desc.Digest, fmt.Sprint("v", i))
	}
	if n := countEvents(t, l); n != 8 {
		t.Errorf("%d events are kept", n)
	}
	if events, _ := follow(t, l, after(early)); len(events) != 8 {
		t.Errorf("what is all kept gave %q", tellEvents(events))
	}
	wantLost(t, l, after(at))
	pushTag(t, r, img.desc.Digest, "v9")
	wantLost(t, l, after(early))
	l.journal.most, l.journal.mostBytes = maxEvents, 2000
	for i := range 50 {
		pushTag(t, r, img.desc.Digest, fmt.Sprint("w", i))
	}
	if n := countEvents(t, l); n < 2 || n > 20 {
		t.Errorf("%d events are kept", n)
	}
	l.journal.mostBytes = 1
	pushTag(t, r, img.desc.Digest, "x")
	if n := countEvents(t, l); n != 0 {
		t.Errorf("%d events are kept where there is room for none", n)
	}
	pushTag(t, r, img.desc.Digest, "y")
	countEvents(t, l)
}

// A consumer that is overtaken while it is busy is told so, and can begin again.
func TestAConsumerThatIsOvertaken(t *testing.T) {
	l := open(t, t.TempDir())
	l.journal.most = 4
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v0")
	var last error
	for e, err := range l.Watch(t.Context(), nil) {
		if last = err; e.Kind == berth.EventBookmark {
			for i := range 6 {
				pushTag(t, r, img.desc.Digest, fmt.Sprint("v", i))
			}
		}
	}
	if !errors.Is(last, berth.ErrEventsLost) {
		t.Errorf("got %v", last)
	}
}

// A layout that nobody watches has no log, and commits what it did without one.
func TestNothingIsWrittenWhereNobodyWatches(t *testing.T) {
	var commits atomic.Int64
	l := openWith(t, t.TempDir(), &Options{fault: func(op durable.Op, _ string) error {
		if op == opCommit {
			commits.Add(1)
		}
		return nil
	}})
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v1")
	flush(t, l)
	before := commits.Load()
	for range 100 {
		if err := l.Pulled(t.Context(), "app", img.desc, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.journal.collected(t.Context(), berth.GCReport{}); err != nil {
		t.Fatal(err)
	}
	l.journal.tend(t.Context())
	if made := commits.Load() - before; made != 0 {
		t.Errorf("%d commits were made for nobody", made)
	}
	if err := r.Untag(t.Context(), "v1", nil); err != nil {
		t.Fatal(err)
	}
	collect(t, l, berth.GCOptions{})
	if err := l.db.View(func(tx *bolt.Tx) error {
		if has(tx, bucketMeta, metaJournal) || tx.Bucket(bucketEvents) != nil {
			t.Error("there is a log")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Attaching again and again writes nothing: that somebody watches is noted now and then.
func TestAWatchThatIsNotTheFirstWritesNothing(t *testing.T) {
	var commits atomic.Int64
	l := openWith(t, t.TempDir(), &Options{fault: func(op durable.Op, _ string) error {
		if op == opCommit {
			commits.Add(1)
		}
		return nil
	}})
	flush(t, l)
	at := bookmark(t, l, &berth.WatchOptions{Pulls: true})
	before := commits.Load()
	for range 20 {
		bookmark(t, l, nil)
		bookmark(t, l, after(at))
		bookmark(t, l, &berth.WatchOptions{After: at, Pulls: true})
	}
	if made := commits.Load() - before; made != 0 {
		t.Errorf("%d commits were made", made)
	}
	alterJournal(t, l, func(rec *journalRecord) { rec.Watched = long(2 * stampEvery) })
	bookmark(t, l, nil)
	if rec, _ := l.journal.current(); stale(rec.Watched) {
		t.Error("that somebody watches was not noted")
	}
}

// A log that nobody has watched for a day is forgotten, at the next start or while the layout is open; not one
// that somebody watches.
func TestTheLogIsForgotten(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	at := bookmark(t, l, nil)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	for range l.Watch(t.Context(), nil) {
		alterJournal(t, l, func(rec *journalRecord) { rec.Watched = long(3 * keptFor) })
		reviewJournal(t, l)
		break
	}
	if rec, _ := l.journal.current(); rec == nil || stale(rec.Watched) {
		t.Fatalf("it was watched, and is %+v", rec)
	}
	if events, _ := follow(t, l, after(at)); len(events) != 1 {
		t.Errorf("got %q", tellEvents(events))
	}
	alterJournal(t, l, func(rec *journalRecord) { rec.Watched = long(keptFor - stampEvery) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if n := countEvents(t, l); n != 1 {
		t.Errorf("a log that is not a day old has %d events", n)
	}
	alterJournal(t, l, func(rec *journalRecord) { rec.Watched = long(2 * keptFor) })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	if rec, _ := l.journal.current(); rec != nil || countEvents(t, l) != 0 {
		t.Errorf("left is %+v", rec)
	}
	wantLost(t, l, after(at))
	wantEvents(t, l, after(bookmark(t, l, nil)))
}

// That somebody watches is noted when the note is an hour old, and what nobody has watched for a day is to go;
// also by a clock that was set back.
func TestWhenTheLogIsTended(t *testing.T) {
	fresh, old, day, ahead := long(0), long(2*stampEvery), long(2*keptFor), long(-2*keptFor)
	for _, tt := range []struct {
		watchers, pullers int
		rec               *journalRecord
		want              bool
	}{
		{1, 1, nil, false},
		{0, 0, &journalRecord{Watched: fresh}, false},
		{0, 0, &journalRecord{Watched: old}, false},
		{1, 0, &journalRecord{Watched: fresh, Pulls: fresh}, false},
		{1, 0, &journalRecord{Watched: old}, true},
		{1, 0, &journalRecord{Watched: ahead}, true},
		{1, 0, &journalRecord{Watched: fresh, Pulls: old}, false},
		{1, 1, &journalRecord{Watched: fresh, Pulls: old}, true},
		{0, 0, &journalRecord{Watched: day}, true},
		{0, 0, &journalRecord{Watched: ahead}, true},
		{0, 0, &journalRecord{Watched: fresh, Pulls: day}, true},
	} {
		j := newJournal(nil)
		j.publish(tt.rec)
		j.watchers, j.pullers = tt.watchers, tt.pullers
		if j.due() != tt.want {
			t.Errorf("%d watchers, %d with pulls, %+v: want %v", tt.watchers, tt.pullers, tt.rec, tt.want)
		}
		if j.due() {
			t.Error("it is due again at once")
		}
	}
}

// Positions are good for the log that they are of, and for no other.
func TestPositionsOfAnotherLog(t *testing.T) {
	dir := t.TempDir()
	l := openWith(t, dir, &Options{Durability: Power})
	at := bookmark(t, l, nil)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	rec, _ := l.journal.current()
	for _, position := range []string{"x", rec.Log, rec.Log + "-", rec.Log + "--1", rec.position(rec.Last + 1), "x-0", strings.Repeat("x", 1000), rec.Log + "-99999999999999999999999"} {
		wantLost(t, l, after(position))
	}
	wantLost(t, openWith(t, crash(t, dir), &Options{Durability: Power}), after(at)) // a copy
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openWith(t, dir, &Options{Rebuild: true})
	if n := countEvents(t, l); n != 0 {
		t.Errorf("making the index anew gave %d events", n)
	}
	wantLost(t, l, after(at))
}

// A change that could not be committed has no event; one that was, although it was answered with an error,
// has one, after what comes next at the latest.
func TestAFailedCommitAndTheLog(t *testing.T) {
	l, faults := openFaulty(t, t.TempDir(), Power)
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v1")
	at := bookmark(t, l, nil)
	for _, late := range []bool{false, true} {
		faults.set(func(op durable.Op, _ string) error {
			if op != opCommit {
				return nil
			}
			if late {
				return &durable.Late{Err: errFault}
			}
			return errFault
		})
		if err := r.Untag(t.Context(), "v1", nil); !errors.Is(err, errFault) {
			t.Errorf("got %v", err)
		}
		if now := bookmark(t, l, nil); now != at {
			t.Errorf("late %v: a commit that has failed was told of", late)
		}
		faults.clear()
		pushTag(t, r, img.desc.Digest, "v2")
		want := []string{pushIt("app", img.desc.Digest, "v2")}
		if late {
			want = append([]string{"untag app@" + short(img.desc.Digest) + " v1"}, want...)
		}
		at = wantEvents(t, l, after(at), want...)
		countEvents(t, l)
	}
}
