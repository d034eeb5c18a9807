package source_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

var linuxARM = v1.Platform{OS: "linux", Architecture: "arm64"}

// someFiles is a tree in memory.
func someFiles() fstest.MapFS {
	return fstest.MapFS{
		"bin/app":      {Data: []byte("app"), Mode: 0o755, ModTime: time.Now()},
		"etc/app.conf": {Data: []byte("conf"), Mode: 0o600},
		"etc/link":     {Data: []byte("app.conf"), Mode: fs.ModeSymlink | 0o777},
		"empty":        {Mode: fs.ModeDir | 0o700},
	}
}

// documents are the manifest and the config of a source's image.
func documents(tb testing.TB, src source.Source) (m v1.Manifest, config v1.Image) {
	tb.Helper()
	root, err := src.Root(tb.Context())
	must(tb, err)
	raw, err := read(tb, src, root)
	must(tb, err)
	must(tb, json.Unmarshal([]byte(raw), &m))
	raw, err = read(tb, src, m.Config)
	must(tb, err)
	must(tb, json.Unmarshal([]byte(raw), &config))
	return m, config
}

// listing is a layer's files, as tar tells them.
func listing(tb testing.TB, layer io.Reader) (lines []string) {
	tb.Helper()
	for r := tar.NewReader(layer); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		must(tb, err)
		content, err := io.ReadAll(r)
		must(tb, err)
		line := strings.TrimSpace(fs.FileMode(header.Mode).String() + " " + header.Name + " " + header.Linkname + string(content))
		if header.Uid != 7 || header.Gid != 8 || !header.ModTime.Equal(time.Unix(0, 0)) {
			line += " of another time or owner"
		}
		lines = append(lines, line)
	}
}

func TestBuild(t *testing.T) {
	file := filepath.Join(t.TempDir(), "extra")
	write(t, file, "extra")
	src := source.Build(nil, source.Image{
		Platform:    linuxARM,
		Layers:      []source.Layer{{FS: someFiles(), At: "/opt", Files: map[string]string{"/opt/bin/extra": file}, UID: 7, GID: 8, CreatedBy: "the build"}},
		Config:      v1.ImageConfig{Entrypoint: []string{"/opt/bin/app"}, Env: []string{"A=1"}},
		Annotations: map[string]string{"k": "v"},
	})
	defer src.Close()
	imageOf(t, src)
	m, config := documents(t, src)
	if config.Platform.Architecture != "arm64" || config.Config.Entrypoint[0] != "/opt/bin/app" || !config.Created.Equal(time.Unix(0, 0)) || m.Annotations["k"] != "v" {
		t.Errorf("got %+v, %+v", m, config)
	}
	if len(config.History) != 1 || config.History[0].CreatedBy != "the build" || len(config.RootFS.DiffIDs) != 1 || config.RootFS.DiffIDs[0] != m.Layers[0].Digest {
		t.Errorf("got %+v", config)
	}
	layer, err := read(t, src, m.Layers[0])
	must(t, err)
	want := []string{"-rwxr-xr-x opt/", "-rwxr-xr-x opt/bin/", "-rwxr-xr-x opt/bin/app app", "-rw-r--r-- opt/bin/extra extra", "-rwxr-xr-x opt/empty/", "-rwxr-xr-x opt/etc/",
		"-rw-r--r-- opt/etc/app.conf conf", "-rwxrwxrwx opt/etc/link app.conf"}
	if got := listing(t, strings.NewReader(layer)); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The same files make the same image, wherever they lie, whenever they were written, and whatever their modes are.
func TestBuildTwiceIsOneImage(t *testing.T) {
	for _, compression := range []source.Compression{source.None, source.Gzip, source.Zstd} {
		var roots []v1.Descriptor
		for _, mode := range []fs.FileMode{0o600, 0o664} {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte("content"), 1<<18), mode))
			must(t, os.WriteFile(filepath.Join(dir, "x"), []byte("run"), mode|0o100))
			src := source.Build(nil, source.Image{Platform: linuxARM, Layers: []source.Layer{{FS: os.DirFS(dir), Compression: compression}}})
			root, err := src.Root(t.Context())
			must(t, errors.Join(err, src.Close()))
			roots = append(roots, root)
		}
		if roots[0].Digest != roots[1].Digest {
			t.Errorf("%q: %v and %v", compression, roots[0], roots[1])
		}
	}
}

func TestBuildCompresses(t *testing.T) {
	src := source.Build(nil, source.Image{Layers: []source.Layer{{FS: someFiles(), Compression: source.Gzip, UID: 7, GID: 8}, {FS: someFiles(), Compression: source.Zstd}}})
	defer src.Close()
	_, layers := imageOf(t, src)
	m, config := documents(t, src)
	if m.Layers[0].MediaType != v1.MediaTypeImageLayerGzip || m.Layers[1].MediaType != v1.MediaTypeImageLayerZstd || config.RootFS.DiffIDs[0] == m.Layers[0].Digest {
		t.Errorf("got %+v", m.Layers)
	}
	plain, err := gzip.NewReader(strings.NewReader(layers[0]))
	must(t, err)
	content, err := io.ReadAll(plain)
	must(t, err)
	if digestOf(string(content)) != config.RootFS.DiffIDs[0] || len(listing(t, bytes.NewReader(content))) != 6 {
		t.Error("the first layer is not what its diff ID says")
	}
}

// A layer that is there is taken as it is.
func TestBuildOfLayersThatAreThere(t *testing.T) {
	plain := pack(t, entry{Name: "f", body: "content"})
	for mediaType, content := range map[string][]byte{v1.MediaTypeImageLayer: plain, v1.MediaTypeImageLayerGzip: gzipped(t, plain), v1.MediaTypeImageLayerZstd: zstandard(t, plain)} {
		name := file(t, content)
		src := source.Build(nil, source.Image{Layers: []source.Layer{{Tar: name}}})
		m, config := documents(t, src)
		if m.Layers[0].MediaType != mediaType || m.Layers[0].Digest != digestOf(string(content)) || config.RootFS.DiffIDs[0] != digestOf(string(plain)) {
			t.Errorf("%s: got %+v, %+v", mediaType, m.Layers, config.RootFS)
		}
		imageOf(t, src)
		must(t, src.Close())
		if _, err := os.Stat(name); err != nil {
			t.Errorf("it is gone: %v", err)
		}
	}
}

func TestBuildUponABase(t *testing.T) {
	base := source.Build(nil,
		source.Image{Layers: []source.Layer{{FS: fstest.MapFS{"amd": {Data: []byte("amd")}}}}, Platform: v1.Platform{OS: "linux", Architecture: "amd64"}},
		source.Image{Layers: []source.Layer{{FS: fstest.MapFS{"arm": {Data: []byte("arm")}}}}, Platform: linuxARM,
			Config: v1.ImageConfig{Entrypoint: []string{"/old"}, Cmd: []string{"-x"}, Env: []string{"A=1", "B=2"}, User: "me", Labels: map[string]string{"a": "1"}}},
	)
	defer base.Close()
	src := source.Build(nil, source.Image{Base: base, Platform: linuxARM, Layers: []source.Layer{{FS: someFiles(), CreatedBy: "top"}},
		Config: v1.ImageConfig{Entrypoint: []string{"/new"}, Env: []string{"B=3", "C=4"}, Labels: map[string]string{"b": "2"}}})
	defer src.Close()
	_, layers := imageOf(t, src)
	_, config := documents(t, src)
	if len(layers) != 2 || !strings.Contains(layers[0], "arm") || len(config.RootFS.DiffIDs) != 2 || len(config.History) != 2 {
		t.Errorf("got %d layers, %+v", len(layers), config)
	}
	if c := config.Config; c.Entrypoint[0] != "/new" || c.Cmd != nil || strings.Join(c.Env, " ") != "A=1 B=3 C=4" || c.User != "me" || len(c.Labels) != 2 {
		t.Errorf("got %+v", c)
	}
	other := source.Build(nil, source.Image{Base: base, Platform: v1.Platform{OS: "plan9", Architecture: "mips"}})
	if _, err := other.Root(t.Context()); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("of a platform that the base has not: got %v", err)
	}
}

func TestBuildAnIndex(t *testing.T) {
	image := func(architecture string) source.Image {
		return source.Image{Platform: v1.Platform{OS: "linux", Architecture: architecture}, Layers: []source.Layer{{FS: someFiles()}}}
	}
	src := source.Build(&source.BuildOptions{Annotations: map[string]string{"k": "v"}}, image("amd64"), image("arm64"))
	defer src.Close()
	root, err := src.Root(t.Context())
	must(t, err)
	raw, err := read(t, src, root)
	must(t, err)
	doc, err := manifest.Parse(root.MediaType, []byte(raw))
	must(t, err)
	if doc.Kind != manifest.Index || len(doc.Manifests) != 2 || doc.Annotations["k"] != "v" || doc.Manifests[1].Platform.Architecture != "arm64" {
		t.Errorf("got %s", raw)
	}
}

// What cannot be built is told with its name, and leaves nothing behind.
func TestBuildOfWhatCannotBe(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := makePipe(pipe); err != nil {
		t.Skip(err)
	}
	text := file(t, []byte("no tar file"))
	half := file(t, pack(t, entry{Name: "file", body: strings.Repeat("x", 2000)})[:1000])
	xz := file(t, []byte("\xfd7zXZ\x00 and so on"))
	for what, c := range map[string]struct {
		layer source.Layer
		says  string
	}{
		"a pipe":                 {source.Layer{FS: os.DirFS(dir)}, "pipe"},
		"a file that is missing": {source.Layer{Files: map[string]string{"/f": dir + "/absent"}}, "absent"},
		"a path out of it":       {source.Layer{Files: map[string]string{"../f": text}}, `"../f"`},
		"a tree's path upwards":  {source.Layer{Files: map[string]string{"a/../b": filepath.Dir(text)}}, `"a/../b"`},
		"an At upwards":          {source.Layer{FS: someFiles(), At: "a/../../b"}, `"a/../../b"`},
		"no path":                {source.Layer{Files: map[string]string{"/": text}}, `"/"`},
		"two kinds at once":      {source.Layer{Tar: text, FS: someFiles()}, text},
		"another compression":    {source.Layer{Tar: xz}, xz},
		"no tar file":            {source.Layer{Tar: text}, "no tar file"},
		"half a tar file":        {source.Layer{Tar: half}, "cut short"},
		"a tar file compressed":  {source.Layer{Tar: text, Compression: source.Gzip}, "taken as it is"},
		"a file below a file":    {source.Layer{Files: map[string]string{"a": text, "a/b": text}}, "below"},
		"a place twice":          {source.Layer{Files: map[string]string{"a": text, "/a": xz}}, "twice"},
		"nobody's files":         {source.Layer{FS: someFiles(), UID: -1}, "-1"},
		"no such tree":           {source.Layer{FS: os.DirFS(dir + "/absent")}, "its FS"},
		"an unknown compression": {source.Layer{FS: someFiles(), Compression: "br"}, `"br"`},
	} {
		temp := t.TempDir()
		src := source.Build(&source.BuildOptions{TempDir: temp}, source.Image{Layers: []source.Layer{{FS: someFiles()}, c.layer}})
		if _, err := src.Root(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", what, err)
		}
		must(t, src.Close())
		if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
			t.Errorf("%s: left behind %v, %v", what, left, err)
		}
	}
	if _, err := source.Build(nil).Root(t.Context()); err == nil {
		t.Error("nothing was built")
	}
	twice := source.Build(nil, source.Image{}, source.Image{Layers: []source.Layer{{FS: someFiles()}}})
	defer twice.Close()
	if _, err := twice.Root(t.Context()); err == nil || !strings.Contains(err.Error(), "linux/") {
		t.Errorf("two images for one platform: got %v", err)
	}
}

// What is closed is not built once more, and an image of no layers says so as the specification wants.
func TestBuildIsOver(t *testing.T) {
	temp := t.TempDir()
	src := source.Build(&source.BuildOptions{TempDir: temp}, source.Image{})
	root, err := src.Root(t.Context())
	must(t, err)
	raw, err := read(t, src, root)
	must(t, err)
	var m v1.Manifest
	must(t, json.Unmarshal([]byte(raw), &m))
	if config, err := read(t, src, m.Config); err != nil || !strings.Contains(config, `"diff_ids":[]`) {
		t.Errorf("got %s, %v", config, err)
	}
	must(t, src.Close())
	if _, err := src.Root(t.Context()); err == nil {
		t.Error("it is built once more")
	}
	must(t, src.Close())
}

// What is in a layer may be nobody else's business.
func TestLayersLieWhereNobodyElseMayLook(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are not kept here")
	}
	temp := t.TempDir()
	src := source.Build(&source.BuildOptions{TempDir: temp}, source.Image{Layers: []source.Layer{{FS: someFiles()}}})
	_, err := src.Root(t.Context())
	must(t, err)
	made, err := os.ReadDir(temp)
	if err != nil || len(made) != 1 {
		t.Fatalf("got %v, %v", made, err)
	}
	if info, err := made[0].Info(); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	must(t, src.Close())
}

// What is a layer already needs no room, and what needs room finds it from wherever the program has gone.
func TestTempDir(t *testing.T) {
	ready := file(t, pack(t, entry{Name: "file", body: "content"}))
	src := source.Build(&source.BuildOptions{TempDir: filepath.Join(t.TempDir(), "absent")}, source.Image{Layers: []source.Layer{{Tar: ready}}})
	_, err := src.Root(t.Context())
	must(t, errors.Join(err, src.Close()))

	t.Chdir(t.TempDir())
	must(t, os.Mkdir("here", 0o755))
	src = source.Build(&source.BuildOptions{TempDir: "here"}, source.Image{Layers: []source.Layer{{FS: someFiles()}}})
	root, err := src.Root(t.Context())
	must(t, err)
	t.Chdir(t.TempDir())
	var m v1.Manifest
	raw, err := read(t, src, root)
	must(t, errors.Join(err, json.Unmarshal([]byte(raw), &m)))
	_, err = read(t, src, m.Layers[0])
	must(t, errors.Join(err, src.Close()))
}
