package source_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// An archive whose indexes list each other, and themselves, over and over, is read to an end.
func TestDockerArchiveOfIndexesWithoutEnd(t *testing.T) {
	files := saved(nil, "layer")
	lie := v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: digestOf("itself")}
	index := v1.Index{MediaType: v1.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for range 400 {
		index.Manifests = append(index.Manifests, lie)
	}
	lie.Size = int64(len(encode(index)))
	for i := range index.Manifests {
		index.Manifests[i].Size = lie.Size + 400*3 // sizes have more digits than none
	}
	raw := encode(index)
	lie.Size = int64(len(raw))
	files[blobFile(lie)] = raw
	files[v1.ImageLayoutFile] = goodVersion
	files.list(lie)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := fromDocker(t, pack(t, files.entries()...), "").Root(ctx)
	must(t, err)
}

// However many entries a list has, they are looked at one by one.
func TestListsOfEmptyEntries(t *testing.T) {
	entries := strings.Repeat("{},", 200_000) + "{}"
	layout := newTree()
	layout[v1.ImageIndexFile] = `{"schemaVersion":2,"other":[1,{"a":2}],"manifests":[` + entries + `]}`
	if _, err := source.Archive(file(t, pack(t, layout.entries()...)), "").Root(t.Context()); !errors.Is(err, berth.ErrManifestUnknown) || !strings.Contains(err.Error(), "200001 images") {
		t.Errorf("a layout: got %.300v", err)
	}
	if _, err := fromDocker(t, pack(t, entry{Name: "manifest.json", body: "[" + entries + "]"}), "").Root(t.Context()); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("docker's: got %.300v", err)
	}
}

func TestIndexesThatAreNone(t *testing.T) {
	for _, index := range []string{`[]`, `1`, `{"manifests":{}}`, `{"manifests":[1]}`, `{"manifests":[]`, `{"manifests":[]}{}`, `{"manifests":[{}],}`, ``} {
		files := newTree()
		files[v1.ImageIndexFile] = index
		from := source.Layout(files.dir(t), "")
		if _, err := from.Root(t.Context()); !errors.Is(err, berth.ErrLayoutInvalid) {
			t.Errorf("%s: got %v", index, err)
		}
		must(t, from.Close())
	}
	files := newTree()
	files[v1.ImageIndexFile] = `{"manifests":null}`
	from := source.Layout(files.dir(t), "")
	defer from.Close()
	if _, err := from.Root(t.Context()); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("null: got %v", err)
	}
}

// Names that would write to a terminal are quoted.
func TestNamesThatCannotBePrinted(t *testing.T) {
	files, root := oneImage()
	files.list(named(root, "\x1b[31mred\n"), named(root, "good"))
	for form, from := range files.forms(t, "other") {
		if _, err := from.Root(t.Context()); err == nil || strings.ContainsAny(err.Error(), "\x1b\n") || !strings.Contains(err.Error(), "good") {
			t.Errorf("%s: got %v", form, err)
		}
	}
	docker := saved([]string{"\x1b[31mred\n"}, "layer")
	if _, err := fromDocker(t, pack(t, docker.entries()...), "other").Root(t.Context()); err == nil || strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("docker's: got %v", err)
	}
}

// A compressed layer is what its config says, or is told before anything of it is stored.
func TestDockerArchiveWithLayersThatLie(t *testing.T) {
	whole := gzipped(t, []byte(strings.Repeat("layer ", 5000)))
	for what, content := range map[string][]byte{"another layer": gzipped(t, []byte("other")), "half a layer": whole[:len(whole)/2], "no gzip": []byte("\x1f\x8bno")} {
		files := saved(nil, strings.Repeat("layer ", 5000))
		for name := range files {
			if strings.HasSuffix(name, "layer.tar") {
				files[name] = string(content)
			}
		}
		if _, err := fromDocker(t, pack(t, files.entries()...), "").Root(t.Context()); !errors.Is(err, source.ErrDockerArchive) || !strings.Contains(err.Error(), "layer.tar") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// Who reads while another one closes is told so.
func TestDockerArchiveThatIsClosedWhileItIsRead(t *testing.T) {
	content := pack(t, saved(nil, "layer").entries()...)
	for range 50 {
		src := fromDocker(t, content, "")
		root, err := src.Root(t.Context())
		must(t, err)
		raw, err := read(t, src, root)
		must(t, err)
		var m v1.Manifest
		must(t, json.Unmarshal([]byte(raw), &m))
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 5 {
					if content, err := src.Fetch(t.Context(), m.Layers[0]); err == nil {
						content.Close()
					}
				}
			})
		}
		must(t, src.Close())
		all.Wait()
	}
}

func TestBuildOfAPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := makePipe(pipe); err != nil {
		t.Skip(err)
	}
	src := source.Build(nil, source.Image{Layers: []source.Layer{{Tar: pipe}}})
	defer src.Close()
	if _, err := src.Root(t.Context()); err == nil || !strings.Contains(err.Error(), pipe) {
		t.Errorf("got %v", err)
	}
}

// A manifest that its descriptor does not describe is not taken for the archive's own.
func TestDockerArchiveWhoseLayoutLies(t *testing.T) {
	files := saved(nil, "layer")
	config := ""
	for name, content := range files {
		if strings.HasSuffix(name, ".json") && name != "manifest.json" {
			config = content
		}
	}
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, digest.FromString(config), len(config))
	lie := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digestOf("something else"), Size: int64(len(m))}
	files[blobFile(lie)] = m
	files[v1.ImageLayoutFile] = goodVersion
	files.list(lie)
	root, err := fromDocker(t, pack(t, files.entries()...), "").Root(t.Context())
	must(t, err)
	if root.Digest == lie.Digest || root.Digest == manifest.Descriptor("", []byte(m)).Digest {
		t.Error("it is taken")
	}
}
