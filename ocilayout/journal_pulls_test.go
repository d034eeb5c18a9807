package ocilayout

import (
	"slices"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

func pullsAfter(position string) *berth.WatchOptions {
	return &berth.WatchOptions{After: position, Pulls: true}
}

// Pulls are kept where somebody asked for them, and told to who asks.
func TestPulls(t *testing.T) {
	l := open(t, t.TempDir())
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	pull := func(tag string) {
		t.Helper()
		if err := l.Pulled(t.Context(), "app", img.desc, tag); err != nil {
			t.Fatal(err)
		}
	}
	early := bookmark(t, l, nil)
	pull("v1")
	if n := countEvents(t, l); n != 0 {
		t.Errorf("%d pulls were kept that nobody wants to know of", n)
	}
	at := bookmark(t, l, pullsAfter(""))
	pull("v1")
	pull("")
	name := "pull app@" + short(img.desc.Digest)
	wantEvents(t, l, pullsAfter(at), name+" v1", name)
	wantEvents(t, l, after(at))
	wantEvents(t, l, after(early))
	wantLost(t, l, pullsAfter(early))
	events, _ := follow(t, l, pullsAfter(at))
	if got := encode(t, events[0].Descriptor); string(got) != string(encode(t, manifest.Descriptor(v1.MediaTypeImageManifest, must(repo(t, l, "app").FetchManifest(t.Context(), "v1", nil)).Raw))) {
		t.Errorf("the descriptor is %s", got)
	}
}

// Where nobody has asked for pulls for a day they are not kept any more, and a position from before is good for
// the rest alone: also where nothing else has happened.
func TestPullsAreForgotten(t *testing.T) {
	l := open(t, t.TempDir())
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	at := bookmark(t, l, pullsAfter(""))
	alterJournal(t, l, func(rec *journalRecord) { rec.Pulls = long(2 * keptFor) })
	reviewJournal(t, l)
	if l.journal.pulls.Load() {
		t.Error("pulls are still wanted")
	}
	if err := l.Pulled(t.Context(), "app", img.desc, "v1"); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, after(at))
	wantLost(t, l, pullsAfter(at))
	wantEvents(t, l, pullsAfter(bookmark(t, l, pullsAfter(""))))
}

// Who did not ask for pulls is told now and then how far it has come among them, so that its position does not
// grow too old.
func TestBookmarksAmongPulls(t *testing.T) {
	l := open(t, t.TempDir())
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	at := bookmark(t, l, pullsAfter(""))
	l.writer.commitAlways(t.Context(), change{hidden: true, write: func(*bolt.Tx, uint64) error {
		for range 2*bookmarkEvery + 1 {
			l.journal.note(berth.Event{Kind: berth.EventPull, Repository: "app"})
		}
		return nil
	}})
	pushTag(t, repo(t, l, "app"), img.desc.Digest, "v2")
	var kinds []berth.EventKind
	for e, err := range l.Watch(t.Context(), after(at)) {
		if kinds = append(kinds, e.Kind); err != nil || e.Kind == berth.EventPush {
			break
		}
	}
	if want := []berth.EventKind{berth.EventBookmark, berth.EventBookmark, berth.EventBookmark, berth.EventPush}; !slices.Equal(kinds, want) {
		t.Errorf("got %q", kinds)
	}
}

// Pulls go on while another program has the directory, and are told.
func TestPullsDuringACheckout(t *testing.T) {
	l := open(t, t.TempDir())
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	at := bookmark(t, l, pullsAfter(""))
	end := checkout(t, l)
	defer end()
	if err := l.Pulled(t.Context(), "app", img.desc, "v1"); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, l, pullsAfter(at), "pull app@"+short(img.desc.Digest)+" v1")
}
