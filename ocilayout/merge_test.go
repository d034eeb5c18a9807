package ocilayout

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// edit rewrites index.json as another tool would that keeps the annotations it does not know.
func edit(t *testing.T, dir string, change func(*v1.Index)) {
	t.Helper()
	index := readIndex(t, dir)
	change(&index)
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func without(name string) func(*v1.Index) {
	return func(index *v1.Index) {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool {
			return d.Annotations[v1.AnnotationRefName] == name
		})
	}
}

func with(name string, desc v1.Descriptor) func(*v1.Index) {
	return func(index *v1.Index) {
		without(name)(index)
		desc.Annotations = map[string]string{v1.AnnotationRefName: name, "com.example.note": "kept"}
		index.Manifests = append(index.Manifests, desc)
	}
}

func resolves(t *testing.T, l *Layout, name, tag string) digest.Digest {
	t.Helper()
	desc, err := repo(t, l, name).Resolve(t.Context(), tag)
	if errors.Is(err, berth.ErrManifestUnknown) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return desc.Digest
}

func TestOutsideEditsAreMerged(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	one, two := pushImage(t, r, "one", "stays", "moves", "goes"), pushImage(t, r, "two", "other")
	flush(t, l)
	edit(t, dir, with("app:moves", two.desc))
	edit(t, dir, with("app:comes", two.desc))
	edit(t, dir, without("app:goes"))
	three := pushImage(t, r, "three", "meanwhile")
	flush(t, l)
	for tag, want := range map[string]digest.Digest{
		"stays": one.desc.Digest, "moves": two.desc.Digest, "comes": two.desc.Digest,
		"other": two.desc.Digest, "meanwhile": three.desc.Digest, "goes": "",
	} {
		if got := resolves(t, l, "app", tag); got != want {
			t.Errorf("%s is %q, want %q", tag, got, want)
		}
	}
	wantNames(t, dir, "app:stays", "app:moves", "app:comes", "app:other", "app:meanwhile")
	for _, desc := range readIndex(t, dir).Manifests {
		if desc.Annotations[v1.AnnotationRefName] == "app:comes" && desc.Annotations["com.example.note"] != "kept" {
			t.Errorf("a foreign annotation was lost: %v", desc.Annotations)
		}
	}
}

// Where both sides have changed a tag since the edit began, what was answered here counts.
func TestATagThatMovedHereSinceKeepsItsPlace(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	one, two := pushImage(t, r, "one", "moved", "removed", "dropped"), pushImage(t, r, "two", "x")
	flush(t, l)
	based := readIndex(t, dir)
	pushImage(t, r, "two", "moved")
	if err := r.Untag(t.Context(), "removed", nil); err != nil {
		t.Fatal(err)
	}
	pushImage(t, r, "two", "dropped")
	flush(t, l)
	edit(t, dir, func(index *v1.Index) { // written by one who had read the older file
		*index = based
		without("app:dropped")(index)
		with("app:fresh", one.desc)(index)
	})
	flush(t, l)
	for tag, want := range map[string]digest.Digest{
		"moved": two.desc.Digest, "removed": "", "dropped": two.desc.Digest, "fresh": one.desc.Digest,
	} {
		if got := resolves(t, l, "app", tag); got != want {
			t.Errorf("%s is %q, want %q", tag, got, want)
		}
	}
}

func TestAnEditWithoutOurAnnotationsRemovesNothing(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	flush(t, l)
	edit(t, dir, func(index *v1.Index) {
		index.Annotations, index.Manifests = nil, nil
		with("app:v2", img.desc)(index)
	})
	flush(t, l)
	wantNames(t, dir, "app:v1", "app:v2")
}

// Such an edit was based on what was last written, as far as can be known.
func TestAnEditWithoutOurAnnotationsMovesAndAdds(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	one, two := pushImage(t, r, "one", "moves", "gone"), pushImage(t, r, "two", "stays")
	if err := r.Untag(t.Context(), "gone", nil); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	edit(t, dir, func(index *v1.Index) {
		index.Annotations = nil
		with("app:moves", two.desc)(index)
		with("app:gone", one.desc)(index)
	})
	pushImage(t, r, "three", "new")
	flush(t, l)
	wantNames(t, dir, "app:moves", "app:gone", "app:stays", "app:new")
	if got := resolves(t, l, "app", "moves"); got != two.desc.Digest {
		t.Errorf("moves is %s, want %s", got, two.desc.Digest)
	}
}

// The same after a start that found index.json as it should be, and wrote nothing.
func TestAnEditWithoutOurAnnotationsAfterAQuietStart(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	pushImage(t, r, "one", "moves")
	two := pushImage(t, r, "two", "stays")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	edit(t, dir, func(index *v1.Index) {
		index.Annotations = nil
		with("app:moves", two.desc)(index)
	})
	flush(t, l)
	if got := resolves(t, l, "app", "moves"); got != two.desc.Digest {
		t.Errorf("moves is %s, want %s", got, two.desc.Digest)
	}
}

func TestAnIndexFileThatWasDeletedIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	flush(t, l)
	if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	wantNames(t, dir, "app:v1")
}

// An entry that names one of our tags and leads nowhere does not take the tag away.
func TestABrokenEntryDoesNotReplaceATag(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	flush(t, l)
	edit(t, dir, with("app:v1", v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("missing"), Size: 3}))
	for range 2 {
		flush(t, l)
		wantNames(t, dir, "app:v1")
		wantImage(t, l, "app", "v1", img)
	}
}

// A manifest may tell a wrong size of a blob, and indexes may be nested: what was taken is found again.
func TestARebuildFindsWhatAPushTook(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	layer, config := uploadBlob(t, r, "layer"), uploadBlob(t, r, "{}")
	layer.Size++
	image := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{layer}}
	image.SchemaVersion = 2
	desc, err := r.PushManifest(t.Context(), encode(t, image), nil)
	for depth := 0; depth < 20 && err == nil; depth++ {
		index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{desc}}
		index.SchemaVersion = 2
		desc, err = r.PushManifest(t.Context(), encode(t, index), &berth.PushOptions{Tags: []string{"v1"}})
	}
	if err = errors.Join(err, l.Close(), os.RemoveAll(filepath.Join(dir, ".berth"))); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	wantBlob(t, repo(t, l, "app"), layer)
	wantBlob(t, repo(t, l, "app"), config)
}

func TestAnEditOfALayoutAtRest(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app"), "one", "v1", "v2")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, without("app:v2"))
	edit(t, dir, with("app:v3", img.desc))
	l = open(t, dir)
	wantNames(t, dir, "app:v1", "app:v3")
	wantImage(t, l, "app", "v3", img)
}

// A layout that another program made is taken over: its names, its bytes, and nothing unverified.
func TestAForeignLayoutIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	img, bad := pushImage(t, r, "good layer", "v1"), pushImage(t, r, "bad layer", "v2")
	bare := pushImage(t, repo(t, l, DefaultRepository), "bare", "latest")
	nameless := pushImage(t, repo(t, l, "app/nameless"), "nameless")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir, "app/hello:v1", "app/hello:v2", "latest", "")
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, ".berth")),
		os.WriteFile(filepath.Join(dir, blobPath(bad.layer.Digest)), []byte("BAD layer"), 0o644)); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	wantImage(t, l, "app/hello", "v1", img)
	wantImage(t, l, DefaultRepository, "latest", bare)
	wantImage(t, l, "app/nameless", string(nameless.desc.Digest), nameless)
	if _, err := repo(t, l, "app/hello").StatBlob(t.Context(), bad.layer.Digest); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("a blob that is not what its name says: got %v", err)
	}
	uploadBlob(t, repo(t, l, "app/hello"), "bad layer")
	wantImage(t, l, "app/hello", "v2", bad)
	wantNames(t, dir, "app/hello:v1", "app/hello:v2", "latest", "")
}

// What is listed but not understood stays listed as it is.
func TestForeignEntriesAreKept(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	flush(t, l)
	missing := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("missing"), Size: 3}
	edit(t, dir, with("app:missing", missing))
	edit(t, dir, with("Not A Reference", missing))
	for range 2 {
		pushImage(t, repo(t, l, "app"), "two", "v2")
		flush(t, l)
		wantNames(t, dir, "app:v1", "app:v2", "app:missing", "Not A Reference")
	}
	if got := resolves(t, l, "app", "missing"); got != "" {
		t.Errorf("a tag without a manifest resolves to %s", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	wantNames(t, dir, "app:v1", "app:v2", "app:missing", "Not A Reference")
}

// A damaged index.json is put aside and written anew: the index knows better.
func TestADamagedIndexFileIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(`{"manifests":[{`), 0o644); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	wantImage(t, l, "app", "v1", img)
	flush(t, l)
	wantNames(t, dir, "app:v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, ".berth", "index.json.damaged")); err != nil || len(data) == 0 {
		t.Errorf("no copy was kept: %v", err)
	}
}

// index.json lists the root of a multi-platform image, and not the manifests below it.
func TestChildrenOfAnIndexAreNotListed(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	child := pushImage(t, r, "child")
	flush(t, l)
	wantNames(t, dir, "")
	root := encode(t, v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{child.desc}})
	root = append([]byte(`{"schemaVersion":2,`), root[len(`{"schemaVersion":0,`):]...)
	desc, err := r.PushManifest(t.Context(), root, &berth.PushOptions{Tags: []string{"multi"}})
	if err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	wantNames(t, dir, "app:multi")
	if err := r.DeleteManifest(t.Context(), desc.Digest); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	wantNames(t, dir, "")
}

func TestIndexFileFollowsByItself(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	deadline := time.Now().Add(time.Minute)
	for !slices.Contains(names(t, dir), "app:v1") {
		if time.Now().After(deadline) {
			t.Fatal("index.json does not name the tag")
		}
		time.Sleep(time.Millisecond)
	}
}

// Indexes that name the same child many times are walked once each: otherwise the work would double
// with every level.
func TestIndexesThatShareChildren(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	desc := pushImage(t, r, "leaf").desc
	desc.MediaType = v1.MediaTypeImageManifest
	for level := range 60 {
		raw := encode(t, map[string]any{"schemaVersion": 2, "mediaType": v1.MediaTypeImageIndex,
			"manifests": []v1.Descriptor{desc, desc}, "annotations": map[string]string{"level": string(rune('a' + level))}})
		var err error
		if desc, err = r.PushManifest(t.Context(), raw, &berth.PushOptions{Tags: []string{"top"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := openWith(t, dir, &Options{Rebuild: true})
	if got := resolves(t, again, "app", "top"); got != desc.Digest {
		t.Errorf("top is %q, want %s", got, desc.Digest)
	}
}

// A client that knew no referrers API kept the list under a tag. Who is in it is listed by the API.
func TestAReferrersTagIsTakenIn(t *testing.T) {
	dir := t.TempDir()
	from, err := Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := repo(t, from, "app/hello")
	subject := pushImage(t, r, "subject", "v1")
	referrer := pushReferrer(t, r, subject.desc)
	pushIndex(t, r, strings.Replace(string(subject.desc.Digest), ":", "-", 1), referrer)
	if err := errors.Join(from.Close(), os.RemoveAll(filepath.Join(dir, ".berth"))); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, func(index *v1.Index) { // as another program would have written it
		index.Annotations = nil
		for i := range index.Manifests {
			index.Manifests[i].Annotations = map[string]string{v1.AnnotationRefName: index.Manifests[i].Annotations[v1.AnnotationRefName]}
		}
	})
	l := open(t, dir)
	var found []digest.Digest
	for desc, err := range repo(t, l, "app/hello").Referrers(t.Context(), subject.desc.Digest, nil) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, desc.Digest)
	}
	if len(found) != 1 || found[0] != referrer.Digest {
		t.Errorf("got %v, want %s", found, referrer.Digest)
	}
}
