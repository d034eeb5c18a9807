package source_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// saved is an archive as docker save wrote it for years: a config, and a directory for each layer.
func saved(names []string, layers ...string) tree {
	var ids []digest.Digest
	var files []string
	t := tree{}
	for _, layer := range layers {
		id := digest.FromString(layer)
		ids = append(ids, id)
		files = append(files, id.Encoded()+"/layer.tar")
		t[files[len(files)-1]] = layer
	}
	config := encode(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	name := digest.FromString(config).Encoded() + ".json"
	t[name] = config
	t["manifest.json"] = encode([]map[string]any{{"Config": name, "RepoTags": names, "Layers": files}})
	return t
}

func fromDocker(tb testing.TB, content []byte, name string) source.Source {
	tb.Helper()
	src := source.DockerArchive(file(tb, content), name)
	tb.Cleanup(func() { must(tb, src.Close()) })
	return src
}

// imageOf reads an image as who pushes it does: its config, and its layers.
func imageOf(tb testing.TB, src source.Source) (config string, layers []string) {
	tb.Helper()
	root, err := src.Root(tb.Context())
	must(tb, err)
	raw, err := read(tb, src, root)
	must(tb, err)
	must(tb, manifest.Verify(root, []byte(raw)))
	doc, err := manifest.Parse(root.MediaType, []byte(raw))
	must(tb, err)
	for _, desc := range append([]v1.Descriptor{*doc.Config}, doc.Layers...) {
		content, err := read(tb, src, desc)
		must(tb, err)
		if digest.FromString(content) != desc.Digest || int64(len(content)) != desc.Size {
			tb.Errorf("%v is not what its descriptor says", desc)
		}
		layers = append(layers, content)
	}
	return layers[0], layers[1:]
}

func TestDockerArchive(t *testing.T) {
	files := saved([]string{"app/hello:v1"}, "base", "top", "base")
	plain := pack(t, files.entries()...)
	for what, content := range map[string][]byte{"plain": plain, "gzip": gzipped(t, plain), "zstd": zstandard(t, plain)} {
		src := fromDocker(t, content, "")
		config, layers := imageOf(t, src)
		if files[digest.FromString(config).Encoded()+".json"] != config || strings.Join(layers, " ") != "base top base" {
			t.Errorf("%s: got %s, %q", what, config, layers)
		}
		if root, err := src.Root(t.Context()); err != nil || root.MediaType != v1.MediaTypeImageManifest {
			t.Errorf("%s: got %v, %v", what, root, err)
		}
	}
}

func gzipped(tb testing.TB, plain []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(plain)
	must(tb, errors.Join(err, w.Close()))
	return out.Bytes()
}

func zstandard(tb testing.TB, plain []byte) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	must(tb, err)
	return w.EncodeAll(plain, nil)
}

// Docker before 1.10 and after wrote links for layers that were there already.
func TestDockerArchiveFollowsItsLinks(t *testing.T) {
	files := saved(nil, "base", "top")
	top := digest.FromString("top").Encoded()
	delete(files, top+"/layer.tar")
	files["elsewhere/layer.tar"] = "top"
	for _, link := range []entry{
		{Name: top + "/layer.tar", Type: tar.TypeSymlink, Link: "../elsewhere/layer.tar"},
		{Name: top + "/layer.tar", Type: tar.TypeLink, Link: "elsewhere/layer.tar"},
	} {
		_, layers := imageOf(t, fromDocker(t, pack(t, append(files.entries(), link)...), ""))
		if strings.Join(layers, " ") != "base top" {
			t.Errorf("got %q", layers)
		}
	}
	for _, to := range []string{"/etc/passwd", "../../etc/passwd", top + "/layer.tar", "layer.tar", "nothing"} {
		src := fromDocker(t, pack(t, append(files.entries(), entry{Name: top + "/layer.tar", Type: tar.TypeSymlink, Link: to})...), "")
		if _, err := src.Root(t.Context()); !errors.Is(err, source.ErrDockerArchive) || !strings.Contains(err.Error(), top+"/layer.tar") {
			t.Errorf("to %s: got %v", to, err)
		}
	}
}

func TestDockerArchiveWithCompressedLayers(t *testing.T) {
	files := saved(nil, "one", "two")
	for layer, compressed := range map[string][]byte{"one": gzipped(t, []byte("one")), "two": zstandard(t, []byte("two"))} {
		files[digest.FromString(layer).Encoded()+"/layer.tar"] = string(compressed)
	}
	src := fromDocker(t, pack(t, files.entries()...), "")
	_, layers := imageOf(t, src)
	if len(layers) != 2 || !strings.HasPrefix(layers[0], "\x1f\x8b") {
		t.Errorf("got %q", layers)
	}
	root, err := src.Root(t.Context())
	must(t, err)
	raw, err := read(t, src, root)
	must(t, err)
	if !strings.Contains(raw, "layer.v1.tar+gzip") || !strings.Contains(raw, "layer.v1.tar+zstd") {
		t.Errorf("the types are in %s", raw)
	}
}

// What newer docker saves is an image layout as well, whose manifest is kept.
func TestDockerArchiveThatIsALayout(t *testing.T) {
	files, root := oneImage()
	var m v1.Manifest
	must(t, json.Unmarshal([]byte(files[blobFile(root)]), &m))
	list := []map[string]any{{"Config": blobFile(m.Config), "RepoTags": []string{"app:v1"}, "Layers": []string{blobFile(m.Layers[0])}}}
	files["manifest.json"] = encode(list)
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{{MediaType: root.MediaType, Digest: digestOf("absent"), Size: 5}, root}}
	index.SchemaVersion = 2
	for _, top := range []v1.Descriptor{root, files.add(v1.MediaTypeImageIndex, encode(index))} {
		files.list(top)
		src := fromDocker(t, pack(t, files.entries()...), "app:v1")
		if got, err := src.Root(t.Context()); err != nil || got.Digest != root.Digest {
			t.Errorf("got %v, %v; want %s", got, err, root.Digest)
		}
		imageOf(t, src)
	}
}

func TestDockerArchiveOfSeveralImages(t *testing.T) {
	one, two := saved([]string{"app:v1", "team/app:v2"}, "one"), saved([]string{"docker.io/library/other:latest"}, "two")
	both := tree{}
	for _, files := range []tree{one, two} {
		for name, content := range files {
			both[name] = content
		}
	}
	both["manifest.json"] = strings.TrimSuffix(one["manifest.json"], "]") + "," + strings.TrimPrefix(two["manifest.json"], "[")
	content := pack(t, both.entries()...)
	for name, layer := range map[string]string{"app:v1": "one", "team/app:v2": "one", "docker.io/library/app:v1": "one", "other": "two", "other:latest": "two"} {
		if _, layers := imageOf(t, fromDocker(t, content, name)); layers[0] != layer {
			t.Errorf("%s: got %q", name, layers)
		}
	}
	for name, says := range map[string]string{"": "app:v1, team/app:v2", "app": "app:v1", "localhost/app:v1": "app:v1"} {
		if _, err := fromDocker(t, content, name).Root(t.Context()); !errors.Is(err, berth.ErrManifestUnknown) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestDockerArchivesThatAreNone(t *testing.T) {
	config := func(t tree) string {
		for name := range t {
			if !strings.Contains(name, "/") && name != "manifest.json" {
				return name
			}
		}
		return ""
	}
	for what, c := range map[string]struct {
		change func(tree)
		says   string
	}{
		"no list":             {func(t tree) { delete(t, "manifest.json") }, "it has no manifest.json"},
		"a list that is none": {func(t tree) { t["manifest.json"] = "{" }, "does not parse"},
		"no config":           {func(t tree) { delete(t, config(t)) }, "its config"},
		"a config of more":    {func(t tree) { t[config(t)] = `{"rootfs":{"diff_ids":["a","b"]}}` }, "2 layers, and it has 1"},
		"a config of nothing": {func(t tree) { t[config(t)] = `[]` }, "does not parse"},
		"no digest":           {func(t tree) { t[config(t)] = `{"rootfs":{"diff_ids":["a"]}}` }, "its layer"},
		"no layer":            {func(t tree) { delete(t, digest.FromString("layer").Encoded()+"/layer.tar") }, "its layer"},
	} {
		files := saved(nil, "layer")
		c.change(files)
		_, err := fromDocker(t, pack(t, files.entries()...), "").Root(t.Context())
		if !errors.Is(err, source.ErrDockerArchive) || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "docker-archive:/") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for what, content := range map[string][]byte{"no tar file": []byte(strings.Repeat("something else ", 500)), "nothing": nil} {
		_, err := fromDocker(t, content, "").Root(t.Context())
		if !errors.Is(err, source.ErrDockerArchive) || !errors.Is(err, source.ErrArchive) || errors.Is(err, berth.ErrLayoutInvalid) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	layout, _ := oneImage()
	if _, err := fromDocker(t, pack(t, layout.entries()...), "").Root(t.Context()); err == nil || !strings.Contains(err.Error(), "oci-archive:") {
		t.Errorf("a layout: got %v", err)
	}
	if _, err := source.Archive(file(t, pack(t, saved(nil, "layer").entries()...)), "").Root(t.Context()); err == nil || !strings.Contains(err.Error(), "docker-archive:") {
		t.Errorf("as a layout: got %v", err)
	}
	if _, err := fromDocker(t, pack(t, entry{Name: "manifest.json", body: "[]"}), "").Root(t.Context()); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("no image: got %v", err)
	}
}

// What is written through a pipe is read once, as it comes.
func TestArchiveThroughAPipe(t *testing.T) {
	files := saved(nil, "layer")
	for what, content := range map[string][]byte{"plain": pack(t, files.entries()...), "gzip": gzipped(t, pack(t, files.entries()...))} {
		pipe := filepath.Join(t.TempDir(), "pipe")
		if err := makePipe(pipe); err != nil {
			t.Skip(err)
		}
		written := make(chan error, 1)
		go func() { written <- os.WriteFile(pipe, content, 0) }()
		src := source.DockerArchive(pipe, "")
		if _, layers := imageOf(t, src); layers[0] != "layer" {
			t.Errorf("%s: got %q", what, layers)
		}
		must(t, errors.Join(<-written, src.Close()))
	}
}

func TestAPipeThatNobodyWritesTo(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := makePipe(pipe); err != nil {
		t.Skip(err)
	}
	for _, silent := range []bool{false, true} { // nobody comes; somebody comes, and says nothing
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() {
			_, err := source.Archive(pipe, "").Root(ctx)
			got <- err
		}()
		if silent {
			w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
			must(t, err)
			defer w.Close()
		}
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

func TestToDockerArchive(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.tar")
	to, err := source.ToDockerArchive(name, "app/hello:v1")
	must(t, err)
	root := save(t, to, "one layer")
	for _, src := range []source.Source{source.DockerArchive(name, "app/hello:v1"), source.DockerArchive(name, ""), source.Archive(name, "v1")} {
		if got := rootOf(t, src); got != root.Digest {
			t.Errorf("%v: got %s, want %s", src, got, root.Digest)
		}
	}
	_, files := unpack(t, name)
	var list []struct {
		Config           string
		RepoTags, Layers []string
	}
	must(t, json.Unmarshal([]byte(files["manifest.json"]), &list))
	if len(list) != 1 || len(list[0].Layers) != 1 || list[0].RepoTags[0] != "app/hello:v1" || files[list[0].Layers[0]] != "one layer" || files[list[0].Config] == "" {
		t.Errorf("got %+v", list)
	}
	if !strings.Contains(files[v1.ImageIndexFile], `"io.containerd.image.name":"docker.io/app/hello:v1"`) {
		t.Errorf("index.json is %s", files[v1.ImageIndexFile])
	}
}

func TestToDockerArchiveWithNamesThatDockerRefuses(t *testing.T) {
	for _, name := range []string{"Bad Name", "UPPER/x", "x/y@sha256:00", ":v1", "x:", "x:a b", "reg.test:5/A", "x@sha256:" + strings.Repeat("a", 64)} {
		dir := t.TempDir()
		to, err := source.ToDockerArchive(filepath.Join(dir, "image.tar"), name)
		if err == nil {
			to.Close()
			t.Errorf("%q is taken", name)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%q: left behind %v, %v", name, left, err)
		}
	}
	for _, name := range []string{"x", "x:v1", "a/b/c:v1", "reg.test:5/a/b:v1", "localhost/x", "library/x:v1"} {
		to, err := source.ToDockerArchive(filepath.Join(t.TempDir(), "image.tar"), name)
		must(t, err)
		must(t, to.Close())
	}
}

func TestToDockerArchiveOfAnIndex(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.tar")
	to, err := source.ToDockerArchive(name, "")
	must(t, err)
	index := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[]}`
	desc := manifest.Descriptor(v1.MediaTypeImageIndex, []byte(index))
	for what, err := range map[string]error{
		"before": to.(source.Chooser).Accepts(desc),
		"put":    to.Put(t.Context(), desc, strings.NewReader(index)),
		"after":  to.Commit(t.Context(), desc),
	} {
		if what != "put" && (!errors.Is(err, berth.ErrUnsupported) || !strings.Contains(err.Error(), "it is an index")) || what == "put" && err != nil {
			t.Errorf("%s: got %v", what, err)
		}
	}
	must(t, to.Close())
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}
