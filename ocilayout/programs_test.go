package ocilayout

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// These are about other programs that write index.json: one after the other, in odd ways, and things that
// are not for berth.

// A copy of a layout (cp -a) goes its own way. Its images are brought back as rsync of blobs/ and index.json does:
// they come, and nothing of the original goes.
func TestACopyGoesItsOwnWay(t *testing.T) {
	for name, more := range map[string]int{"the copy is ahead": 5, "the copy is behind": 1} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir)
			pushImage(t, repo(t, l, "app"), "base", "base")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			copied := crash(t, dir)
			l = open(t, dir)
			mine := pushImage(t, repo(t, l, "app"), "mine", "mine")
			if more == 1 {
				for i := range 5 {
					pushImage(t, repo(t, l, "app"), "mine", string(rune('a'+i)))
				}
			}
			flush(t, l)
			other := open(t, copied)
			var theirs image
			for i := range more {
				theirs = pushImage(t, repo(t, other, "app"), "theirs", "theirs", "t"+string(rune('a'+i)))
			}
			flush(t, other)
			bringBlobs(t, dir, copied)
			data, err := os.ReadFile(filepath.Join(copied, "index.json"))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			flush(t, l)
			wantImage(t, l, "app", "mine", mine)
			wantImage(t, l, "app", "theirs", theirs)
		})
	}
}

// bringBlobs copies the blobs that a layout has not.
func bringBlobs(t *testing.T, dir, from string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(from, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "blobs/sha256", filepath.Base(file)), content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A program that writes its JSON as berth does (Go, image-spec's types, compact) and changes only the
// annotations of the index.
func TestAnEditOfTheAnnotationsAlone(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	pushImage(t, r, "one", "v1")
	flush(t, l)
	index := readIndex(t, dir)
	index.Annotations["com.example.of-the-index"] = "a"
	writeIndex(t, dir, index) // compact, manifests byte for byte
	flush(t, l)
	pushImage(t, r, "two", "v2")
	flush(t, l)
	if got := readIndex(t, dir).Annotations["com.example.of-the-index"]; got != "a" {
		t.Errorf("the annotation is %q", got)
	}
}

// Another program points a tag at a manifest that is there, of a type that berth does not know.
func TestATagMovesToWhatIsNotUnderstood(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	pushImage(t, r, "one", "v1")
	flush(t, l)
	raw := `{"schemaVersion":2,"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}`
	d := digest.FromString(raw)
	if err := os.WriteFile(filepath.Join(dir, blobPath(d)), []byte(raw), 0o644); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, with("app:v1", v1.Descriptor{MediaType: "application/vnd.oci.artifact.manifest.v1+json", Digest: d, Size: int64(len(raw))}))
	flush(t, l)
	found := false
	for _, desc := range readIndex(t, dir).Manifests {
		found = found || desc.Digest == d
	}
	if !found {
		t.Error("the entry of the other program is not in index.json any more: its write was undone")
	}
	// Any edit of any program then ends the entry, and a collection its bytes.
	edit(t, dir, func(*v1.Index) {})
	flush(t, l)
	l.outsideGrace = 0
	collect(t, l, berth.GCOptions{})
	wantFile(t, dir, d, true)
}

// Of two entries of one name the first leads nowhere (its blob was collected), the second is good.
func TestTheGoodOneOfTwoEntriesOfOneName(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app"), "one", "v0")
	flush(t, l)
	edit(t, dir, func(index *v1.Index) {
		good := img.desc
		good.Annotations = map[string]string{v1.AnnotationRefName: "app:v1"}
		index.Manifests = append(index.Manifests, missing("app:v1"), good)
	})
	flush(t, l)
	wantImage(t, l, "app", "v1", img)
}

// An entry of index.json may be nested as deep as can be read. It is kept, and stops nobody.
func TestADeepEntry(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v1")
	flush(t, l)
	index := readIndex(t, dir)
	const levels = 9990
	all := []json.RawMessage{json.RawMessage(`{"mediaType":"x","digest":"no","x":` + strings.Repeat("[", levels) + strings.Repeat("]", levels) + `}`)}
	for _, m := range index.Manifests {
		all = append(all, encode(t, m))
	}
	data := encode(t, map[string]any{"schemaVersion": 2, "annotations": index.Annotations, "manifests": all})
	if err := os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	pushImage(t, r, "two", "v2")
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir)
		wantImage(t, l, "app", "v1", img)
		flush(t, l)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "index.json")); err != nil || !strings.Contains(string(data), "[[[[") {
		t.Errorf("the entry is gone: %v", err)
	}
}

// A tag that another program added was merged, removed here, and the removal flushed. The file of the
// other program still lies in ingest/ for ten seconds when the power goes, or the process is killed.
func TestAMergedFileIsNotMergedAgain(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v1")
	flush(t, l)
	edit(t, dir, with("app:added", img.desc))
	edit(t, dir, with("app:Not Understood", missing("x")))
	flush(t, l)
	wantNames(t, dir, "app:v1", "app:added", "app:Not Understood")
	if err := r.Untag(t.Context(), "added", nil); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	edit(t, dir, without("app:Not Understood"))
	flush(t, l)
	wantNames(t, dir, "app:v1")
	cut := crash(t, dir)
	again := open(t, cut)
	flush(t, again)
	wantNames(t, cut, "app:v1")

	killed := crashInPlace(t, dir)
	again = open(t, killed)
	flush(t, again)
	wantNames(t, killed, "app:v1")
}

// The steps of GC, with an edit between its mark and its second flush: an entry with a name that is none
// of ours, of an image whose blobs lie there (and were let go of here).
func TestAForeignEntryThatComesWhileACollectionRuns(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	pushImage(t, r, "keep", "keep")
	img := pushImage(t, r, "one", "v1")
	if err := r.DeleteManifest(t.Context(), img.desc.Digest); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	ctx := t.Context()
	c := &collection{layout: l, opts: berth.GCOptions{Grace: -1}, needed: newDigestSet(), traces: newDigestSet()}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	var release func()
	c.start, release = l.recent.collect()
	defer release()
	steps := []func() error{
		func() error { return l.Flush(ctx) },
		func() error { return c.mark(ctx, nil) },
		func() error { edit(t, dir, with("The Latest Build", v1.Descriptor(img.desc))); return nil },
		func() error { return l.Flush(ctx) },
		func() error { return c.sweep(ctx) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, l)
	wantNames(t, dir, "app:keep", "The Latest Build")
	for _, d := range []v1.Descriptor{img.desc, img.layer} {
		wantFile(t, dir, d.Digest, true)
	}
}

// A layout of another tool whose index.json is a link, to a file beside it, is not taken over as empty.
func TestALinkedIndexOfAForeignLayout(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	if err := errors.Join(l.Close(), os.RemoveAll(filepath.Join(dir, ".berth")),
		os.Rename(filepath.Join(dir, "index.json"), filepath.Join(dir, "index-1.json")),
		os.Symlink("index-1.json", filepath.Join(dir, "index.json"))); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), dir, nil)
	if !errors.Is(err, berth.ErrLayoutInvalid) {
		t.Errorf("opened: %v, %v", l, err)
	}
}

// skopeo writes tag v1; umoci, started at once, reads that file; berth merges and publishes; umoci
// writes v1 (or brings it back). The file still says the generation before skopeo's.
func TestTwoProgramsOneAfterTheOther(t *testing.T) {
	for name, c := range map[string]struct {
		first, second func(one, two image) func(*v1.Index)
		want          func(one, two image) image
	}{
		"moved": {func(one, _ image) func(*v1.Index) { return with("app:v1", one.desc) },
			func(_, two image) func(*v1.Index) { return with("app:v1", two.desc) }, func(_, two image) image { return two }},
		"back": {func(_, _ image) func(*v1.Index) { return without("app:v0") },
			func(_, two image) func(*v1.Index) { return with("app:v0", two.desc) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir)
			r := repo(t, l, "app")
			zero, one, two := pushImage(t, r, "zero", "v0"), pushImage(t, r, "one"), pushImage(t, r, "two")
			_ = zero
			flush(t, l)
			edit(t, dir, c.first(one, two)) // skopeo ends
			read := readIndex(t, dir)       // umoci reads
			read.Manifests = slices.Clone(read.Manifests)
			flush(t, l) // berth merges, publishes
			c.second(one, two)(&read)
			writeIndex(t, dir, read) // umoci writes
			flush(t, l)
			tag, want := "v1", two
			if c.want != nil {
				want = c.want(one, two)
			} else {
				tag = "v0"
			}
			if got := resolves(t, l, "app", tag); got != want.desc.Digest {
				t.Errorf("%s is %q; the second program, which had seen the work of the first, made it %q", tag, got, want.desc.Digest)
			}
		})
	}
}

// A file that names a generation that is far ahead does not make the next removal unseen.
func TestAGreatGeneration(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app"), "one", "v1", "v2")
	flush(t, l)
	edit(t, dir, func(i *v1.Index) {
		i.Annotations[annotationGeneration] = "4611686018427387903"
		with("app:v3", img.desc)(i)
	})
	flush(t, l)
	edit(t, dir, without("app:v2"))
	flush(t, l)
	if d := resolves(t, l, "app", "v2"); d != "" {
		t.Error("no removal is seen any more")
	}
}
