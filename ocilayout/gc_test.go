package ocilayout

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
)

var racingPushes = flag.Int("pushes", 160, "how many pushes race with the collection")

// collect runs a collection that spares nothing for having been seen before it began.
func collect(t *testing.T, l *Layout, opts berth.GCOptions) berth.GCReport {
	t.Helper()
	opts.Grace = -1
	report, err := l.GC(t.Context(), &opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantFile(t *testing.T, dir string, d digest.Digest, want bool) {
	t.Helper()
	_, err := os.Lstat(filepath.Join(dir, blobPath(d)))
	if got := err == nil; got != want {
		t.Errorf("file of %s: there is %v, want %v (%v)", d, got, want, err)
	}
}

func TestCollectionKeepsWhatAManifestNeeds(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	kept := pushImage(t, r, "kept", "v1")
	untagged := pushImage(t, r, "untagged")
	deleted := pushImage(t, r, "deleted", "v2")
	loose := uploadBlob(t, r, "loose")
	if err := r.DeleteManifest(t.Context(), deleted.desc.Digest); err != nil {
		t.Fatal(err)
	}
	dry := collect(t, l, berth.GCOptions{DryRun: true})
	wantFile(t, dir, loose.Digest, true)
	report := collect(t, l, berth.GCOptions{})
	if report.Blobs != 3 || dry.Blobs != 3 || report.Bytes != dry.Bytes || report.Left != dry.Left || report.LeftBytes != dry.LeftBytes {
		t.Errorf("collected %+v, the dry run said %+v; want 3 blobs", report, dry)
	}
	for _, d := range []digest.Digest{deleted.desc.Digest, deleted.layer.Digest, loose.Digest} {
		wantFile(t, dir, d, false)
	}
	wantImage(t, l, "app/hello", "v1", kept)
	wantImage(t, l, "app/hello", string(untagged.desc.Digest), untagged)
	if _, err := r.StatBlob(t.Context(), loose.Digest); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("a collected blob: %v", err)
	}
	// It can come back.
	if got := uploadBlob(t, r, "loose"); got.Digest != loose.Digest {
		t.Errorf("pushed again it is %s", got.Digest)
	}
	wantBlob(t, r, loose)
}

func TestCollectionSparesWhatAClientWasToldOf(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	other := repo(t, l, "app/other")
	stored, stated, mounted := uploadBlob(t, r, "stored"), uploadBlob(t, r, "stated"), uploadBlob(t, r, "mounted")
	l.recent = newRecent(time.Hour) // all is forgotten
	l.started = time.Now().Add(-2 * time.Hour)
	if _, err := r.StatBlob(t.Context(), stated.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := other.NewUpload(t.Context(), &berth.UploadOptions{Mount: mounted.Digest}); !errors.Is(err, berth.ErrMounted) {
		t.Fatal(err)
	}
	report, err := l.GC(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.Blobs != 1 || report.Spared != 2 {
		t.Errorf("got %+v, want one removed and two spared", report)
	}
	if _, err := r.StatBlob(t.Context(), stored.Digest); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("the blob that nobody was told of: %v", err)
	}
	wantBlob(t, r, stated)
	wantBlob(t, other, mounted)
}

func TestCollectionSparesAllAtTheStart(t *testing.T) {
	l := open(t, t.TempDir())
	uploadBlob(t, repo(t, l, "app/hello"), "loose")
	l.recent = newRecent(DefaultGrace)
	report, err := l.GC(t.Context(), nil)
	if err != nil || report.Blobs != 0 || report.Spared != 1 {
		t.Errorf("got %+v, %v, want one spared", report, err)
	}
}

// A file that berth has not heard of may be half of an image that another program is copying.
func TestCollectionSparesTheFilesOfOthers(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	d := digest.FromString("x")
	path, then := filepath.Join(dir, blobPath(d)), time.Now().Add(-2*outsideGrace) // a copy with the time of the original
	if err := errors.Join(os.WriteFile(path, []byte("x"), 0o644), os.Chtimes(path, then, then)); err != nil {
		t.Fatal(err)
	}
	collect(t, l, berth.GCOptions{})
	wantFile(t, dir, d, true)
	l.outsideGrace = 0
	collect(t, l, berth.GCOptions{})
	wantFile(t, dir, d, false)
}

// Where no image is known, index.json was lost, and not the need for all files.
func TestCollectionOfALayoutThatLostItsIndex(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, ".berth")), os.Remove(filepath.Join(dir, v1.ImageIndexFile))); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	l.outsideGrace = 0
	if report := collect(t, l, berth.GCOptions{}); report.Blobs != 0 || report.Left != 3 {
		t.Errorf("collected %+v", report)
	}
	if report := fsck(t, l, false); len(report.Problems) != 1 || report.Unknown != 3 {
		t.Errorf("the check found %+v", report)
	}
}

// An entry of index.json that berth does not understand keeps all that it may lead to.
func TestCollectionKeepsWhatAForeignEntryLeadsTo(t *testing.T) {
	dir := t.TempDir()
	leaf, middle := []byte("leaf"), fmt.Appendf(nil, `{"odd":{"it":%q}}`, digest.FromString("leaf"))
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{leaf, middle} {
		path := filepath.Join(dir, blobPath(digest.FromBytes(content)))
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/odd","digest":%q,"size":%d}]}`, digest.FromBytes(middle), len(middle))
	if err := os.WriteFile(filepath.Join(dir, v1.ImageIndexFile), []byte(index), 0o644); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir)
	l.outsideGrace = 0
	collect(t, l, berth.GCOptions{})
	wantFile(t, dir, digest.FromBytes(leaf), true)
	wantFile(t, dir, digest.FromBytes(middle), true)
}

func TestKeepTheNewestTags(t *testing.T) {
	l := open(t, t.TempDir())
	many, other := repo(t, l, "ci/many"), repo(t, l, "app/other")
	for i := range 5 {
		pushImage(t, many, fmt.Sprint("layer ", i), fmt.Sprint("v", i))
		pushImage(t, other, fmt.Sprint("layer ", i), fmt.Sprint("v", i))
	}
	keep := berth.GCOptions{Keep: []berth.KeepRule{{Repositories: "ci/*", Newest: 2}}, DryRun: true}
	dry := collect(t, l, keep)
	keep.DryRun = false
	report := collect(t, l, keep)
	if dry.DryRun = false; !reflect.DeepEqual(dry, report) {
		t.Errorf("the dry run said %+v, and then it was %+v", dry, report)
	}
	if len(report.Tags) != 3 || len(report.Manifests) != 3 || report.Blobs != 0 {
		t.Errorf("got %+v, want 3 tags and manifests ended, and all blobs in use", report)
	}
	wantTags(t, many, "v3", "v4")
	wantTags(t, other, "v0", "v1", "v2", "v3", "v4")
}

func wantTags(t *testing.T, r berth.Repository, want ...string) {
	t.Helper()
	var got []string
	for tag, err := range r.Tags(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, tag)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s has tags %q, want %q", r.Name(), got, want)
	}
}

// An index takes its children along, and a manifest those that refer to it; not what is tagged too.
func TestEndingAnImageEndsWhatOnlyItLedTo(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	child, tagged := pushImage(t, r, "child"), pushImage(t, r, "tagged child", "keep")
	index := pushIndex(t, r, "old", child.desc, tagged.desc)
	signature := pushReferrer(t, r, index)
	pushImage(t, r, "newest", "new1")
	pushImage(t, r, "newer", "keep") // moves the tag
	pushTag(t, r, tagged.desc.Digest, "keep")
	report := collect(t, l, berth.GCOptions{Keep: []berth.KeepRule{{Repositories: "**", Newest: 2}}})
	for _, gone := range []digest.Digest{index.Digest, child.desc.Digest, signature.Digest} {
		if _, err := r.Resolve(t.Context(), string(gone)); !errors.Is(err, berth.ErrManifestUnknown) {
			t.Errorf("%s: %v, want it gone; report %+v", gone, err, report)
		}
	}
	wantImage(t, l, "app/hello", "keep", tagged)
}

func pushTag(t *testing.T, r berth.Repository, d digest.Digest, tag string) {
	t.Helper()
	m, err := r.FetchManifest(t.Context(), string(d), nil)
	if err == nil {
		_, err = r.PushManifest(t.Context(), m.Raw, &berth.PushOptions{Tags: []string{tag}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func pushIndex(t *testing.T, r berth.Repository, tag string, children ...v1.Descriptor) v1.Descriptor {
	t.Helper()
	raw := encode(t, map[string]any{"schemaVersion": 2, "mediaType": v1.MediaTypeImageIndex, "manifests": children})
	desc, err := r.PushManifest(t.Context(), raw, &berth.PushOptions{Tags: []string{tag}})
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func pushReferrer(t *testing.T, r berth.Repository, subject v1.Descriptor) v1.Descriptor {
	t.Helper()
	empty := uploadBlob(t, r, "{}")
	empty.MediaType = v1.MediaTypeEmptyJSON
	raw := encode(t, map[string]any{"schemaVersion": 2, "mediaType": v1.MediaTypeImageManifest, "artifactType": "application/signature",
		"config": empty, "layers": []v1.Descriptor{empty}, "subject": subject})
	desc, err := r.PushManifest(t.Context(), raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func TestUntaggedManifestsEndWhenTheyAreOld(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	untagged, tagged := pushImage(t, r, "untagged"), pushImage(t, r, "tagged", "v1")
	signature := pushReferrer(t, r, tagged.desc)
	if report := collect(t, l, berth.GCOptions{UntaggedAfter: time.Hour}); len(report.Manifests) != 0 {
		t.Errorf("young ones ended: %+v", report)
	}
	report := collect(t, l, berth.GCOptions{UntaggedAfter: -time.Hour}) // all are older than the future
	if len(report.Manifests) != 1 || report.Manifests[0].Digest != untagged.desc.Digest {
		t.Errorf("got %+v, want %s ended", report.Manifests, untagged.desc.Digest)
	}
	if _, err := r.Resolve(t.Context(), string(signature.Digest)); err != nil {
		t.Errorf("what refers to a tagged image: %v", err)
	}
}

func TestTheLeastRecentlyUsedEndFirst(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	var images []image
	for i := range 4 {
		images = append(images, pushImage(t, r, fmt.Sprintf("%d%01000d", i, 0), fmt.Sprint("v", i)))
	}
	// v0 was read after all others were.
	for i, age := range []int64{1, 40, 30, 20} {
		l.uses.note("app/hello", images[i].desc.Digest)
		l.uses.at[use{"app/hello", images[i].desc.Digest}] = now() + 1000 - age
	}
	dry := collect(t, l, berth.GCOptions{MaxBytes: 3000, DryRun: true})
	report := collect(t, l, berth.GCOptions{MaxBytes: 3000})
	if dry.DryRun = false; !reflect.DeepEqual(dry, report) {
		t.Errorf("the dry run said %+v, and then it was %+v", dry, report)
	}
	wantTags(t, r, "v0", "v3")
	if report.LeftBytes > 3000 {
		t.Errorf("%d bytes are left: %+v", report.LeftBytes, report)
	}
	wantImage(t, l, "app/hello", "v0", images[0])
}

// An image of an index that has a tag of its own stays when the index goes, and is counted.
func TestASizeLimitCountsWhatATagKeeps(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	old := pushImage(t, r, strings.Repeat("old", 1000), "old")
	pushIndex(t, r, "index", old.desc)
	if report := collect(t, l, berth.GCOptions{MaxBytes: 1000}); report.LeftBytes > 1000 {
		t.Errorf("%d bytes are left: %+v", report.LeftBytes, report)
	}
}

func TestRulesThatCannotBeMeant(t *testing.T) {
	l := open(t, t.TempDir())
	for _, opts := range []berth.GCOptions{
		{Keep: []berth.KeepRule{{Repositories: "[", Newest: 1}}},
		{Keep: []berth.KeepRule{{Repositories: "", Newest: 1}}},
		{Keep: []berth.KeepRule{{Repositories: "**", Newest: 0}}},
		{Grace: 2 * DefaultGrace},
		{MaxBytes: -1},
	} {
		if _, err := l.GC(t.Context(), &opts); err == nil {
			t.Errorf("%+v is taken", opts)
		}
	}
}

// Pushes that ask first what is there, and push the manifest later, race with a collection that never
// rests and has hardly any grace. What was answered is whole.
func TestCollectionBetraysNoPush(t *testing.T) {
	dir := t.TempDir()
	l := openWith(t, dir, &Options{Grace: 50 * time.Millisecond})
	ctx, stop := context.WithCancel(t.Context())
	var collections atomic.Int64
	collecting, _ := errgroup.WithContext(t.Context())
	collecting.Go(func() error {
		for ctx.Err() == nil {
			if _, err := l.GC(ctx, nil); err != nil && ctx.Err() == nil {
				return err
			}
			collections.Add(1)
		}
		return nil
	})
	pushing, _ := errgroup.WithContext(t.Context())
	var refused atomic.Int64
	for w := range 8 {
		pushing.Go(func() error {
			p := &racer{t: t, repo: repo(t, l, "app/raced"), rng: rand.New(rand.NewPCG(uint64(w), 7)), refused: &refused}
			for i := range *racingPushes / 8 {
				if err := p.push(fmt.Sprintf("w%d-%d", w, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := pushing.Wait(); err != nil {
		t.Error(err)
	}
	stop()
	if err := collecting.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d pushes, %d of them refused and repeated, %d collections", *racingPushes, refused.Load(), collections.Load())
}

// racer pushes images of blobs that come and go.
type racer struct {
	t       *testing.T
	repo    berth.Repository
	rng     *rand.Rand
	refused *atomic.Int64
}

// push pushes one image, however often it is refused, looks at all of it, and deletes it.
func (p *racer) push(tag string) error {
	contents := []string{fmt.Sprint("shared ", p.rng.IntN(20)), fmt.Sprint("shared ", p.rng.IntN(20)), tag}
	ctx := p.t.Context()
	for range 100 {
		for _, content := range contents {
			if _, err := p.repo.StatBlob(ctx, digest.FromString(content)); errors.Is(err, berth.ErrBlobUnknown) {
				uploadBlob(p.t, p.repo, content)
			} else if err != nil {
				return err
			}
		}
		time.Sleep(time.Duration(p.rng.IntN(80)) * time.Millisecond)
		desc, err := p.repo.PushManifest(ctx, imageOf(p.t, contents), &berth.PushOptions{Tags: []string{tag}})
		if errors.Is(err, berth.ErrManifestBlobUnknown) {
			p.refused.Add(1)
			continue
		}
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(p.rng.IntN(80)) * time.Millisecond)
		if err := p.look(tag, contents); err != nil {
			return fmt.Errorf("image %s is broken: %w", tag, err)
		}
		return p.repo.DeleteManifest(ctx, desc.Digest)
	}
	return fmt.Errorf("image %s was refused a hundred times", tag)
}

func (p *racer) look(tag string, contents []string) error {
	if _, err := p.repo.FetchManifest(p.t.Context(), tag, nil); err != nil {
		return err
	}
	for _, content := range contents {
		blob, err := p.repo.OpenBlob(p.t.Context(), digest.FromString(content))
		if err != nil {
			return err
		}
		got, err := io.ReadAll(blob)
		blob.Close()
		if err != nil || string(got) != content {
			return fmt.Errorf("blob %q reads %q, %v", content, got, err)
		}
	}
	return nil
}

func imageOf(t *testing.T, contents []string) []byte {
	t.Helper()
	var all []v1.Descriptor
	for _, content := range contents {
		all = append(all, v1.Descriptor{MediaType: octetStream, Digest: digest.FromString(content), Size: int64(len(content))})
	}
	return encode(t, map[string]any{"schemaVersion": 2, "mediaType": v1.MediaTypeImageManifest, "config": all[0], "layers": all[1:]})
}

// What was removed is remembered for a day, and then no more.
func TestTracesAreForgotten(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	pushImage(t, r, "layer", "v1", "v2")
	for _, tag := range []string{"v1", "v2"} {
		if err := r.Untag(t.Context(), tag, nil); err != nil {
			t.Fatal(err)
		}
	}
	err := l.writer.commit(t.Context(), change{write: func(tx *bolt.Tx, gen uint64) error {
		return put(tx, bucketGone, key("app/hello", "v1"), goneRecord{Generation: gen, At: now() - int64(traceFor.Seconds()) - 1})
	}})
	if err != nil {
		t.Fatal(err)
	}
	collect(t, l, berth.GCOptions{})
	for tag, want := range map[string]bool{"v1": false, "v2": true} {
		var got bool
		l.db.View(func(tx *bolt.Tx) error {
			got = has(tx, bucketGone, key("app/hello", tag))
			return nil
		})
		if got != want {
			t.Errorf("the removal of %s is remembered: %v, want %v", tag, got, want)
		}
	}
}

// What was pushed last is known also to an index that was made anew; of a layout that another tool made,
// what comes last in its index.json.
func TestTheOrderOfPushesOutlivesTheIndex(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	for _, tag := range []string{"c", "a", "e", "b", "d"} {
		pushImage(t, repo(t, l, "app/hello"), tag, tag)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openWith(t, dir, &Options{Rebuild: true})
	keep := berth.GCOptions{Keep: []berth.KeepRule{{Repositories: "**", Newest: 2}}}
	collect(t, l, keep)
	wantTags(t, repo(t, l, "app/hello"), "b", "d")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, func(index *v1.Index) {
		slices.Reverse(index.Manifests)
		index.Annotations = nil
		for _, desc := range index.Manifests {
			delete(desc.Annotations, annotationMoved)
		}
	})
	if err := os.RemoveAll(filepath.Join(dir, ".berth")); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	keep.Keep[0].Newest = 1
	collect(t, l, keep)
	wantTags(t, repo(t, l, "app/hello"), "b")
}
