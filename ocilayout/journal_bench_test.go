package ocilayout

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// journalBench is a layout to which the same hundred small manifests are pushed again and again.
type journalBench struct {
	*testing.B
	layout *Layout
	repo   berth.Repository
	desc   v1.Descriptor
}

func newJournalBench(b *testing.B, dir string, mode Durability) *journalBench {
	b.Helper()
	j := &journalBench{B: b, layout: openBench(b, dir, mode)}
	j.repo = must(j.layout.Repository("app/small"))
	j.push(1, 100)
	j.desc = must(j.repo.Resolve(b.Context(), "v1"))
	return j
}

// push pushes n manifests, each with a tag, c at once.
func (j *journalBench) push(c, n int) time.Duration {
	return concurrently(j.B, c, n, func(i int) error {
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"n":"%d"}}`, v1.MediaTypeImageIndex, i%100)
		_, err := j.repo.PushManifest(j.Context(), raw, &berth.PushOptions{Tags: []string{fmt.Sprint("v", i%100)}})
		return err
	})
}

// watch begins to watch, and returns the position that it begins at.
func (j *journalBench) watch(opts *berth.WatchOptions) string {
	for e := range j.layout.Watch(j.Context(), opts) {
		return e.Position
	}
	return ""
}

// fill puts n events into the log.
func (j *journalBench) fill(n int) {
	err := j.layout.writer.commit(j.Context(), change{hidden: true, write: func(*bolt.Tx, uint64) error {
		for range n {
			j.layout.journal.note(berth.Event{Kind: berth.EventPush, Repository: j.repo.Name(), Descriptor: j.desc, Tags: []string{"v1"}})
		}
		return nil
	}})
	if err != nil {
		j.Fatal(err)
	}
}

// BenchmarkWatched pushes small manifests to a layout that is watched, and whose log is full. The floor is one
// that nobody watches.
func BenchmarkWatched(b *testing.B) {
	dir := scratch(b)
	for _, mode := range []Durability{Process, Power} {
		n := map[Durability]int{Process: 4000, Power: 400}[mode]
		for _, c := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/c=%d", mode, c), func(b *testing.B) {
				name := fmt.Sprint(mode, c)
				watched, plain := newJournalBench(b, filepath.Join(dir, name+"watched"), mode), newJournalBench(b, filepath.Join(dir, name), mode)
				watched.watch(nil)
				watched.fill(maxEvents)
				compare(b, func() time.Duration { return watched.push(c, n) }, func() time.Duration { return plain.push(c, n) })
			})
		}
	}
}

// BenchmarkPulled tells of pulls that somebody wants to know of, eight at once. The floor is a change of one entry.
func BenchmarkPulled(b *testing.B) {
	const n = 8000
	j := newJournalBench(b, filepath.Join(scratch(b), "layout"), Process)
	unwanted := concurrently(b, 8, n, func(int) error { return j.layout.Pulled(b.Context(), "app/small", j.desc, "v1") })
	j.watch(&berth.WatchOptions{Pulls: true})
	compare(b, func() time.Duration {
		return concurrently(b, 8, n, func(int) error { return j.layout.Pulled(b.Context(), "app/small", j.desc, "v1") })
	}, func() time.Duration {
		return concurrently(b, 8, n, func(int) error {
			return j.layout.writer.commit(b.Context(), change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
				return mark(tx, bucketUsed, key("app/small", string(j.desc.Digest)))
			}})
		})
	})
	b.ReportMetric(float64(unwanted.Nanoseconds())/n, "unwanted-ns")
}

// BenchmarkFollow reads a log that is full.
func BenchmarkFollow(b *testing.B) {
	j := newJournalBench(b, filepath.Join(scratch(b), "layout"), Process)
	j.watch(nil)
	j.fill(maxEvents)
	rec, _ := j.layout.journal.current()
	for b.Loop() {
		for e, err := range j.layout.Watch(b.Context(), after(rec.position(rec.First-1))) {
			if err != nil {
				b.Fatal(err)
			}
			if e.Position == rec.position(rec.Last) {
				break
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rec.Last+1-rec.First), "event-ns")
}
