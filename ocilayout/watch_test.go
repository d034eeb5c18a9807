package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// bookmark begins to watch, and returns the position from which on nothing is missed.
func bookmark(t *testing.T, l berth.Watcher, opts *berth.WatchOptions) string {
	t.Helper()
	for e, err := range l.Watch(t.Context(), opts) {
		if err != nil || e.Kind != berth.EventBookmark || e.Position == "" {
			t.Fatalf("a watch began with %+v, %v", e, err)
		}
		return e.Position
	}
	t.Fatal("a watch ended before it began")
	return ""
}

// follow returns all that has happened after a position, and the position that comes after it.
func follow(t *testing.T, l *Layout, opts *berth.WatchOptions) (events []berth.Event, last string) {
	t.Helper()
	end := bookmark(t, l, &berth.WatchOptions{Pulls: opts.Pulls})
	for e, err := range l.Watch(t.Context(), opts) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != berth.EventBookmark {
			events = append(events, e)
		}
		if last = e.Position; last == end {
			break
		}
	}
	return events, last
}

func after(position string) *berth.WatchOptions { return &berth.WatchOptions{After: position} }

// tellEvent is an event in one line: kind, repository, the beginning of the digest, tags.
func tellEvent(e berth.Event) string {
	line := string(e.Kind)
	if e.Repository != "" {
		line += " " + e.Repository + "@" + short(e.Descriptor.Digest)
	}
	for _, tag := range e.Tags {
		line += " " + tag
	}
	if e.GC != nil {
		line += fmt.Sprintf(" %+v", *e.GC)
	}
	return line
}

func short(d digest.Digest) string { return d.Encoded()[:6] }

func tellEvents(events []berth.Event) (lines []string) {
	for _, e := range events {
		lines = append(lines, tellEvent(e))
	}
	return lines
}

// wantEvents checks what has happened after a position, and returns the position after it.
func wantEvents(t *testing.T, l *Layout, opts *berth.WatchOptions, want ...string) string {
	t.Helper()
	events, last := follow(t, l, opts)
	if got := tellEvents(events); !slices.Equal(got, want) {
		t.Errorf("what happened was\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return last
}

// wantLost checks that what follows a position is not kept, and that a watch without one begins.
func wantLost(t *testing.T, l *Layout, opts *berth.WatchOptions) {
	t.Helper()
	n := 0
	for e, err := range l.Watch(t.Context(), opts) {
		if n++; !errors.Is(err, berth.ErrEventsLost) {
			t.Fatalf("after %s: got %+v, %v, want ErrEventsLost", opts.After, e, err)
		}
	}
	if n != 1 {
		t.Errorf("after %s: it ended with %d errors", opts.After, n)
	}
	bookmark(t, l, nil)
}

// pushIt names the event of a push.
func pushIt(repo string, d digest.Digest, tags ...string) string {
	return tellEvent(berth.Event{Kind: berth.EventPush, Repository: repo, Descriptor: v1.Descriptor{Digest: d}, Tags: tags})
}

func TestEveryChangeHasItsEvent(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	before := pushImage(t, r, "before", "old")
	at := bookmark(t, l, nil)
	one := pushImage(t, r, "one", "v1", "latest")
	pushImage(t, r, "one", "v1", "latest") // again
	at = wantEvents(t, l, after(at), pushIt("app/hello", one.desc.Digest, "v1", "latest"), pushIt("app/hello", one.desc.Digest, "v1", "latest"))
	pushTag(t, r, before.desc.Digest, "latest")
	if err := r.Untag(t.Context(), "v1", nil); err != nil {
		t.Fatal(err)
	}
	at = wantEvents(t, l, after(at), pushIt("app/hello", before.desc.Digest, "latest"), "untag app/hello@"+short(one.desc.Digest)+" v1")
	if err := errors.Join(r.DeleteManifest(t.Context(), before.desc.Digest), r.DeleteManifest(t.Context(), one.desc.Digest)); err != nil {
		t.Fatal(err)
	}
	if r.DeleteManifest(t.Context(), one.desc.Digest) == nil || r.Untag(t.Context(), "v1", nil) == nil {
		t.Error("what is gone was removed again")
	}
	_, err := r.PushManifest(t.Context(), imageOf(t, []string{"one", "never there"}), nil)
	if !errors.Is(err, berth.ErrManifestBlobUnknown) {
		t.Errorf("got %v", err)
	}
	wantEvents(t, l, after(at), "delete app/hello@"+short(before.desc.Digest)+" latest old", "delete app/hello@"+short(one.desc.Digest))
}

func TestWhatAnEventSays(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	at := bookmark(t, l, nil)
	img := pushImage(t, r, "one", "v1")
	signature := pushReferrer(t, r, img.desc)
	if err := errors.Join(r.Untag(t.Context(), "v1", nil), r.DeleteManifest(t.Context(), img.desc.Digest)); err != nil {
		t.Fatal(err)
	}
	events, _ := follow(t, l, after(at))
	types := []string{v1.MediaTypeImageConfig, "application/signature", "", ""}
	of := []v1.Descriptor{img.desc, signature, img.desc, img.desc}
	for i, e := range events {
		want := of[i]
		want.ArtifactType = types[i]
		if encoded := string(encode(t, e.Descriptor)); encoded != string(encode(t, want)) {
			t.Errorf("event %d is of %s, want %s", i, encoded, encode(t, want))
		}
		if e.Time.IsZero() || e.Time.Location().String() != "UTC" || i > 0 && e.Position == events[i-1].Position {
			t.Errorf("event %d: %+v", i, e)
		}
	}
}

// What a collection ends has its events, and the collection has one; what would be removed has none.
func TestACollectionHasItsEvents(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	old := pushImage(t, r, "old", "v1")
	pushImage(t, r, "new", "v2")
	at := bookmark(t, l, nil)
	opts := berth.GCOptions{DryRun: true, Grace: -1, Keep: []berth.KeepRule{{Repositories: "**", Newest: 1}}}
	collect(t, l, opts)
	opts.DryRun = false
	report := collect(t, l, opts)
	if report.Blobs != 2 {
		t.Errorf("report %+v", report)
	}
	d := short(old.desc.Digest)
	wantEvents(t, l, after(at), "untag app/hello@"+d+" v1", "delete app/hello@"+d,
		fmt.Sprintf("gc %+v", berth.GCSummary{Tags: 1, Manifests: 1, Blobs: 2, Bytes: report.Bytes}))
}

// What other programs do to index.json has events when it is taken in.
func TestEditsOfOthersHaveTheirEvents(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	one, two := pushImage(t, r, "one", "v1"), pushImage(t, r, "two", "v2")
	elsewhere := pushImage(t, repo(t, l, "other"), "three", "v3")
	flush(t, l)
	at := bookmark(t, l, nil)
	edit(t, dir, with("app:v9", elsewhere.desc))
	flush(t, l)
	at = wantEvents(t, l, after(at), pushIt("app", elsewhere.desc.Digest, "v9"))
	edit(t, dir, with("app:v1", two.desc))
	flush(t, l)
	at = wantEvents(t, l, after(at), "tag app@"+short(two.desc.Digest)+" v1")
	edit(t, dir, without("app:v2"))
	flush(t, l)
	flush(t, l)
	at = wantEvents(t, l, after(at), "untag app@"+short(two.desc.Digest)+" v2")
	edit(t, dir, with("app:v0", missing("x")))
	flush(t, l)
	wantEvents(t, l, after(at))
	if got := resolves(t, l, "app", string(one.desc.Digest)); got != one.desc.Digest {
		t.Errorf("what was left without a tag is %s", got)
	}
}

// An index that comes from outside brings its children, before it.
func TestAnIndexFromOutsideBringsItsChildren(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	child := pushImage(t, r, "one")
	index := pushIndex(t, r, "v1", child.desc)
	flush(t, l)
	at := bookmark(t, l, nil)
	edit(t, dir, with("other:v1", index))
	flush(t, l)
	wantEvents(t, l, after(at), pushIt("other", child.desc.Digest), pushIt("other", index.Digest, "v1"))
}

func TestACheckoutHasItsEvents(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	one, two := pushImage(t, r, "one", "v1"), pushImage(t, r, "two", "v2")
	end := checkout(t, l)
	at := bookmark(t, l, nil) // also while nobody may write
	edit(t, dir, without("app:v1"))
	gcOutside(t, dir)
	end()
	events, _ := follow(t, l, after(at))
	want := []string{"untag app@" + short(one.desc.Digest) + " v1", "delete app@" + short(one.desc.Digest)}
	if got := tellEvents(events); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	wantImage(t, l, "app", "v2", two)
}

// A repair that drops a tag which points at nothing has an event.
func TestARepairHasItsEvent(t *testing.T) {
	l := open(t, t.TempDir())
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	err := l.writer.commit(t.Context(), change{write: func(tx *bolt.Tx, _ uint64) error {
		return remove(tx, bucketManifests, key("app", string(img.desc.Digest)))
	}})
	if err != nil {
		t.Fatal(err)
	}
	at := bookmark(t, l, nil)
	fsck(t, l, true)
	wantEvents(t, l, after(at), "untag app@"+short(img.desc.Digest)+" v1")
}

// Thousands of tags at once are told by several events, so that none is large.
func TestManyTagsAreSeveralEvents(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app")
	at := bookmark(t, l, nil)
	var tags []string
	for i := range 2*maxEventTags + 1 {
		tags = append(tags, fmt.Sprintf("v%04d", i))
	}
	img := pushImage(t, r, "one", tags...)
	if err := r.DeleteManifest(t.Context(), img.desc.Digest); err != nil {
		t.Fatal(err)
	}
	events, _ := follow(t, l, after(at))
	kinds := []berth.EventKind{berth.EventPush, berth.EventTag, berth.EventTag, berth.EventUntag, berth.EventUntag, berth.EventDelete}
	var told []string
	for i, e := range events {
		if i >= len(kinds) || e.Kind != kinds[i] || e.Descriptor.Digest != img.desc.Digest {
			t.Fatalf("event %d is %s of %d tags", i, e.Kind, len(e.Tags))
		}
		told = append(told, e.Tags...)
	}
	if !slices.Equal(told, append(tags, tags...)) {
		t.Errorf("%d events told %d tags", len(events), len(told))
	}
}

// What ends a watch can be told apart: the context, the registry, and the consumer itself.
func TestWhatEndsAWatch(t *testing.T) {
	l := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range l.Watch(ctx, nil) {
		last = err
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("the context ended and the watch said %v", last)
	}
	waiting, ended := make(chan struct{}), make(chan []error)
	go func() {
		var errs []error
		for _, err := range l.Watch(t.Context(), nil) {
			errs = append(errs, err)
			close(waiting)
		}
		ended <- errs
	}()
	<-waiting
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if errs := <-ended; len(errs) != 1 || errs[0] != nil {
		t.Errorf("the layout was closed and the watch said %v", errs)
	}
	for e, err := range l.Watch(t.Context(), nil) {
		t.Errorf("a layout that is closed says %+v, %v", e, err)
	}
	for _, err := range l.Watch(ctx, nil) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("where the context has ended: %v", err)
		}
	}
	if l.journal.watchers != 0 || l.journal.pullers != 0 {
		t.Errorf("%d watchers are left", l.journal.watchers)
	}
}

// A consumer may take its time, and may ask and change the registry from inside its loop.
func TestASlowConsumerHoldsNobodyUp(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v0")
	const n = 2*pageSize + 10
	var got []string
	for e, err := range l.Watch(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == berth.EventBookmark {
			for i := range n {
				pushTag(t, r, img.desc.Digest, fmt.Sprint("v", i))
			}
			continue
		}
		if got = append(got, e.Tags...); len(got) == n {
			break
		}
	}
	for i, tag := range got {
		if tag != fmt.Sprint("v", i) {
			t.Fatalf("event %d is of %s", i, tag)
		}
	}
}

// retag is pushTag for any goroutine.
func retag(ctx context.Context, r berth.Repository, d digest.Digest, tag string) error {
	m, err := r.FetchManifest(ctx, string(d), nil)
	if err == nil {
		_, err = r.PushManifest(ctx, m.Raw, &berth.PushOptions{Tags: []string{tag}})
	}
	return err
}

// Any number of consumers see the same, in the same order, and each change once, while eight push.
func TestManyConsumersSeeTheSame(t *testing.T) {
	const consumers, pushers, each = 40, 8, 50
	l := open(t, t.TempDir())
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v0")
	at := bookmark(t, l, nil)
	seen := make([][]string, consumers)
	var all sync.WaitGroup
	for i := range consumers {
		all.Go(func() {
			for e, err := range l.Watch(t.Context(), after(at)) {
				if err != nil {
					t.Error(err)
					return
				}
				if seen[i] = append(seen[i], e.Tags...); len(seen[i]) == pushers*each {
					return
				}
			}
		})
	}
	for p := range pushers {
		all.Go(func() {
			for i := range each {
				if err := retag(t.Context(), r, img.desc.Digest, fmt.Sprintf("p%d-%d", p, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for i := range consumers {
		if !slices.Equal(seen[i], seen[0]) {
			t.Errorf("consumer %d saw something else", i)
		}
	}
	next := map[string]int{}
	for _, tag := range seen[0] {
		p, n, _ := strings.Cut(tag, "-")
		if n != fmt.Sprint(next[p]) {
			t.Errorf("%s came after %d others of its pusher", tag, next[p])
		}
		next[p]++
	}
}

// Who gets a position, lists, and then follows, comes to know all that is there, whatever happens meanwhile.
func TestListAndFollow(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app")
	images := []image{pushImage(t, r, "one", "v0"), pushImage(t, r, "two", "v1")}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 60 {
				tag := fmt.Sprint("v", (w*7+i*3)%20)
				if err := retag(t.Context(), r, images[i%2].desc.Digest, tag); err != nil {
					t.Error(err)
				}
				if i%3 > 0 {
					continue
				}
				if err := r.Untag(t.Context(), tag, nil); err != nil && !errors.Is(err, berth.ErrManifestUnknown) {
					t.Error(err)
				}
			}
		})
	}
	at := bookmark(t, l, nil)
	known := listTags(t, r)
	writers.Wait()
	events, _ := follow(t, l, after(at))
	for _, e := range events {
		for _, tag := range e.Tags {
			if known[tag] = e.Descriptor.Digest; e.Kind == berth.EventUntag {
				delete(known, tag)
			}
		}
	}
	if there := listTags(t, r); !maps.Equal(known, there) {
		t.Errorf("who followed knows %v, and there is %v", known, there)
	}
}

func listTags(t *testing.T, r berth.Repository) map[string]digest.Digest {
	t.Helper()
	all := map[string]digest.Digest{}
	for tag, err := range r.Tags(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		desc, err := r.Resolve(t.Context(), tag)
		if err == nil {
			all[tag] = desc.Digest
		} else if !errors.Is(err, berth.ErrManifestUnknown) {
			t.Fatal(err)
		}
	}
	return all
}

// An event has the descriptor under which clients know the manifest, also where that is of another file than
// the digest.
func TestTheEventsOfASignedManifest(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	at := bookmark(t, l, nil)
	m := signedManifest(t, r, "v1")
	pushSigned(t, r, m, "v1")
	want := encode(t, must(r.Resolve(t.Context(), "v1")))
	if err := errors.Join(r.Untag(t.Context(), "v1", nil), r.DeleteManifest(t.Context(), m.Digest())); err != nil {
		t.Fatal(err)
	}
	events, _ := follow(t, l, after(at))
	for _, e := range events {
		if got := encode(t, e.Descriptor); string(got) != string(want) {
			t.Errorf("%s: got %s, want %s", e.Kind, got, want)
		}
	}
	if len(events) != 3 {
		t.Errorf("got %q", tellEvents(events))
	}
}
