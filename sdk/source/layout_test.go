package source_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/source"
)

func toLayout(tb testing.TB, dir, name string) source.Destination {
	tb.Helper()
	to, err := source.ToLayout(dir, name)
	must(tb, err)
	return to
}

func TestToLayoutMakesAPlainLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	root := save(t, toLayout(t, dir, "v1"), "one layer")
	files := newTree()
	files.image("one layer")
	for name, content := range filesBelow(t, dir) {
		switch {
		case name == v1.ImageIndexFile:
		case content != files[name]:
			t.Errorf("%s holds %q, want %q", name, content, files[name])
		}
	}
	entries := entriesOf(t, dir)
	if len(entries) != 1 || encode(entries[0]) != encode(named(root, "v1")) {
		t.Errorf("index.json lists %+v", entries)
	}
	if top, err := os.ReadDir(dir); err != nil || len(top) != 3 {
		t.Errorf("the layout holds %v, %v", top, err)
	}
}

// Whatever of an index.json another program wrote is not about the image is kept.
func TestToLayoutKeepsWhatIsForeign(t *testing.T) {
	files := newTree()
	foreign := []string{
		`{"mediaType":"application/vnd.example","digest":"sha256:` + strings.Repeat("a", 64) + `","size":1,"data":"eA==","x-vendor":{"a":[1]}}`,
		`{"mediaType":"application/vnd.example","digest":"no digest","size":-1,"annotations":{"org.opencontainers.image.ref.name":"v2"}}`,
		`"no descriptor at all"`,
	}
	files[v1.ImageIndexFile] = `{"schemaVersion":2,"annotations":{"a":"b"},"manifests":[` + strings.Join(foreign, ",") +
		`],"artifactType":"application/vnd.example","x-vendor":{"k":[true,1.50]}}`
	files["oci-layout"] = `{"imageLayoutVersion":"1.0.0","x-vendor":1}`
	files["readme"] = "foreign"
	files["blobs/sha256/foreign"] = "foreign"
	dir := files.dir(t)
	root := save(t, toLayout(t, dir, "v1"), "one layer")
	after := filesBelow(t, dir)
	for _, name := range []string{"readme", "oci-layout", "blobs/sha256/foreign"} {
		if after[name] != files[name] {
			t.Errorf("%s is now %q", name, after[name])
		}
	}
	var got, want map[string]json.RawMessage
	must(t, json.Unmarshal([]byte(after[v1.ImageIndexFile]), &got))
	must(t, json.Unmarshal([]byte(files[v1.ImageIndexFile]), &want))
	var entries []json.RawMessage
	must(t, json.Unmarshal(got["manifests"], &entries))
	for _, key := range []string{"schemaVersion", "annotations", "artifactType", "x-vendor"} {
		if string(got[key]) != string(want[key]) {
			t.Errorf("%s is now %s", key, got[key])
		}
	}
	for i, entry := range append(foreign, encode(named(root, "v1"))) {
		if string(entries[i]) != entry {
			t.Errorf("entry %d is now %s", i, entries[i])
		}
	}
}

func TestToLayoutReplacesTheSameName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	save(t, toLayout(t, dir, "v1"), "one")
	two := save(t, toLayout(t, dir, "v2"), "two")
	three := save(t, toLayout(t, dir, "v1"), "three")
	entries := entriesOf(t, dir)
	if len(entries) != 2 || encode(entries) != encode([]v1.Descriptor{named(three, "v1"), named(two, "v2")}) {
		t.Errorf("got %+v", entries)
	}
}

func TestToLayoutReplacesEveryEntryOfTheName(t *testing.T) {
	files := newTree()
	one, two := files.image("one"), files.image("two")
	dir := files.list(named(one, "v1"), named(two, "other"), named(two, "v1")).dir(t)
	three := save(t, toLayout(t, dir, "v1"), "three")
	if got := entriesOf(t, dir); encode(got) != encode([]v1.Descriptor{named(three, "v1"), named(two, "other")}) {
		t.Errorf("got %+v", got)
	}
}

func TestToLayoutWithoutANameKeepsOtherImages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	one := save(t, toLayout(t, dir, ""), "one")
	for range 2 {
		save(t, toLayout(t, dir, ""), "two")
	}
	named := save(t, toLayout(t, dir, "v1"), "one")
	if names := namesOf(t, dir); !slices.Equal(names, []string{"", "", "v1"}) || named.Digest != one.Digest {
		t.Errorf("got %q", names)
	}
}

func TestToLayoutTakesAnIndexWithoutAList(t *testing.T) {
	const kind = `"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"`
	for _, index := range []string{`{` + kind + `}`, `{` + kind + `,"manifests":null}`} {
		files := newTree()
		files[v1.ImageIndexFile] = index
		dir := files.dir(t)
		save(t, toLayout(t, dir, "v1"), "one layer")
		if names := namesOf(t, dir); !slices.Equal(names, []string{"v1"}) {
			t.Errorf("%s: got %q", index, names)
		}
	}
}

func TestToLayoutRefusesWhatItCannotKeep(t *testing.T) {
	for _, c := range []struct{ what, name, content string }{
		{"an index.json that does not parse", v1.ImageIndexFile, `{"manifests":[`},
		{"an index.json that is a list", v1.ImageIndexFile, `[]`},
		{"an index.json that is null", v1.ImageIndexFile, `null`},
		{"an index.json with another list", v1.ImageIndexFile, `{"manifests":{"a":1}}`},
		{"an empty index.json", v1.ImageIndexFile, ``},
		{"another version", v1.ImageLayoutFile, `{"imageLayoutVersion":"2.0.0"}`},
		{"a version that does not parse", v1.ImageLayoutFile, `x`},
	} {
		files := newTree()
		files[c.name] = c.content
		dir := files.dir(t)
		_, err := source.ToLayout(dir, "v1")
		if !errors.Is(err, berth.ErrLayoutInvalid) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v", c.what, err)
		}
		if after := filesBelow(t, dir); encode(after) != encode(files) {
			t.Errorf("%s: the layout is now %v", c.what, after)
		}
	}
}

func TestToLayoutWhereNoneCanBe(t *testing.T) {
	occupied := file(t, []byte("a file"))
	for _, dir := range []string{occupied, filepath.Join(occupied, "below")} {
		if _, err := source.ToLayout(dir, ""); err == nil || !strings.Contains(err.Error(), "oci:"+dir) {
			t.Errorf("got %v", err)
		}
	}
}

func TestToLayoutDoesNotTrustAFileOfAnotherSize(t *testing.T) {
	files, root := oneImage()
	good := files[blobFile(root)]
	files[blobFile(root)] = "damaged"
	dir := files.dir(t)
	to := toLayout(t, dir, "v1")
	if there, err := to.Has(t.Context(), root); err != nil || there {
		t.Errorf("a damaged blob is there: %v, %v", there, err)
	}
	must(t, to.Put(t.Context(), root, strings.NewReader(good)))
	must(t, to.Commit(t.Context(), root))
	must(t, to.Close())
	if after := filesBelow(t, dir); after[blobFile(root)] != good {
		t.Errorf("the blob is %q", after[blobFile(root)])
	}
}

// Two writers that bring the same blob do not come into each other's way.
func TestToLayoutTwoWritersOfOneBlob(t *testing.T) {
	files := newTree()
	root := files.image("shared layer")
	layer := v1.Descriptor{Digest: digestOf("shared layer"), Size: int64(len("shared layer"))}
	dir := filepath.Join(t.TempDir(), "layout")
	slow, fast := toLayout(t, dir, "slow"), toLayout(t, dir, "fast")
	pipe, feed := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- slow.Put(t.Context(), layer, pipe) }()
	_, err := io.WriteString(feed, "shared ")
	must(t, err)
	save(t, fast, "shared layer")
	if got, err := os.ReadFile(filepath.Join(dir, blobFile(layer))); err != nil || string(got) != "shared layer" {
		t.Errorf("after the fast one the blob is %q, %v", got, err)
	}
	_, err = io.WriteString(feed, "layer")
	must(t, errors.Join(err, feed.Close(), <-done))
	save(t, slow, "shared layer")
	if got, err := os.ReadFile(filepath.Join(dir, blobFile(layer))); err != nil || string(got) != "shared layer" {
		t.Errorf("after both the blob is %q, %v", got, err)
	}
	for _, name := range []string{"slow", "fast"} {
		if got := rootOf(t, source.Layout(dir, name)); got != root.Digest {
			t.Errorf("%s is %s", name, got)
		}
	}
}

// No commit loses the name that another one has set meanwhile.
func TestToLayoutManyWritersAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	var group errgroup.Group
	var want []string
	for i := range 16 {
		name := fmt.Sprintf("v%02d", i)
		want = append(want, name)
		group.Go(func() error {
			files := newTree()
			root := files.image(name)
			to, err := source.ToLayout(dir, name)
			if err != nil {
				return err
			}
			for content, desc := range files.describeAll() {
				err = errors.Join(err, to.Put(t.Context(), desc, strings.NewReader(content)))
			}
			return errors.Join(err, to.Commit(t.Context(), root), to.Close())
		})
	}
	must(t, group.Wait())
	if names := namesOf(t, dir); !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	for _, name := range want {
		src := source.Layout(dir, name)
		layer := v1.Descriptor{Digest: digestOf(name), Size: int64(len(name))}
		if got, err := read(t, src, layer); err != nil || got != name {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		must(t, src.Close())
	}
}

// A directory that holds something else is left as it is.
func TestToLayoutAmongOtherFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.go"), "package main")
	if _, err := source.ToLayout(dir, "v1"); !errors.Is(err, berth.ErrLayoutInvalid) || !strings.Contains(err.Error(), "main.go") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("it holds %v now, %v", left, err)
	}
}

// A place that is closed takes nothing more.
func TestToLayoutAfterClose(t *testing.T) {
	to := toLayout(t, filepath.Join(t.TempDir(), "layout"), "v1")
	root := store(t, to, "one")
	must(t, to.Close())
	must(t, to.Close())
	if err := to.Commit(t.Context(), root); err == nil {
		t.Error("it was committed")
	}
	if err := to.Put(t.Context(), root, strings.NewReader("")); err == nil {
		t.Error("something was put")
	}
	if _, err := to.(source.Importer).PutFile(t.Context(), root, berth.LocalFile{}); err == nil {
		t.Error("a file was put")
	}
}
