package ocilayout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

func checkout(t *testing.T, l *Layout) (done func()) {
	t.Helper()
	end, err := l.Checkout(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := end(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// gcOutside removes every blob that index.json does not lead to, as the collectors of other tools do.
func gcOutside(t *testing.T, dir string) {
	t.Helper()
	var keep func(descs []v1.Descriptor)
	needed := map[digest.Digest]bool{}
	keep = func(descs []v1.Descriptor) {
		for _, desc := range descs {
			needed[desc.Digest] = true
			var below struct {
				Config            v1.Descriptor
				Layers, Manifests []v1.Descriptor
			}
			data, err := os.ReadFile(filepath.Join(dir, blobPath(desc.Digest)))
			if err == nil && json.Unmarshal(data, &below) == nil && desc.MediaType != octetStream {
				keep(append(append(below.Layers, below.Manifests...), v1.Descriptor{MediaType: octetStream, Digest: below.Config.Digest}))
			}
		}
	}
	edit(t, dir, func(index *v1.Index) { keep(index.Manifests) })
	files, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !needed[digest.NewDigestFromEncoded(digest.SHA256, f.Name())] {
			os.Remove(filepath.Join(dir, "blobs/sha256", f.Name()))
		}
	}
}

func TestACollectorOfOthersLosesNothing(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	img, untagged := pushImage(t, r, "layer", "v1"), pushImage(t, r, "untagged")
	fresh := uploadBlob(t, r, "its manifest is still to be pushed")
	done := checkout(t, l)
	gcOutside(t, dir)
	wantFile(t, dir, fresh.Digest, false)
	done()
	wantImage(t, l, "app/hello", "v1", img)
	wantImage(t, l, "app/hello", string(untagged.desc.Digest), untagged)
	wantBlob(t, r, fresh)
	if left, _ := os.ReadDir(filepath.Join(dir, heldPath)); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// What is taken out of index.json and collected has left the layout: also where the program does not
// keep the annotations of the index.
func TestWhatIsTakenOutWhileCheckedOutLeaves(t *testing.T) {
	for name, annotations := range map[string]func(*v1.Index){
		"annotations kept": func(*v1.Index) {},
		"annotations lost": func(index *v1.Index) { index.Annotations = nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir)
			r := repo(t, l, "app/hello")
			gone, kept := pushImage(t, r, "gone", "v1"), pushImage(t, r, "kept", "v2")
			done := checkout(t, l)
			edit(t, dir, func(index *v1.Index) {
				index.Manifests = index.Manifests[1:] // they are in the order of their tags
				annotations(index)
			})
			gcOutside(t, dir)
			done()
			wantTags(t, r, "v2")
			wantImage(t, l, "app/hello", "v2", kept)
			wantNames(t, dir, "app/hello:v2")
			if _, err := r.Resolve(t.Context(), string(gone.desc.Digest)); !errors.Is(err, berth.ErrManifestUnknown) {
				t.Errorf("the manifest whose file was deleted: %v", err)
			}
			if report := fsck(t, l, false); len(report.Problems) > 0 {
				t.Errorf("got %+v", report.Problems)
			}
		})
	}
}

// A push waits until the directory is given back, and reading goes on.
func TestAPushWaitsForACheckout(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	img := pushImage(t, r, "layer", "v1")
	done := checkout(t, l)
	wantImage(t, l, "app/hello", "v1", img)
	if _, err := r.Resolve(t.Context(), "absent"); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("resolve: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Untag(ctx, "v1", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a change during a checkout: %v", err)
	}
	if err := l.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a flush during a checkout: %v", err)
	}
	pushed := make(chan image)
	go func() { pushed <- pushImage(t, r, "second", "v2") }()
	done()
	wantImage(t, l, "app/hello", "v2", <-pushed)
}

// Blobs that were put out of the way come back although the process was killed meanwhile.
func TestHeldBlobsComeBackAtTheNextStart(t *testing.T) {
	dir := t.TempDir()
	l := openWith(t, dir, &Options{Durability: Power})
	fresh := uploadBlob(t, repo(t, l, "app/hello"), "fresh")
	done := checkout(t, l)
	gcOutside(t, dir)
	after := openWith(t, crash(t, dir), nil)
	done()
	wantBlob(t, repo(t, after, "app/hello"), fresh)
}

// Close ends what is long, and does not wait for a program that has the directory.
func TestCloseEndsACheckout(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	done, err := l.Checkout(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := done(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("the end of the checkout: %v", err)
	}
	wantImage(t, open(t, dir), "app/hello", "v1", img)
}

func TestWorkOnALayoutThatIsClosed(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	pushImage(t, r, "layer", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, gc := l.GC(t.Context(), nil)
	_, check := l.Fsck(t.Context(), nil)
	_, out := l.Checkout(t.Context())
	_, push := r.PushManifest(t.Context(), []byte(`{"schemaVersion":2,"manifests":[]}`), nil)
	for what, err := range map[string]error{"a collection": gc, "a check": check, "a checkout": out, "a flush": l.Flush(t.Context()), "a push": push} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A checkout that fails leaves no second names behind.
func TestACheckoutThatFails(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	for i := range 20 {
		uploadBlob(t, r, fmt.Sprint("loose ", i))
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, heldPath), 0o700), os.MkdirAll(filepath.Join(dir, blobPath(digest.FromString("dir"))), 0o755)); err != nil {
		t.Fatal(err)
	}
	err := l.writer.commit(t.Context(), change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
		return put(tx, bucketBlobs, key(string(digest.FromString("dir"))), blobRecord{Size: 1}) // a directory has no second name
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Checkout(t.Context()); err == nil {
		t.Fatal("the checkout succeeded")
	}
	if left, _ := os.ReadDir(filepath.Join(dir, heldPath)); len(left) > 0 {
		t.Errorf("left are %d names", len(left))
	}
}
