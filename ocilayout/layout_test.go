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
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/registrytest"
)

func TestContract(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) berth.Registry { return open(t, t.TempDir()) })
}

// open opens a layout for the time of a test.
func open(t *testing.T, dir string) *Layout {
	t.Helper()
	return openWith(t, dir, nil)
}

func openWith(t *testing.T, dir string, opts *Options) *Layout {
	t.Helper()
	l, err := Open(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func repo(t *testing.T, l *Layout, name string) berth.Repository {
	t.Helper()
	r, err := l.Repository(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// image is an image of one layer that a test has pushed.
type image struct {
	layer, config v1.Descriptor
	desc          v1.Descriptor
}

// pushImage stores an image whose layer has that content, under tags.
func pushImage(t *testing.T, r berth.Repository, content string, tags ...string) image {
	t.Helper()
	img := image{layer: uploadBlob(t, r, content), config: uploadBlob(t, r, `{"os":"linux"}`)}
	raw := encode(t, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: img.config.Digest, Size: img.config.Size},
		Layers:    []v1.Descriptor{{MediaType: v1.MediaTypeImageLayer, Digest: img.layer.Digest, Size: img.layer.Size}},
	})
	var err error
	if img.desc, err = r.PushManifest(t.Context(), raw, &berth.PushOptions{Tags: tags}); err != nil {
		t.Fatal(err)
	}
	return img
}

func uploadBlob(t *testing.T, r berth.Repository, content string) v1.Descriptor {
	t.Helper()
	up, err := r.NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	desc, err := up.Commit(t.Context(), digest.FromString(content))
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// wantImage checks that a tag leads to a whole image.
func wantImage(t *testing.T, l *Layout, name, tag string, want image) {
	t.Helper()
	r := repo(t, l, name)
	m, err := r.FetchManifest(t.Context(), tag, nil)
	if err != nil {
		t.Errorf("%s:%s: %v", name, tag, err)
		return
	}
	if m.Descriptor.Digest != want.desc.Digest {
		t.Errorf("%s:%s is %s, want %s", name, tag, m.Descriptor.Digest, want.desc.Digest)
	}
	for _, desc := range []v1.Descriptor{want.config, want.layer} {
		wantBlob(t, r, desc)
	}
}

func wantBlob(t *testing.T, r berth.Repository, desc v1.Descriptor) {
	t.Helper()
	blob, err := r.OpenBlob(t.Context(), desc.Digest)
	if err != nil {
		t.Error(err)
		return
	}
	defer blob.Close()
	got, err := desc.Digest.Algorithm().FromReader(blob)
	if err != nil || got != desc.Digest {
		t.Errorf("%s reads as %s, %v", desc.Digest, got, err)
	}
}

// names lists what index.json names, as another tool would read it.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	for _, desc := range readIndex(t, dir).Manifests {
		all = append(all, desc.Annotations[v1.AnnotationRefName])
	}
	slices.Sort(all)
	return all
}

func readIndex(t *testing.T, dir string) v1.Index {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index v1.Index
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	return index
}

func flush(t *testing.T, l *Layout) {
	t.Helper()
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("index.json names %q, want %q", got, want)
	}
}

func TestOpenMakesAPlainLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "layout")
	open(t, dir)
	data, err := os.ReadFile(filepath.Join(dir, "oci-layout"))
	if err != nil || !strings.Contains(string(data), `"imageLayoutVersion":"1.0.0"`) {
		t.Errorf("oci-layout is %s, %v", data, err)
	}
	if index := readIndex(t, dir); index.SchemaVersion != 2 || index.MediaType != v1.MediaTypeImageIndex {
		t.Errorf("index.json is %+v", index)
	}
	info, err := os.Stat(filepath.Join(dir, ".berth"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf(".berth is %v, %v", info.Mode(), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(name, content string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, prepare := range map[string]func(*testing.T, string){
		"a directory of other files":        write("main.go", "package main"),
		"another version":                   write("oci-layout", `{"imageLayoutVersion":"9.0.0"}`),
		"an oci-layout that does not parse": write("oci-layout", `{`),
		"an index.json that does not parse": write("index.json", `{"manifests":[`),
		"manifests that are no list":        write("index.json", `{"manifests":{"a":1}}`),
		"another index.json":                write("index.json", `{"name":"site"}`),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			prepare(t, dir)
			_, err := Open(t.Context(), dir, nil)
			if !errors.Is(err, berth.ErrLayoutInvalid) {
				t.Errorf("got %v, want ErrLayoutInvalid", err)
			}
			if err != nil && !strings.Contains(err.Error(), dir) {
				t.Errorf("%q does not name the directory", err)
			}
		})
	}
}

func TestASecondOwnerIsRefused(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	if _, err := Open(t.Context(), dir, nil); !errors.Is(err, berth.ErrLayoutInUse) {
		t.Errorf("got %v, want ErrLayoutInUse", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestReopenFindsEverything(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app/hello"), "layer", "v1", "latest")
	untagged := pushImage(t, repo(t, l, "app/other"), "another layer")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	wantImage(t, l, "app/hello", "v1", img)
	wantImage(t, l, "app/hello", "latest", img)
	wantImage(t, l, "app/other", string(untagged.desc.Digest), untagged)
}

func TestAfterCloseNothingIsTaken(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	img := pushImage(t, r, "layer", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Untag(t.Context(), "v1", nil); err == nil {
		t.Error("a tag was removed")
	}
	if _, err := r.StatBlob(t.Context(), img.layer.Digest); err == nil {
		t.Error("a blob was found")
	}
	if err := l.Close(); err != nil {
		t.Error("a second Close:", err)
	}
}
