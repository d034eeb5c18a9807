package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
	"github.com/berthoci/berth/server"
)

// large is a layer that is taken from its file.
var large = strings.Repeat("a layer that is worth to be taken from its file ", 5_000)

func TestAnImageGoesThroughRegistriesAsIs(t *testing.T) {
	registry := open(t, sdk.Options{})
	other := open(t, sdk.Options{})
	host := serveRemote(t, nil)
	want := push(t, registry, large, "app/hello:v1")

	to, err := registry.ParseDestination("docker://" + host + "/team/hello:v1")
	must(t, err)
	_, err = registry.Pull(t.Context(), "app/hello:v1", to, nil)
	must(t, errors.Join(err, to.Close()))

	from, err := registry.ParseSource("docker://" + host + "/team/hello:v1")
	must(t, err)
	defer from.Close()
	pushed, err := other.Push(t.Context(), from, "copy:v1,v2", nil)
	must(t, err)
	if pushed.Descriptor.Digest != want.Digest {
		t.Errorf("got %s, want %s", pushed.Descriptor.Digest, want.Digest)
	}
	wantEqual(t, "tags", tags(t, other, "copy"), []string{"v1", "v2"})
}

// What two registries of this machine have goes from file to file.
func TestALiveRegistryIsASource(t *testing.T) {
	registry, other := open(t, sdk.Options{}), open(t, sdk.Options{})
	want := push(t, registry, large, "app/hello:v1")
	from, err := registry.Source("app/hello:v1")
	must(t, err)
	defer from.Close()
	pushed, err := other.Push(t.Context(), from, "copy:v1", nil)
	must(t, err)
	if pushed.Descriptor.Digest != want.Digest {
		t.Errorf("got %s, want %s", pushed.Descriptor.Digest, want.Digest)
	}
	if s := pushed.Stats; s.Cloned+s.Copied != 1 || s.LocalBytes != int64(len(large)) {
		t.Errorf("got %+v, want its layer to come from its file", s)
	}
}

func TestPullTakesFilesOfTheLayout(t *testing.T) {
	registry := open(t, sdk.Options{})
	push(t, registry, large, "app/hello:v1")
	for what, want := range map[string]int{"where it was": 1, "moved away": 0} {
		layout := registry.Endpoint().Layout
		if want == 0 {
			must(t, os.Rename(layout, layout+"-moved"))
		}
		to, err := source.ToLayout(filepath.Join(t.TempDir(), "copy"), "v1")
		must(t, err)
		pulled, err := registry.Pull(t.Context(), "app/hello:v1", to, nil)
		must(t, errors.Join(err, to.Close()))
		if s := pulled.Stats; s.Cloned+s.Copied != want || s.Sent != 3-want {
			t.Errorf("%s: got %+v, want %d blobs to come from their files", what, s, want)
		}
		if want == 0 {
			must(t, os.Rename(layout+"-moved", layout))
		}
	}
}

func TestPullOfOnePlatform(t *testing.T) {
	registry := open(t, sdk.Options{})
	built := source.Build(nil,
		source.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}},
		source.Image{Platform: v1.Platform{OS: "linux", Architecture: "arm64"}},
	)
	defer built.Close()
	_, err := registry.Push(t.Context(), built, "app:v1", nil)
	must(t, err)
	arm := &v1.Platform{OS: "linux", Architecture: "arm64"}
	file := filepath.Join(t.TempDir(), "image.tar")
	to, err := source.ToDockerArchive(file, "app:v1")
	must(t, err)
	_, err = registry.Pull(t.Context(), "app:v1", to, &sdk.PullOptions{Progress: func(e sync.Event) { t.Errorf("%s was copied", e.Descriptor.Digest) }})
	if !errors.Is(err, berth.ErrUnsupported) || !strings.Contains(err.Error(), "linux/amd64, linux/arm64") {
		t.Errorf("all platforms: got %v", err)
	}
	pulled, err := registry.Pull(t.Context(), "app:v1", to, &sdk.PullOptions{Platform: arm})
	must(t, errors.Join(err, to.Close()))

	archive := source.DockerArchive(file, "app:v1")
	defer archive.Close()
	pushed, err := registry.Push(t.Context(), archive, "app:arm", &sdk.PushOptions{Platform: arm})
	must(t, err)
	if pushed.Descriptor.Digest != pulled.Descriptor.Digest || !pushed.Stats.Unchanged() {
		t.Errorf("got %+v, want the image %s that is there", pushed, pulled.Descriptor.Digest)
	}
	_, err = registry.Push(t.Context(), archive, "app:amd", &sdk.PushOptions{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}})
	wantErr(t, "another platform", err, berth.ErrManifestUnknown)
	wantEqual(t, "tags", tags(t, registry, "app"), []string{"arm", "v1"})
}

func TestADestinationThatIsARegistry(t *testing.T) {
	host := serveRemote(t, nil)
	images := sdk.NewImages(nil)
	to, err := images.ParseDestination("docker://" + host + "/team/hello")
	must(t, err)
	defer to.Close()
	b := build(t, "one")
	from := b.source()
	defer from.Close()
	for _, desc := range []v1.Descriptor{b.layer, b.root} {
		there, err := to.Has(t.Context(), desc)
		if err != nil || there {
			t.Errorf("%s: it is there: %t, %v", desc.MediaType, there, err)
		}
	}
	err = to.Put(t.Context(), b.layer, strings.NewReader("two"))
	wantErr(t, "another layer", err, berth.ErrDigestInvalid)
	wantErr(t, "a root that is not there", to.Commit(t.Context(), b.root), berth.ErrManifestUnknown)
	must(t, to.Put(t.Context(), b.layer, strings.NewReader("one")))
	config := manifestOf(t, from, b.root).Config
	for _, desc := range []v1.Descriptor{config, b.root} {
		content, err := from.Fetch(t.Context(), desc)
		must(t, err)
		must(t, errors.Join(to.Put(t.Context(), desc, content), content.Close()))
	}
	_, err = images.Resolve(t.Context(), host+"/team/hello")
	wantErr(t, "before the commit", err, berth.ErrManifestUnknown)
	must(t, to.Commit(t.Context(), b.root))
	if got, err := images.Resolve(t.Context(), host+"/team/hello:latest"); err != nil || got.Digest != b.root.Digest {
		t.Errorf("got %v, %v; want %s", got, err, b.root.Digest)
	}
}

func TestADestinationThatIsAReadOnlyRegistry(t *testing.T) {
	host := serveRemote(t, &server.Options{ReadOnly: true})
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "app:v1")
	to, err := registry.ParseDestination("docker://" + host + "/app:v1")
	must(t, err)
	_, err = registry.Pull(t.Context(), "app:v1", to, nil)
	wantErr(t, "Pull", err, berth.ErrUnsupported)
}

func TestFormsThatAreNone(t *testing.T) {
	images := sdk.NewImages(nil)
	for text, want := range map[string]error{
		"oci":                      source.ErrForm,
		"oci:":                     source.ErrForm,
		"docker:app":               source.ErrForm,
		"app/hello:v1":             source.ErrForm,
		"docker://":                berth.ErrNameInvalid,
		"docker://127.0.0.1:5077":  berth.ErrNameInvalid,
		"docker://reg.test":        berth.ErrNameInvalid,
		"docker://localhost:1":     berth.ErrNameInvalid,
		"docker://reg.test/A":      berth.ErrNameInvalid,
		"docker://reg.test/a:?":    berth.ErrTagInvalid,
		"docker://reg.test/a@x":    berth.ErrDigestInvalid,
		"docker://reg.test:5/a/b/": berth.ErrNameInvalid,
	} {
		_, err := images.ParseSource(text)
		wantErr(t, "source "+text, err, want)
		_, err = images.ParseDestination(text)
		wantErr(t, "destination "+text, err, want)
		wantErr(t, "form "+text, sdk.CheckForm(text), want)
	}
	digest := "docker://reg.test/a@sha256:" + strings.Repeat("a", 64)
	must(t, sdk.CheckForm(digest))
	_, err := images.ParseDestination(digest)
	wantErr(t, "a destination with a digest", err, berth.ErrTagInvalid)
}

// Names without a host are Docker Hub's, as Docker reads them.
func TestNamesOfDockerHub(t *testing.T) {
	images := sdk.NewImages(nil)
	for text, want := range map[string]string{
		"docker://alpine":           "docker.io/library/alpine",
		"docker://team/app:v1":      "docker.io/team/app:v1",
		"docker://localhost/app":    "localhost/app",
		"docker://reg.test:5/a/b:c": "reg.test:5/a/b:c",
	} {
		from, err := images.ParseSource(text)
		must(t, err)
		if got := from.(interface{ String() string }).String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// What one repository of the layout has is not read again for another, wherever it comes from.
func TestABlobOfAnotherRepositoryIsTakenFromThere(t *testing.T) {
	registry := open(t, sdk.Options{})
	built := build(t, large)
	_, err := registry.Push(t.Context(), built.source(), "first:v1", nil)
	must(t, err)
	must(t, os.Remove(built.file(built.layer)))
	from := built.source()
	defer from.Close()
	pushed, err := registry.Push(t.Context(), from, "second:v1", nil)
	must(t, err)
	if s := pushed.Stats; s.Mounted != 1 || s.LocalBytes != 0 {
		t.Errorf("got %+v, want the layer to be mounted", s)
	}
}

// fetcher is another image's content, under another manifest.
type fetcher struct {
	source.Source
	raw string
}

func (f fetcher) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if desc.Digest == describe(f.raw).Digest {
		return io.NopCloser(strings.NewReader(f.raw)), nil
	}
	return f.Source.Fetch(ctx, desc)
}

// That a blob is there makes no image whole that means another one.
func TestASizeThatLiesAboutWhatIsThere(t *testing.T) {
	registry := open(t, sdk.Options{})
	built := build(t, large)
	from := built.source()
	defer from.Close()
	_, err := registry.Push(t.Context(), from, "first:v1", nil)
	must(t, err)
	m := manifestOf(t, from, built.root)
	m.Layers[0].Size++
	raw, err := json.Marshal(m)
	must(t, err)
	lying := source.New(manifest.Descriptor(m.MediaType, raw), fetcher{from, string(raw)})
	for _, name := range []string{"first:lie", "second:lie"} {
		_, err := registry.Push(t.Context(), lying, name, nil)
		wantErr(t, name, err, berth.ErrDigestInvalid)
		_, err = registry.Resolve(t.Context(), name)
		if err == nil {
			t.Errorf("%s is there", name)
		}
	}
}
