package source_test

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/sdk/source"
)

// baseOf is an image of one layer with a config.
func baseOf(t *testing.T, config string) source.Source {
	t.Helper()
	files := newTree()
	m := v1.Manifest{
		MediaType: v1.MediaTypeImageManifest,
		Config:    files.add(v1.MediaTypeImageConfig, config),
		Layers:    []v1.Descriptor{files.add(v1.MediaTypeImageLayer, "layer")},
	}
	m.SchemaVersion = 2
	root := files.add(v1.MediaTypeImageManifest, encode(m))
	from := source.Layout(files.list(root).dir(t), "")
	t.Cleanup(func() { must(t, from.Close()) })
	return from
}

var diffIDs = `"rootfs":{"type":"layers","diff_ids":["` + string(digest.FromString("layer")) + `"]}`

// What a base says is kept, also what the specification does not know, as far as nothing else is said.
func TestBuildKeepsWhatItsBaseSays(t *testing.T) {
	base := baseOf(t, `{"architecture":"arm","variant":"v6","os":"linux","docker_version":"1.2","author":"Ada",`+diffIDs+`,
		"config":{"Healthcheck":{"Test":["CMD","/check"]},"OnBuild":["RUN x"],"Shell":["/bin/sh","-c"],"Cmd":["-x"],"Entrypoint":["/old"],"Env":["A=1","B=1","A=2"]}}`)
	src := source.Build(nil, source.Image{
		Base: base, Platform: v1.Platform{OS: "linux", Architecture: "arm"}, Layers: []source.Layer{{FS: someFiles()}},
		Config: v1.ImageConfig{Entrypoint: []string{"/new"}, Env: []string{"A=3"}},
	})
	defer src.Close()
	m, config := documents(t, src)
	raw, err := read(t, src, m.Config)
	must(t, err)
	for _, kept := range []string{`"Healthcheck":{"Test":["CMD","/check"]}`, `"OnBuild":["RUN x"]`, `"Shell":["/bin/sh","-c"]`, `"docker_version":"1.2"`, `"author":"Ada"`, `"variant":"v6"`} {
		if !strings.Contains(raw, kept) {
			t.Errorf("%s is lost of %s", kept, raw)
		}
	}
	if strings.Contains(raw, `"Cmd"`) || strings.Join(config.Config.Env, " ") != "A=3 B=1" {
		t.Errorf("what was replaced is there still: %s", raw)
	}
	if len(config.History) != 2 || len(config.RootFS.DiffIDs) != 2 {
		t.Errorf("got %+v, %+v; want two layers told of", config.History, config.RootFS)
	}
}

func TestBuildUponWhatIsNoBase(t *testing.T) {
	for what, config := range map[string]string{
		"no diff IDs":   `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`,
		"no config":     `[]`,
		"a config of 1": `{"architecture":"amd64","os":"linux","config":1,` + diffIDs + `}`,
	} {
		src := source.Build(nil, source.Image{Base: baseOf(t, config), Platform: v1.Platform{OS: "linux", Architecture: "amd64"}})
		if _, err := src.Root(t.Context()); err == nil || !strings.Contains(err.Error(), "its base oci:") {
			t.Errorf("%s: got %v", what, err)
		}
		must(t, src.Close())
	}
}
