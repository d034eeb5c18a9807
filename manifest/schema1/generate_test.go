package schema1

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// imageOf makes an image of n gzipped layers, of blobSum(i), with that config.
func imageOf(mediaType, config string, n int) Image {
	configType, layerType := dockerConfig, dockerLayerGzip
	if mediaType == v1.MediaTypeImageManifest {
		configType, layerType = v1.MediaTypeImageConfig, v1.MediaTypeImageLayerGzip
	}
	doc := v1.Manifest{MediaType: mediaType, Config: manifest.Descriptor(configType, []byte(config)), Layers: []v1.Descriptor{}}
	doc.SchemaVersion = 2
	for i := range n {
		doc.Layers = append(doc.Layers, v1.Descriptor{MediaType: layerType, Digest: blobSum(i), Size: 7})
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return Image{MediaType: mediaType, Manifest: raw, Config: []byte(config)}
}

// configOf writes a config; history is what stands between its brackets.
func configOf(n int, history string) string {
	diffIDs := strings.TrimSuffix(strings.Repeat(`"`+string(blobSum(50))+`",`, n), ",")
	return `{"architecture":"arm64","os":"linux","created":"2020-01-03T00:00:00Z","config":{"Cmd":["sh"]},` +
		`"rootfs":{"type":"layers","diff_ids":[` + diffIDs + `]},"history":[` + history + `]}`
}

const threeSteps = `{"created":"2020-01-01T00:00:00Z","created_by":"ADD <x>","author":"A","comment":"C"},` +
	`{"created":"2020-01-02T00:00:00Z","created_by":"ENV","empty_layer":true},{"created_by":"RUN"}`

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func TestGenerate(t *testing.T) {
	config := configOf(2, threeSteps)
	for _, mediaType := range []string{manifest.MediaTypeDockerManifest, v1.MediaTypeImageManifest} {
		m, err := Generate(imageOf(mediaType, config, 2), to("app/hello", "v1"), rsaKey(), signedAt)
		if err != nil {
			t.Fatal(err)
		}
		if keys, err := m.Verify(); err != nil || len(keys) != 1 {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		if m.Name != "app/hello" || m.Tag != "v1" || m.Architecture != "arm64" || m.MediaType() != MediaTypeSigned {
			t.Errorf("got %s:%s for %s", m.Name, m.Tag, m.Architecture)
		}
		checkGenerated(t, m, config)
	}
}

func checkGenerated(t *testing.T, m *Manifest, config string) {
	t.Helper()
	base := sum(blobSum(0).Encoded() + " ")
	middle := sum(EmptyLayerDigest.Encoded() + " " + base)
	top := sum(blobSum(1).Encoded() + " " + middle + " " + config)
	want := []struct {
		blob   digest.Digest
		v1JSON string
	}{
		{blobSum(0), `{"id":"` + base + `","comment":"C","created":"2020-01-01T00:00:00Z","container_config":{"Cmd":["ADD \u003cx\u003e"]},"author":"A"}`},
		{EmptyLayerDigest, `{"id":"` + middle + `","parent":"` + base + `","created":"2020-01-02T00:00:00Z","container_config":{"Cmd":["ENV"]},"throwaway":true}`},
		{blobSum(1), `{"architecture":"arm64","config":{"Cmd":["sh"]},"created":"2020-01-03T00:00:00Z","id":"` + top + `","os":"linux","parent":"` + middle + `"}`},
	}
	if len(m.Layers) != len(want) {
		t.Fatalf("%d layers", len(m.Layers))
	}
	for i, layer := range m.Layers {
		if layer.BlobSum != want[i].blob || string(layer.V1JSON) != want[i].v1JSON {
			t.Errorf("layer %d is %s:\n%s\nwant %s", i, layer.BlobSum, layer.V1JSON, want[i].v1JSON)
		}
	}
}

func TestGeneratedManifestOfALibraryRepository(t *testing.T) {
	for library, want := range map[string]string{"library": "ubuntu", "": "library/ubuntu", "other": "library/ubuntu"} {
		target := Target{Ref: berth.Reference{Repository: "library/ubuntu", Tag: "v1"}, LibraryNamespace: library}
		m, err := Generate(imageOf(manifest.MediaTypeDockerManifest, configOf(2, threeSteps), 2), target, rsaKey(), signedAt)
		if err != nil {
			t.Fatal(err)
		}
		if m.Name != want || m.Check(target) != nil {
			t.Errorf("library namespace %q: named %q, check %v", library, m.Name, m.Check(target))
		}
	}
}

func TestGenerateIsDeterministic(t *testing.T) {
	src := imageOf(manifest.MediaTypeDockerManifest, configOf(2, threeSteps), 2)
	a, err := Generate(src, to("app/hello", "v1"), rsaKey(), signedAt)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Generate(src, to("app/hello", "v1"), rsaKey(), signedAt)
	if err != nil || !bytes.Equal(a.Raw(), b.Raw()) {
		t.Errorf("the same input gave two manifests, %v", err)
	}
}

func TestGenerateWithoutHistory(t *testing.T) {
	for _, config := range []string{configOf(2, ""), strings.Replace(configOf(2, ""), `,"history":[]`, ``, 1)} {
		m, err := Generate(imageOf(v1.MediaTypeImageManifest, config, 2), to("app/hello", "v1"), rsaKey(), signedAt)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Layers) != 2 || m.Layers[0].BlobSum != blobSum(0) || m.Layers[1].V1.Throwaway {
			t.Errorf("got %d layers", len(m.Layers))
		}
	}
}

func TestGenerateEndsInAnEmptyLayer(t *testing.T) {
	config := configOf(1, `{"created_by":"ADD"},{"created_by":"CMD","empty_layer":true}`)
	m, err := Generate(imageOf(manifest.MediaTypeDockerManifest, config, 1), to("app/hello", "v1"), rsaKey(), signedAt)
	if err != nil {
		t.Fatal(err)
	}
	if top := m.Layers[1]; !top.V1.Throwaway || top.BlobSum != EmptyLayerDigest || string(top.V1.Config) != `{"Cmd":["sh"]}` {
		t.Errorf("the top is %s: %s", top.BlobSum, top.V1JSON)
	}
}

// What an earlier schema 1 life left in a config does not get into the new one.
func TestGenerateReplacesOldTies(t *testing.T) {
	config := strings.Replace(configOf(1, ""), `{"arch`, `{"id":"x","parent":"y","throwaway":true,"arch`, 1)
	m, err := Generate(imageOf(manifest.MediaTypeDockerManifest, config, 1), to("app/hello", "v1"), rsaKey(), signedAt)
	if err != nil {
		t.Fatal(err)
	}
	if top := m.Layers[0].V1; top.Parent != "" || top.Throwaway || !isID(top.ID) {
		t.Errorf("the top is %+v", top)
	}
}

func TestGenerateOnAWindowsBase(t *testing.T) {
	windows := strings.Replace(configOf(2, ""), `"linux"`, `"windows"`, 1)
	windows = strings.Replace(windows, `"type":"layers"`, `"type":"layers+base","base_layer":"windowsservercore"`, 1)
	m, err := Generate(imageOf(manifest.MediaTypeDockerManifest, windows, 2), to("app/hello", "v1"), rsaKey(), signedAt)
	if err != nil {
		t.Fatal(err)
	}
	if base := m.Layers[0].V1; base.Parent != baseLayerID("windowsservercore") || base.ID != sum(blobSum(0).Encoded()+" ") {
		t.Errorf("the base is %+v", base)
	}
	image, err := m.Convert(gzipped, &ConvertOptions{BaseLayer: "windowsservercore"})
	if err != nil || !strings.Contains(string(image.Config), `"type":"layers+base"`) {
		t.Errorf("there and back: %v", err)
	}
}

func TestGenerateRefuses(t *testing.T) {
	docker := func(config string, n int) Image { return imageOf(manifest.MediaTypeDockerManifest, config, n) }
	good := configOf(2, threeSteps)
	change := func(old, new string) Image {
		src := docker(good, 2)
		if !bytes.Contains(src.Manifest, []byte(old)) {
			panic(old)
		}
		src.Manifest = bytes.Replace(src.Manifest, []byte(old), []byte(new), 1)
		return src
	}
	config := func(old, new string) Image { return docker(strings.Replace(good, old, new, 1), 2) }
	swapped := docker(good, 2)
	swapped.Config = []byte(strings.Replace(good, "arm64", "amd64", 1))
	tests := []struct {
		name string
		src  Image
		want error
		says string
	}{
		{"no manifest", Image{}, berth.ErrManifestInvalid, "JSON"},
		{"schema 1", Image{Manifest: []byte(small())}, berth.ErrManifestInvalid, "schemaVersion"},
		{"an index", Image{MediaType: v1.MediaTypeImageIndex, Manifest: []byte(`{"schemaVersion":2,"manifests":[]}`)}, berth.ErrManifestInvalid, "index"},
		{"an artifact", change(dockerConfig, "application/vnd.cncf.helm.config.v1+json"), berth.ErrUnsupported, "helm"},
		{"zstd", change(dockerLayerGzip, v1.MediaTypeImageLayerZstd), berth.ErrUnsupported, "layer 0"},
		{"a layer in no registry", change(dockerLayerGzip, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), berth.ErrUnsupported, "foreign"},
		{"a layer with urls", change(`"size":7}`, `"size":7,"urls":["https://example.com/l"]}`), berth.ErrUnsupported, "urls"},
		{"another config", swapped, berth.ErrDigestInvalid, "config"},
		{"a config that is no JSON", docker("nope", 2), berth.ErrManifestInvalid, "syntax error"},
		{"a config key twice", config(`"os"`, `"os":"x","os"`), berth.ErrManifestInvalid, "twice"},
		{"a config key in another case", config(`"rootfs"`, `"RootFS"`), berth.ErrManifestInvalid, "RootFS"},
		{"no rootfs", config(`"rootfs"`, `"root"`), berth.ErrManifestInvalid, "no rootfs"},
		{"a rootfs that is none", config(`"diff_ids":[`, `"diff_ids":7,"x":[`), berth.ErrManifestInvalid, "rootfs"},
		{"too few diff ids", docker(configOf(1, threeSteps), 2), berth.ErrManifestInvalid, "1 diff ids, the manifest has 2"},
		{"a history that is none", config(`"history":[`, `"history":{},"x":[`), berth.ErrManifestInvalid, "history"},
		{"an entry that is none", config(`"empty_layer":true`, `"empty_layer":"yes"`), berth.ErrManifestInvalid, "history 1"},
		{"a history with more layers", docker(configOf(1, threeSteps), 1), berth.ErrManifestInvalid, "more layers"},
		{"a history with fewer layers", docker(configOf(3, threeSteps), 3), berth.ErrManifestInvalid, "1 layers less"},
		{"a history too long", docker(configOf(0, strings.Repeat(`{},`, maxLayers)+`{}`), 0), berth.ErrManifestInvalid, "at most 10000"},
		{"nothing at all", docker(configOf(0, ""), 0), berth.ErrManifestInvalid, "no layers"},
		{"a base layer on linux", config(`"diff_ids"`, `"base_layer":"b","diff_ids"`), berth.ErrManifestInvalid, "not in the manifest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Generate(tt.src, to("app/hello", "v1"), rsaKey(), signedAt)
			wantError(t, err, tt.want, tt.says)
		})
	}
	if _, err := Generate(docker(good, 2), to("app/hello", ""), rsaKey(), signedAt); !errors.Is(err, berth.ErrTagInvalid) {
		t.Errorf("no tag: got %v", err)
	}
	if _, err := Generate(docker(good, 2), to("app/hello", "v1"), nil, signedAt); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("no key: got %v", err)
	}
}

// An image that goes to schema 1 and back keeps its layers, its history and how it runs.
func TestGenerateAndConvert(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		empty := rapid.SliceOfN(rapid.Bool(), 1, 10).Draw(rt, "empty")
		var entries []string
		layers := 0
		for i, none := range empty {
			entries = append(entries, fmt.Sprintf(`{"created_by":"step %d","empty_layer":%v}`, i, none))
			if !none {
				layers++
			}
		}
		src := imageOf(v1.MediaTypeImageManifest, configOf(layers, strings.Join(entries, ",")), layers)
		m, err := Generate(src, to("app/hello", "v1"), rsaKey(), signedAt)
		if err != nil {
			rt.Fatal(err)
		}
		back, err := m.Convert(gzipped, &ConvertOptions{MediaType: v1.MediaTypeImageManifest})
		if err != nil {
			rt.Fatal(err)
		}
		before, _ := manifest.Parse("", src.Manifest)
		after, err := manifest.Parse("", back.Manifest)
		if err != nil || fmt.Sprint(before.Layers) != fmt.Sprint(after.Layers) {
			rt.Errorf("layers %v, want %v, %v", after.Layers, before.Layers, err)
		}
		var config v1.Image
		if err := json.Unmarshal(back.Config, &config); err != nil || len(config.History) != len(empty) || config.Config.Cmd[0] != "sh" {
			rt.Errorf("config %s, %v", back.Config, err)
		}
		for i, entry := range config.History {
			if entry.EmptyLayer != empty[i] || i < len(empty)-1 && entry.CreatedBy != fmt.Sprint("step ", i) {
				rt.Errorf("history %d is %+v", i, entry)
			}
		}
	})
}
