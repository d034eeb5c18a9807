package ocilayout

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// These are about manifests whose files were found damaged.

// The file of an image index is damaged, and fsck moves it away. What the index led to is whole, and named.
func TestALostIndexHidesNothing(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	img := pushImage(t, r, "one")
	top := pushIndex(t, r, "v1", img.desc)
	flush(t, l)
	if err := os.WriteFile(filepath.Join(dir, blobPath(top.Digest)), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	fsck(t, l, true)
	flush(t, l)
	if n := len(readIndex(t, dir).Manifests); n != 1 {
		t.Errorf("index.json names %d manifests; the image that is whole is not among them", n)
	}
	wantImage(t, l, "app", string(img.desc.Digest), img)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openWith(t, dir, &Options{Rebuild: true}) // as after a power cut
	wantImage(t, l, "app", string(img.desc.Digest), img)
}

// A manifest's file is damaged and moved away by fsck; its tag waits for the next push, also over a checkout in
// which nothing is done.
func TestACheckoutKeepsWhatIsLost(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v1")
	flush(t, l)
	good, err := os.ReadFile(filepath.Join(dir, blobPath(img.desc.Digest)))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, blobPath(img.desc.Digest)), []byte("{}"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	fsck(t, l, true)
	if _, err := r.Resolve(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	checkout(t, l)()
	if _, err := r.Resolve(t.Context(), "v1"); err != nil {
		t.Errorf("after a checkout in which nothing was done: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, blobPath(img.desc.Digest)), good, 0o644); err != nil {
		t.Fatal(err)
	}
	fsck(t, l, false)
	flush(t, l)
	wantNames(t, dir, "app:v1")
}

// A manifest of two repositories is damaged, moved away, and pushed again into one of them: that is enough.
func TestALostManifestIsPutRightEverywhere(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "a"), "one", "v1")
	pushImage(t, repo(t, l, "b"), "one", "v1")
	flush(t, l)
	if err := os.WriteFile(filepath.Join(dir, blobPath(img.desc.Digest)), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	fsck(t, l, true)
	wantNames(t, dir)
	pushImage(t, repo(t, l, "b"), "one", "v1")
	flush(t, l)
	wantImage(t, l, "a", "v1", img)
	wantNames(t, dir, "a:v1", "b:v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openWith(t, dir, &Options{Rebuild: true})
	wantImage(t, l, "a", "v1", img)
}

// A manifest of several repositories is damaged. fsck looks at them at once, and index.json names none.
func TestARepairOfAManifestOfSeveralRepositories(t *testing.T) {
	bad := 0
	for range 20 {
		dir := t.TempDir()
		l := open(t, dir)
		var img image
		for i := range 6 {
			img = pushImage(t, repo(t, l, fmt.Sprint("app", i)), "one", "v1")
		}
		flush(t, l)
		if err := os.WriteFile(filepath.Join(dir, blobPath(img.desc.Digest)), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		fsck(t, l, true)
		if n := len(readIndex(t, dir).Manifests); n > 0 {
			bad++
		}
		wantFile(t, dir, img.desc.Digest, false)
	}
	if bad > 0 {
		t.Errorf("in %d of 20 repairs index.json still names the manifest that was moved away", bad)
	}
}
