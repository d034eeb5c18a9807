package ocilayout

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// These are about index.json files of others: older ones, copied ones, and what of them is theirs alone.

func writeIndex(t *testing.T, dir string, index v1.Index) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "index.json"), encode(t, index), 0o644); err != nil {
		t.Fatal(err)
	}
}

func missing(name string) v1.Descriptor {
	return v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(name), Size: 3,
		Annotations: map[string]string{v1.AnnotationRefName: name}}
}

// An entry that is not understood outlives the edit of a program that read index.json before it came, and
// goes when a program takes it out that has seen it.
func TestForeignEntriesAreMergedThreeWays(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	flush(t, l)
	old := readIndex(t, dir)
	edit(t, dir, func(index *v1.Index) { index.Manifests = append(index.Manifests, missing("First One")) })
	flush(t, l)
	old.Manifests = append(old.Manifests, missing("Second One"))
	writeIndex(t, dir, old)
	flush(t, l)
	wantNames(t, dir, "app:v1", "First One", "Second One")
	edit(t, dir, without("First One"))
	flush(t, l)
	wantNames(t, dir, "app:v1", "Second One")
}

func TestTwoEntriesOfOneNameAreBothKept(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	one, two := pushImage(t, r, "one", "v1"), pushImage(t, r, "two", "v2")
	flush(t, l)
	edit(t, dir, func(index *v1.Index) {
		without("app:v2")(index)
		again := two.desc
		again.Annotations = map[string]string{v1.AnnotationRefName: "app:v1"}
		index.Manifests = append(index.Manifests, again)
	})
	flush(t, l)
	wantImage(t, l, "app", "v1", one)
	wantImage(t, l, "app", string(two.desc.Digest), two)
	wantNames(t, dir, "", "app:v1")
}

// The generations of another layout say nothing about this one.
func TestTheIndexOfAnotherLayoutRemovesNothing(t *testing.T) {
	dir, otherDir := t.TempDir(), t.TempDir()
	l, other := open(t, dir), open(t, otherDir)
	kept := pushImage(t, repo(t, l, "app"), "one", "v1")
	for i := range 10 {
		pushImage(t, repo(t, other, "app"), fmt.Sprint(i), "v2")
	}
	flush(t, l)
	flush(t, other)
	for _, generation := range []string{"", "18446744073709551615"} {
		index := readIndex(t, otherDir)
		if generation != "" {
			index.Annotations[annotationGeneration] = generation
		}
		writeIndex(t, dir, index)
		flush(t, l)
		wantImage(t, l, "app", "v1", kept)
		wantNames(t, dir, "app:v1", "app:v2", "", "", "", "", "", "", "", "", "")
	}
}

func TestAnnotationsOfOthersAreKept(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	img := pushImage(t, r, "one", "v1")
	flush(t, l)
	edit(t, dir, func(index *v1.Index) {
		index.Annotations["com.example.of-the-index"] = "a"
		index.Manifests[0].Annotations["com.example.of-the-tag"] = "b"
	})
	flush(t, l)
	pushImage(t, r, "two", "v2")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openWith(t, dir, &Options{Rebuild: true})
	flush(t, l)
	index := readIndex(t, dir)
	if got := index.Annotations["com.example.of-the-index"]; got != "a" {
		t.Errorf("the index has the annotation %q", got)
	}
	if got := index.Manifests[0].Annotations; got["com.example.of-the-tag"] != "b" {
		t.Errorf("app:v1 has the annotations %v", got)
	}
	wantImage(t, l, "app", "v1", img)
	edit(t, dir, func(index *v1.Index) { delete(index.Annotations, "com.example.of-the-index") })
	flush(t, l)
	if got := othersAnnotations(readIndex(t, dir).Annotations); len(got) > 0 {
		t.Errorf("annotations that were taken out are back: %v", got)
	}
}

// A process is killed, and then a program that keeps no annotations moves a tag: what it read is known.
func TestAnEditWithoutAnnotationsAfterAKill(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	pushImage(t, r, "one", "v1")
	two := pushImage(t, r, "two", "v2")
	flush(t, l)
	copied := crashInPlace(t, dir)
	edit(t, copied, func(index *v1.Index) {
		index.Annotations = nil
		for i := range index.Manifests {
			name := index.Manifests[i].Annotations[v1.AnnotationRefName]
			index.Manifests[i] = v1.Descriptor{MediaType: two.desc.MediaType, Digest: two.desc.Digest, Size: two.desc.Size,
				Annotations: map[string]string{v1.AnnotationRefName: name}}
		}
	})
	again := open(t, copied)
	wantImage(t, again, "app", "v1", two)
	wantImage(t, again, "app", "v2", two)
}

// crashInPlace is crash without the power cut: the copy passes for the directory itself.
func crashInPlace(t *testing.T, dir string) string {
	t.Helper()
	copied := crash(t, dir)
	path := filepath.Join(copied, ".berth/epoch")
	var epoch map[string]any
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &epoch)
	}
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(epoch, map[string]any{"mode": Power.String()}) // whose index is believed wherever it lies
	if err := os.WriteFile(path, encode(t, epoch), 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}

// index.json never names a manifest that was found damaged; it does again when that is pushed, or put back.
func TestADamagedManifestLeavesIndexJSON(t *testing.T) {
	for _, how := range []string{"pushed", "put back"} {
		dir := t.TempDir()
		l := open(t, dir)
		r := repo(t, l, "app")
		img := pushImage(t, r, "one", "v1")
		pushImage(t, r, "two", "v2")
		path := filepath.Join(dir, blobPath(img.desc.Digest))
		good, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte("{}"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		fsck(t, l, true)
		wantNames(t, dir, "app:v2")
		edit(t, dir, with("app:v3", missing("x")))
		flush(t, l)
		if _, err := r.Resolve(t.Context(), "v1"); err != nil {
			t.Errorf("the tag was taken for one that was taken out: %v", err)
		}
		if how == "pushed" {
			pushImage(t, r, "one")
		} else if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
		fsck(t, l, false)
		flush(t, l)
		wantNames(t, dir, "app:v1", "app:v2", "app:v3")
		wantImage(t, l, "app", "v1", img)
	}
}

// A manifest is not taken whose blob came from outside and is not what its name says.
func TestAManifestOfAWrongBlobIsRefused(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	img := pushImage(t, r, "layer", "v1")
	raw, err := r.FetchManifest(t.Context(), "v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, blobPath(img.layer.Digest)), []byte("LAYER"), 0o644); err != nil {
		t.Fatal(err)
	}
	r = repo(t, openWith(t, dir, &Options{Rebuild: true}), "app")
	if _, err := r.PushManifest(t.Context(), raw.Raw, &berth.PushOptions{Tags: []string{"v2"}}); !errors.Is(err, berth.ErrManifestBlobUnknown) {
		t.Errorf("got %v, want ErrManifestBlobUnknown", err)
	}
}
