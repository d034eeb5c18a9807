package source_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/source"
)

// store puts an image of one layer, without committing it, and returns its manifest.
func store(tb testing.TB, to source.Destination, layer string) v1.Descriptor {
	tb.Helper()
	files := newTree()
	root := files.image(layer)
	for content, desc := range files.describeAll() {
		must(tb, to.Put(tb.Context(), desc, strings.NewReader(content)))
	}
	return root
}

// save writes an image to a destination, whole.
func save(tb testing.TB, to source.Destination, layer string) v1.Descriptor {
	tb.Helper()
	root := store(tb, to, layer)
	must(tb, to.Commit(tb.Context(), root))
	must(tb, to.Close())
	return root
}

// opener makes a place in a directory, in one form.
type opener struct {
	form string
	path func(dir string) string
	to   func(path, name string) (source.Destination, error)
	from func(path, name string) source.Source
}

var openers = []opener{
	{"layout", func(dir string) string { return filepath.Join(dir, "layout") }, source.ToLayout, source.Layout},
	{"archive", func(dir string) string { return filepath.Join(dir, "image.tar") }, source.ToArchive, source.Archive},
}

func eachForm(t *testing.T, run func(t *testing.T, o opener, path string)) {
	for _, o := range openers {
		t.Run(o.form, func(t *testing.T) { run(t, o, o.path(t.TempDir())) })
	}
}

// filesBelow are all files, by their paths, and their content.
func filesBelow(tb testing.TB, dir string) tree {
	tb.Helper()
	all := tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[filepath.ToSlash(name)] = string(content)
		return err
	})
	must(tb, err)
	return all
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	eachForm(t, func(t *testing.T, o opener, path string) {
		to, err := o.to(path, "app:v1")
		must(t, err)
		root := save(t, to, "one layer")
		files := newTree()
		files.image("one layer")
		for _, name := range []string{"app:v1", ""} {
			src := o.from(path, name)
			if got, err := src.Root(t.Context()); err != nil || got.Digest != root.Digest || got.MediaType != root.MediaType {
				t.Errorf("name %q: got %v, %v", name, got, err)
			}
			for want, desc := range files.describeAll() {
				if got, err := read(t, src, desc); err != nil || got != want {
					t.Errorf("got %q, %v; want %q", got, err, want)
				}
			}
			must(t, src.Close())
		}
	})
}

// copyAll brings all blobs of a tree from a source to a destination, and commits the root.
func copyAll(t *testing.T, from source.Source, to source.Destination, files tree) v1.Descriptor {
	t.Helper()
	defer func() { must(t, errors.Join(from.Close(), to.Close())) }()
	root, err := from.Root(t.Context())
	must(t, err)
	for _, desc := range files.describeAll() {
		content, err := from.Fetch(t.Context(), desc)
		must(t, err)
		must(t, to.Put(t.Context(), desc, content))
		must(t, content.Close())
	}
	must(t, to.Commit(t.Context(), root))
	return root
}

func TestAnImageKeepsItsDigestFromFormToForm(t *testing.T) {
	files, want := oneImage()
	dir, place := t.TempDir(), files.dir(t)
	from := source.Layout(place, "v1")
	for i, form := range []string{"oci", "oci-archive", "oci", "oci"} {
		text := fmt.Sprintf("%s:%s/%d:v1", form, dir, i)
		to, err := source.ParseDestination(text)
		must(t, err)
		if root := copyAll(t, from, to, files); root.Digest != want.Digest {
			t.Errorf("%s: got %s, want %s", text, root.Digest, want.Digest)
		}
		from, err = source.Parse(text)
		must(t, err)
	}
	must(t, from.Close())
	last := filesBelow(t, filepath.Join(dir, "3"))
	for name, content := range files {
		if strings.HasPrefix(name, "blobs/") && last[name] != content {
			t.Errorf("%s: got %q, want %q", name, last[name], content)
		}
	}
	if len(last) != len(files) {
		t.Errorf("the last layout has %d files, want %d", len(last), len(files))
	}
}

func TestWrongBytesAreRefusedAndLeaveNothing(t *testing.T) {
	content := "one layer"
	desc := v1.Descriptor{Digest: digestOf(content), Size: int64(len(content))}
	shorter, negative := desc, desc
	shorter.Size, negative.Size = desc.Size-1, -1
	broken := errors.New("broken")
	eachForm(t, func(t *testing.T, o opener, path string) {
		for _, c := range []struct {
			what    string
			desc    v1.Descriptor
			content io.Reader
			err     error
		}{
			{"other bytes", desc, strings.NewReader("two layer"), berth.ErrDigestInvalid},
			{"too few", desc, strings.NewReader("one"), berth.ErrDigestInvalid},
			{"none", desc, strings.NewReader(""), berth.ErrDigestInvalid},
			{"too many", desc, strings.NewReader(content + "!"), berth.ErrDigestInvalid},
			{"a descriptor that is too small", shorter, strings.NewReader(content), berth.ErrDigestInvalid},
			{"a negative size", negative, strings.NewReader(content), berth.ErrDigestInvalid},
			{"a digest that is none", v1.Descriptor{Digest: "sha256:x"}, strings.NewReader(""), berth.ErrDigestInvalid},
			{"a reader that breaks", desc, io.MultiReader(strings.NewReader("one"), iotest.ErrReader(broken)), broken},
		} {
			to, err := o.to(path, "v1")
			must(t, err)
			if err := to.Put(t.Context(), c.desc, c.content); !errors.Is(err, c.err) {
				t.Errorf("%s: got %v, want %v", c.what, err, c.err)
			}
			if there, err := to.Has(t.Context(), desc); err != nil || there {
				t.Errorf("%s: it is there: %v, %v", c.what, there, err)
			}
			must(t, to.Close())
		}
		if left := filesBelow(t, filepath.Dir(path)); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// A blob that came wrong once may come again, and what is committed then is right.
func TestAFailedPutCanBeRepeated(t *testing.T) {
	eachForm(t, func(t *testing.T, o opener, path string) {
		to, err := o.to(path, "v1")
		must(t, err)
		layer := v1.Descriptor{Digest: digestOf("one layer"), Size: 9}
		for _, wrong := range []string{"two layer", "one", "one layer and more"} {
			if err := to.Put(t.Context(), layer, strings.NewReader(wrong)); !errors.Is(err, berth.ErrDigestInvalid) {
				t.Fatalf("got %v, want ErrDigestInvalid", err)
			}
		}
		root := save(t, to, "one layer")
		src := o.from(path, "v1")
		defer src.Close()
		if got, err := src.Root(t.Context()); err != nil || got.Digest != root.Digest {
			t.Errorf("got %v, %v", got, err)
		}
		if got, err := read(t, src, layer); err != nil || got != "one layer" {
			t.Errorf("got %q, %v", got, err)
		}
		content, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(content), "two layer") {
			t.Error("the archive holds bytes that were refused")
		}
	})
}

func TestCloseWithoutCommitLeavesNoFile(t *testing.T) {
	eachForm(t, func(t *testing.T, o opener, path string) {
		to, err := o.to(path, "v1")
		must(t, err)
		store(t, to, "one layer")
		must(t, to.Close())
		must(t, to.Close())
		left, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}

func TestNothingIsSeenBeforeCommit(t *testing.T) {
	eachForm(t, func(t *testing.T, o opener, path string) {
		first, err := o.to(path, "v1")
		must(t, err)
		old := save(t, first, "old")
		before := filesBelow(t, filepath.Dir(path))
		second, err := o.to(path, "v1")
		must(t, err)
		root := store(t, second, "new")
		if got := rootOf(t, o.from(path, "v1")); got != old.Digest {
			t.Errorf("the name is %s before the commit, want %s", got, old.Digest)
		}
		must(t, second.Close())
		if after := filesBelow(t, filepath.Dir(path)); encode(after) != encode(before) {
			t.Errorf("before:\n%v\nafter:\n%v", before, after)
		}
		third, err := o.to(path, "v1")
		must(t, err)
		save(t, third, "new")
		if got := rootOf(t, o.from(path, "v1")); got != root.Digest {
			t.Errorf("the name is %s after the commit, want %s", got, root.Digest)
		}
	})
}

func TestCommitOfWhatIsNotThereIsRefused(t *testing.T) {
	_, root := oneImage()
	eachForm(t, func(t *testing.T, o opener, path string) {
		to, err := o.to(path, "v1")
		must(t, err)
		if err := to.Commit(t.Context(), root); !errors.Is(err, berth.ErrBlobUnknown) {
			t.Errorf("got %v, want ErrBlobUnknown", err)
		}
		must(t, to.Close())
		if left := filesBelow(t, filepath.Dir(path)); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestCommitThatIsCancelledNamesNothing(t *testing.T) {
	eachForm(t, func(t *testing.T, o opener, path string) {
		to, err := o.to(path, "v1")
		must(t, err)
		root := store(t, to, "one layer")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := to.Commit(ctx, root); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		must(t, to.Close())
		if left := filesBelow(t, filepath.Dir(path)); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestHasTellsWhatWasPut(t *testing.T) {
	files, root := oneImage()
	other := root
	other.Size++
	eachForm(t, func(t *testing.T, o opener, path string) {
		to, err := o.to(path, "")
		must(t, err)
		defer to.Close()
		has := func(desc v1.Descriptor) bool {
			there, err := to.Has(t.Context(), desc)
			must(t, err)
			return there
		}
		if has(root) {
			t.Error("it is there before it was put")
		}
		must(t, to.Put(t.Context(), root, strings.NewReader(files[blobFile(root)])))
		if !has(root) || has(other) {
			t.Errorf("it is there: %v, with another size: %v", has(root), has(other))
		}
		if _, err := to.Has(t.Context(), v1.Descriptor{Digest: "none"}); !errors.Is(err, berth.ErrDigestInvalid) {
			t.Errorf("got %v, want ErrDigestInvalid", err)
		}
	})
}

func TestPutAtOnce(t *testing.T) {
	files := newTree()
	root := files.image("one layer")
	for i := range 20 {
		files.add(v1.MediaTypeImageLayer, strings.Repeat(fmt.Sprint(i, "/"), 5000))
	}
	eachForm(t, func(t *testing.T, o opener, path string) {
		to, err := o.to(path, "v1")
		must(t, err)
		var group errgroup.Group
		for range 3 {
			for content, desc := range files.describeAll() {
				group.Go(func() error {
					return to.Put(t.Context(), desc, iotest.OneByteReader(strings.NewReader(content)))
				})
			}
		}
		must(t, group.Wait())
		must(t, to.Commit(t.Context(), root))
		must(t, to.Close())
		src := o.from(path, "v1")
		defer src.Close()
		for want, desc := range files.describeAll() {
			if got, err := read(t, src, desc); err != nil || got != want {
				t.Errorf("%s: got %d bytes, %v", desc.Digest, len(got), err)
			}
		}
	})
}

// entriesOf reads the entries of a layout's index.json.
func entriesOf(tb testing.TB, dir string) []v1.Descriptor {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(dir, v1.ImageIndexFile))
	must(tb, err)
	return entriesIn(tb, string(data))
}

func entriesIn(tb testing.TB, data string) []v1.Descriptor {
	tb.Helper()
	var index v1.Index
	must(tb, json.Unmarshal([]byte(data), &index))
	if index.SchemaVersion != 2 || index.MediaType != v1.MediaTypeImageIndex {
		tb.Errorf("index.json is of version %d and type %q", index.SchemaVersion, index.MediaType)
	}
	return index.Manifests
}

func namesOf(tb testing.TB, dir string) []string {
	tb.Helper()
	var names []string
	for _, e := range entriesOf(tb, dir) {
		names = append(names, e.Annotations[v1.AnnotationRefName])
	}
	return slices.Sorted(slices.Values(names))
}
