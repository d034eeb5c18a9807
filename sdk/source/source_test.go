package source_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/source"
)

func TestRootIsChosenByName(t *testing.T) {
	files := newTree()
	one, two := files.image("one"), files.image("two")
	cases := []struct {
		what    string
		entries []v1.Descriptor
		name    string
		want    v1.Descriptor
		err     error
		says    []string
	}{
		{"the only one", []v1.Descriptor{one}, "", one, nil, nil},
		{"the only one, which has a name", []v1.Descriptor{named(one, "v1")}, "", one, nil, nil},
		{"by name", []v1.Descriptor{named(one, "v1"), named(two, "v2")}, "v2", two, nil, nil},
		{"by a name like berth's", []v1.Descriptor{named(one, "app:v1"), named(two, "app:v2")}, "app:v1", one, nil, nil},
		{"the first of two with one name", []v1.Descriptor{named(one, "v1"), named(two, "v1")}, "v1", one, nil, nil},
		{"ambiguous", []v1.Descriptor{named(one, "v1"), named(two, "v2")}, "", one, berth.ErrManifestUnknown, []string{"2 images", "v1, v2"}},
		{"ambiguous without names", []v1.Descriptor{one, two}, "", one, berth.ErrManifestUnknown, []string{"2 images", "none has a name"}},
		{"no such name", []v1.Descriptor{named(one, "v1")}, "v3", one, berth.ErrManifestUnknown, []string{`"v3"`, "v1"}},
		{"a part of a name", []v1.Descriptor{named(one, "v1")}, "v", one, berth.ErrManifestUnknown, []string{`"v"`}},
		{"nothing in it", []v1.Descriptor{}, "", one, berth.ErrManifestUnknown, []string{"it holds no image"}},
		{"nothing in it, by name", []v1.Descriptor{}, "v1", one, berth.ErrManifestUnknown, []string{"it holds no image"}},
	}
	for _, c := range cases {
		files.list(c.entries...)
		for form, src := range files.forms(t, c.name) {
			t.Run(form+"/"+c.what, func(t *testing.T) {
				root, err := src.Root(t.Context())
				if !errors.Is(err, c.err) || (err == nil && root.Digest != c.want.Digest) {
					t.Fatalf("got %v, %v; want %v, %v", root.Digest, err, c.want.Digest, c.err)
				}
				for _, text := range c.says {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("%q does not say %q", err, text)
					}
				}
			})
		}
	}
}

func TestRootErrorListsFiveNamesAtMost(t *testing.T) {
	files := newTree()
	var entries []v1.Descriptor
	for i := range 20 {
		entries = append(entries, named(files.image("one"), fmt.Sprintf("tag-%02d", i)))
	}
	for form, src := range files.list(entries...).forms(t, "") {
		_, err := src.Root(t.Context())
		if err == nil || strings.Count(err.Error(), "tag-") != 5 {
			t.Errorf("%s: got %v", form, err)
		}
	}
}

func TestRootSaysNothingOfItsPlaceInTheIndex(t *testing.T) {
	files, root := oneImage()
	for form, src := range files.forms(t, "v1") {
		got, err := src.Root(t.Context())
		if err != nil || got.Annotations != nil || got.MediaType != root.MediaType || got.Size != root.Size {
			t.Errorf("%s: got %+v, %v", form, got, err)
		}
	}
}

func TestWhatIsNoLayoutIsRefused(t *testing.T) {
	for _, c := range []struct{ what, name, content, says string }{
		{"no oci-layout", v1.ImageLayoutFile, "", "it has no oci-layout"},
		{"oci-layout of another version", v1.ImageLayoutFile, `{"imageLayoutVersion":"2.0.0"}`, `"2.0.0"`},
		{"oci-layout without a version", v1.ImageLayoutFile, `{}`, "1.0.0 is understood"},
		{"oci-layout that does not parse", v1.ImageLayoutFile, `{`, "its oci-layout does not parse"},
		{"no index.json", v1.ImageIndexFile, "", "it has no index.json"},
		{"index.json that does not parse", v1.ImageIndexFile, `{"manifests":[`, "its index.json does not parse"},
		{"index.json of another shape", v1.ImageIndexFile, `["sha256:0"]`, "its index.json does not parse"},
	} {
		files, root := oneImage()
		files[c.name] = c.content
		if c.content == "" {
			delete(files, c.name)
		}
		for form, src := range files.forms(t, "") {
			_, err := src.Root(t.Context())
			if !errors.Is(err, berth.ErrLayoutInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: got %v", form, c.what, err)
			}
			if got, err := read(t, src, root); err != nil || got != files[blobFile(root)] {
				t.Errorf("%s, %s: what is known by digest cannot be fetched: %v", form, c.what, err)
			}
		}
	}
}

func TestAnIndexBeyondTheLimitIsRefused(t *testing.T) {
	files, _ := oneImage()
	files[v1.ImageIndexFile] += strings.Repeat(" ", 64<<20)
	for form, src := range files.forms(t, "v1") {
		_, err := src.Root(t.Context())
		if !errors.Is(err, berth.ErrLayoutInvalid) || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("%s: got %v", form, err)
		}
	}
}

func TestAnAbsentSourceIsNamed(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"oci:" + dir + "/absent", "oci-archive:" + dir + "/absent"} {
		src, err := source.Parse(text)
		must(t, err)
		_, err = src.Root(t.Context())
		if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), text+": ") || strings.Count(err.Error(), "absent") != 1 {
			t.Errorf("got %v", err)
		}
	}
}

func TestAFormThatDoesNotFitIsRefused(t *testing.T) {
	files, _ := oneImage()
	dir := files.dir(t)
	for text, src := range map[string]source.Source{
		"a directory as an archive": source.Archive(dir, ""),
		"a file as a layout":        source.Layout(filepath.Join(dir, v1.ImageIndexFile), ""),
	} {
		if _, err := src.Root(t.Context()); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestFetchReturnsWhatTheDescriptorNames(t *testing.T) {
	files, root := oneImage()
	empty := files.add("application/octet-stream", "")
	for form, src := range files.forms(t, "v1") {
		for content, desc := range files.describeAll() {
			if got, err := read(t, src, desc); err != nil || got != content {
				t.Errorf("%s: got %q, %v; want %q", form, got, err, content)
			}
		}
		if got, err := read(t, src, empty); err != nil || got != "" {
			t.Errorf("%s: got %q, %v for the empty blob", form, got, err)
		}
		if got, err := src.Root(t.Context()); err != nil || got.Digest != root.Digest {
			t.Errorf("%s: got %v, %v", form, got, err)
		}
	}
}

func TestFetchRefusesWhatIsNotThere(t *testing.T) {
	files, root := oneImage()
	longer, negative, other, invalid := root, root, root, root
	longer.Size++
	negative.Size = -1
	other.Digest = digestOf("what nobody has put")
	invalid.Digest = "sha256:../../index.json"
	for _, c := range []struct {
		what string
		desc v1.Descriptor
		err  error
	}{
		{"another size", longer, berth.ErrBlobUnknown},
		{"a negative size", negative, berth.ErrBlobUnknown},
		{"a digest that is not there", other, berth.ErrBlobUnknown},
		{"a digest that is a path", invalid, berth.ErrDigestInvalid},
		{"no digest", v1.Descriptor{}, berth.ErrDigestInvalid},
	} {
		for form, src := range files.forms(t, "") {
			_, err := read(t, src, c.desc)
			if !errors.Is(err, c.err) || (c.desc.Digest.Validate() == nil && !strings.Contains(err.Error(), string(c.desc.Digest))) {
				t.Errorf("%s, %s: got %v, want %v", form, c.what, err, c.err)
			}
		}
	}
}

// What lies at a blob's path must be a file of the layout: nothing else is opened.
func TestFetchOpensFilesOfTheLayoutAlone(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	write(t, outside, "one layer")
	for _, c := range []struct {
		what  string
		place func(path string) error
		says  string
	}{
		{"a directory", func(path string) error { return os.Mkdir(path, 0o755) }, "no regular file"},
		{"a symlink out of the layout", func(path string) error { return os.Symlink(outside, path) }, "escapes"},
		{"a relative symlink out of the layout", func(path string) error {
			return os.Symlink("../../../../../../../../../.."+outside, path)
		}, "escapes"},
		{"a symlink to nothing", func(path string) error { return os.Symlink("nothing", path) }, "missing"},
		{"a symlink to a directory", func(path string) error { return os.Symlink(".", path) }, "no regular file"},
		{"a pipe", makePipe, "no regular file"},
	} {
		t.Run(c.what, func(t *testing.T) {
			files, _ := oneImage()
			layer := files.add(v1.MediaTypeImageLayer, "one layer")
			dir := files.dir(t)
			path := filepath.Join(dir, blobFile(layer))
			must(t, os.Remove(path))
			if err := c.place(path); err != nil {
				t.Skip(err)
			}
			src := source.Layout(dir, "")
			defer src.Close()
			got, err := read(t, src, layer)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), string(layer.Digest)) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestFetchFollowsSymlinksWithinTheLayout(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symlinks need a privilege")
	}
	files, _ := oneImage()
	layer := files.add(v1.MediaTypeImageLayer, "one layer")
	dir := files.dir(t)
	path := filepath.Join(dir, blobFile(layer))
	must(t, os.Rename(path, filepath.Join(dir, "shared")))
	must(t, os.Symlink("../../shared", path))
	src := source.Layout(dir, "")
	defer src.Close()
	if got, err := read(t, src, layer); err != nil || got != "one layer" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFetchAtOnce(t *testing.T) {
	files := newTree()
	for i := range 20 {
		files.add(v1.MediaTypeImageLayer, strings.Repeat(fmt.Sprint(i, "/"), 5000))
	}
	files.list(files.image("one layer"))
	for form, src := range files.forms(t, "") {
		t.Run(form, func(t *testing.T) {
			var group errgroup.Group
			for range 4 {
				for content, desc := range files.describeAll() {
					group.Go(func() error { return fetchAndCompare(t.Context(), src, desc, content) })
				}
				group.Go(func() error {
					_, err := src.Root(t.Context())
					return err
				})
			}
			if err := group.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

func fetchAndCompare(ctx context.Context, src source.Source, desc v1.Descriptor, want string) error {
	content, err := src.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer content.Close()
	got, err := io.ReadAll(content)
	if err == nil && string(got) != want {
		err = fmt.Errorf("%s: got %d other bytes", desc.Digest, len(got))
	}
	return err
}

func TestCloseIsNoEnd(t *testing.T) {
	files, root := oneImage()
	for form, src := range files.forms(t, "v1") {
		must(t, src.Close())
		if got, err := src.Root(t.Context()); err != nil || got.Digest != root.Digest {
			t.Errorf("%s: got %v, %v before the second Close", form, got, err)
		}
		must(t, src.Close())
		must(t, src.Close())
	}
}

// Who is not waited for any more is not told that an image is damaged.
func TestACancelledReading(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	files, _ := oneImage()
	for _, src := range []source.Source{source.Layout(files.dir(t), ""), source.Archive(file(t, pack(t, files.entries()...)), "")} {
		_, err := src.Root(over)
		if !errors.Is(err, context.Canceled) || errors.Is(err, berth.ErrLayoutInvalid) {
			t.Errorf("got %v", err)
		}
		must(t, src.Close())
	}
}

// What ends within the head of its compression is as damaged as what ends later.
func TestACompressedArchiveCutShort(t *testing.T) {
	files, _ := oneImage()
	var whole bytes.Buffer
	to := gzip.NewWriter(&whole)
	_, err := to.Write(pack(t, files.entries()...))
	must(t, errors.Join(err, to.Close()))
	for size := range 40 {
		for _, open := range []func(file, name string) source.Source{source.Archive, source.DockerArchive} {
			src := open(file(t, whole.Bytes()[:size]), "")
			if _, err := src.Root(t.Context()); !errors.Is(err, source.ErrArchive) {
				t.Errorf("%d bytes: got %v", size, err)
			}
			must(t, src.Close())
		}
	}
}

func TestALayoutThatIsAFile(t *testing.T) {
	_, err := source.Layout(file(t, []byte("a file")), "").Root(t.Context())
	if !errors.Is(err, berth.ErrLayoutInvalid) || !strings.Contains(err.Error(), "oci-archive:") {
		t.Errorf("got %v", err)
	}
}
