package source_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

const goodVersion = `{"imageLayoutVersion":"1.0.0"}`

// tree is the files of a layout, by their paths in it.
type tree map[string]string

// newTree is a layout that holds no image yet.
func newTree() tree {
	return tree{v1.ImageLayoutFile: goodVersion, v1.ImageIndexFile: `{"schemaVersion":2,"manifests":[]}`}
}

// add puts content where its digest says.
func (t tree) add(mediaType, content string) v1.Descriptor {
	desc := manifest.Descriptor(mediaType, []byte(content))
	t[blobFile(desc)] = content
	return desc
}

func blobFile(desc v1.Descriptor) string {
	return "blobs/" + string(desc.Digest.Algorithm()) + "/" + desc.Digest.Encoded()
}

// image adds an image of one layer, and returns its manifest.
func (t tree) image(layer string) v1.Descriptor {
	m := v1.Manifest{
		MediaType: v1.MediaTypeImageManifest,
		Config:    t.add(v1.MediaTypeImageConfig, `{"architecture":"amd64","os":"linux"}`),
		Layers:    []v1.Descriptor{t.add(v1.MediaTypeImageLayer, layer)},
	}
	m.SchemaVersion = 2
	return t.add(v1.MediaTypeImageManifest, encode(m))
}

// list writes index.json.
func (t tree) list(entries ...v1.Descriptor) tree {
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: entries}
	index.SchemaVersion = 2
	t[v1.ImageIndexFile] = encode(index)
	return t
}

func encode(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // the values are the tests' own
	}
	return string(data)
}

func named(desc v1.Descriptor, name string) v1.Descriptor {
	desc.Annotations = map[string]string{v1.AnnotationRefName: name}
	return desc
}

// oneImage is a layout with the image "v1", and the descriptor of that.
func oneImage() (tree, v1.Descriptor) {
	t := newTree()
	root := t.image("one layer")
	return t.list(named(root, "v1")), root
}

// dir writes the files into a new directory.
func (t tree) dir(tb testing.TB) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "layout")
	for name, content := range t {
		write(tb, filepath.Join(dir, filepath.FromSlash(name)), content)
	}
	return dir
}

func write(tb testing.TB, file, content string) {
	tb.Helper()
	must(tb, os.MkdirAll(filepath.Dir(file), 0o755))
	must(tb, os.WriteFile(file, []byte(content), 0o644))
}

// entries are the files as tar entries, in the order of their names.
func (t tree) entries() []entry {
	var all []entry
	for _, name := range slices.Sorted(maps.Keys(t)) {
		all = append(all, entry{Name: name, body: t[name]})
	}
	return all
}

// entry is one header of a tar file, and what follows it.
type entry struct {
	Name   string
	Type   byte // zero: a file
	Link   string
	PAX    map[string]string
	Format tar.Format
	body   string
}

func pack(tb testing.TB, entries ...entry) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		header := &tar.Header{Name: e.Name, Typeflag: e.Type, Linkname: e.Link, PAXRecords: e.PAX, Format: e.Format, Size: int64(len(e.body)), Mode: 0o644}
		if e.Type == 0 {
			header.Typeflag = tar.TypeReg
		}
		must(tb, w.WriteHeader(header))
		_, err := io.WriteString(w, e.body)
		must(tb, err)
	}
	must(tb, w.Close())
	return out.Bytes()
}

// file writes content to a new file.
func file(tb testing.TB, content []byte) string {
	tb.Helper()
	name := filepath.Join(tb.TempDir(), "image.tar")
	must(tb, os.WriteFile(name, content, 0o644))
	return name
}

// forms are the same layout as a directory and as an archive.
func (t tree) forms(tb testing.TB, name string) map[string]source.Source {
	tb.Helper()
	forms := map[string]source.Source{
		"layout":  source.Layout(t.dir(tb), name),
		"archive": source.Archive(file(tb, pack(tb, t.entries()...)), name),
	}
	for _, s := range forms {
		tb.Cleanup(func() { must(tb, s.Close()) })
	}
	return forms
}

// read fetches content whole.
func read(tb testing.TB, s source.Source, desc v1.Descriptor) (string, error) {
	content, err := s.Fetch(tb.Context(), desc)
	if err != nil {
		return "", err
	}
	defer content.Close()
	data, err := io.ReadAll(content)
	return string(data), err
}

// describeAll are descriptors for all blobs of a tree.
func (t tree) describeAll() map[string]v1.Descriptor {
	all := map[string]v1.Descriptor{}
	for name, content := range t {
		if filepath.Dir(name) == "blobs/sha256" {
			all[content] = v1.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
		}
	}
	return all
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func digestOf(content string) digest.Digest { return digest.FromString(content) }

// rootOf is what a source's name means now.
func rootOf(tb testing.TB, s source.Source) digest.Digest {
	tb.Helper()
	defer s.Close()
	root, err := s.Root(tb.Context())
	must(tb, err)
	return root.Digest
}
