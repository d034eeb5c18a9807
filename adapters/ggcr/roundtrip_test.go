package ggcr_test

import (
	"io"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/berthoci/berth/adapters/ggcr"
)

func TestAnImageGoesInAndComesOutTheSame(t *testing.T) {
	registry := open(t)
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.example+json")
	artifact, err := mutate.AppendLayers(artifact, static.NewLayer([]byte("no archive"), "text/plain"))
	must(t, err)
	docker, err := random.Image(200_000, 3)
	must(t, err)
	for name, img := range map[string]v1.Image{
		"gzip":     image(t, amd64, layer(t, "one"), layer(t, "two")),
		"zstd":     image(t, amd64, zstdLayer(t, "one"), zstdLayer(t, strings.Repeat("two", 100_000))),
		"plain":    image(t, amd64, plainLayer(t, "one")),
		"twice":    image(t, amd64, plainLayer(t, "one"), plainLayer(t, "one")),
		"bare":     image(t, amd64),
		"docker":   docker,
		"artifact": artifact,
	} {
		t.Run(name, func(t *testing.T) {
			pushed, err := registry.Push(t.Context(), ggcr.Source(img), "app/"+name+":v1,latest", nil)
			must(t, err)
			if want := digestOf(t, img); string(pushed.Descriptor.Digest) != want {
				t.Errorf("it was pushed as %s, its digest is %s", pushed.Descriptor.Digest, want)
			}
			back, err := ggcr.Image(t.Context(), repository(t, registry, "app/"+name), "latest")
			must(t, err)
			sameImage(t, back, img)
		})
	}
}

// sameImage compares two images, and all that is in them.
func sameImage(t *testing.T, got, want v1.Image) {
	t.Helper()
	if got, want := rawManifest(t, got), rawManifest(t, want); got != want {
		t.Errorf("the manifest is %s, want %s", got, want)
	}
	gotConfig, err := got.RawConfigFile()
	must(t, err)
	wantConfig, err := want.RawConfigFile()
	must(t, err)
	if string(gotConfig) != string(wantConfig) {
		t.Errorf("the config is %s, want %s", gotConfig, wantConfig)
	}
	if err := sound(got, want); err != nil {
		t.Errorf("go-containerregistry says of it: %v", err)
	}
	gotLayers, err := got.Layers()
	must(t, err)
	wantLayers, err := want.Layers()
	must(t, err)
	if len(gotLayers) != len(wantLayers) {
		t.Fatalf("it has %d layers, want %d", len(gotLayers), len(wantLayers))
	}
	for i := range gotLayers {
		sameLayer(t, gotLayers[i], wantLayers[i])
	}
}

// sound lets go-containerregistry look through an image, if it can do that: it takes all layers for gzip.
func sound(img, like v1.Image) error {
	if validate.Image(like) != nil {
		return nil
	}
	return validate.Image(img)
}

func sameLayer(t *testing.T, got, want v1.Layer) {
	t.Helper()
	gotDesc, err := partial.Descriptor(got)
	must(t, err)
	wantDesc, err := partial.Descriptor(want)
	must(t, err)
	if gotDesc.Digest != wantDesc.Digest || gotDesc.Size != wantDesc.Size || gotDesc.MediaType != wantDesc.MediaType {
		t.Errorf("a layer is %v, want %v", gotDesc, wantDesc)
	}
	if got, want := readAll(t, got.Compressed), readAll(t, want.Compressed); got != want {
		t.Errorf("layer %s has %d bytes, want %d, or others", gotDesc.Digest, len(got), len(want))
	}
	if !gotDesc.MediaType.IsLayer() {
		return
	}
	diffID, err := got.DiffID()
	must(t, err)
	if sum, _, err := v1.SHA256(strings.NewReader(readAll(t, got.Uncompressed))); sum != diffID || err != nil {
		t.Errorf("layer %s has diff ID %s, and is extracted to %s: %v", gotDesc.Digest, diffID, sum, err)
	}
}

func rawManifest(t *testing.T, of partial.WithRawManifest) string {
	t.Helper()
	raw, err := of.RawManifest()
	must(t, err)
	return string(raw)
}

func readAll(t *testing.T, open func() (io.ReadCloser, error)) string {
	t.Helper()
	content, err := open()
	must(t, err)
	all, err := io.ReadAll(content)
	must(t, err)
	must(t, content.Close())
	return string(all)
}

func TestAnIndexGoesInAndComesOutTheSame(t *testing.T) {
	registry := open(t)
	idx, images := platforms(t)
	pushed, err := registry.Push(t.Context(), ggcr.IndexSource(idx), "app/all:v1", nil)
	must(t, err)
	if want := digestOf(t, idx); string(pushed.Descriptor.Digest) != want {
		t.Errorf("it was pushed as %s, its digest is %s", pushed.Descriptor.Digest, want)
	}
	back, err := ggcr.Index(t.Context(), repository(t, registry, "app/all"), string(pushed.Descriptor.Digest))
	must(t, err)
	if got, want := rawManifest(t, back), rawManifest(t, idx); got != want {
		t.Errorf("the index is %s, want %s", got, want)
	}
	for i, platform := range []v1.Platform{amd64, arm64} {
		found, err := partial.FindImages(back, match.Platforms(platform))
		must(t, err)
		if len(found) != 1 {
			t.Fatalf("%d images are for %s", len(found), platform.Architecture)
		}
		sameImage(t, found[0], images[i])
		desc, err := partial.Descriptor(found[0])
		must(t, err)
		if desc.Platform == nil || desc.Platform.Architecture != platform.Architecture {
			t.Errorf("the image for %s is described as for %v", platform.Architecture, desc.Platform)
		}
	}
}

// An index may list indexes, and blobs.
func TestAnIndexOfMore(t *testing.T) {
	registry := open(t)
	images := []v1.Image{image(t, amd64, layer(t, "for amd64")), image(t, arm64, layer(t, "for arm64"))}
	inner := indexOf(images[0], images[1])
	blob := static.NewLayer([]byte("a blob"), "text/plain")
	idx := indexOf(inner, images[0], blob)
	_, err := registry.Push(t.Context(), ggcr.IndexSource(idx), "app/more:v1", nil)
	must(t, err)
	back, err := ggcr.Index(t.Context(), repository(t, registry, "app/more"), "v1")
	must(t, err)
	if got, want := digestOf(t, back), digestOf(t, idx); got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	hash, err := inner.Digest()
	must(t, err)
	nested, err := back.ImageIndex(hash)
	must(t, err)
	if err := validate.Index(nested); err != nil {
		t.Errorf("go-containerregistry says of the index within: %v", err)
	}
	listed, err := partial.Manifests(back)
	must(t, err)
	if len(listed) != 3 {
		t.Fatalf("%d are listed, want 3", len(listed))
	}
	if all := readAll(t, listed[2].(v1.Layer).Compressed); all != "a blob" {
		t.Errorf("the blob is %q", all)
	}
}

// What go-containerregistry reads from a layout of its own, which opens blobs by another method.
func TestALayoutOfGGCR(t *testing.T) {
	registry := open(t)
	idx, images := platforms(t)
	path, err := layout.Write(t.TempDir(), indexOf(idx, images[1], static.NewLayer([]byte("a blob"), "text/plain")))
	must(t, err)
	read, err := path.ImageIndex()
	must(t, err)
	pushed, err := registry.Push(t.Context(), ggcr.IndexSource(read), "app/layout:v1", nil)
	must(t, err)
	if want := digestOf(t, read); string(pushed.Descriptor.Digest) != want {
		t.Errorf("it was pushed as %s, its digest is %s", pushed.Descriptor.Digest, want)
	}
}

// An image that came from berth can be changed and pushed again; what it has in common with the first moves once.
func TestAnImageOfBerthAsABase(t *testing.T) {
	registry := open(t)
	base := image(t, amd64, layer(t, strings.Repeat("base", 50_000)))
	_, err := registry.Push(t.Context(), ggcr.Source(base), "app/base:v1", nil)
	must(t, err)
	read, err := ggcr.Image(t.Context(), repository(t, registry, "app/base"), "v1")
	must(t, err)
	changed, err := mutate.AppendLayers(read, layer(t, "more"))
	must(t, err)
	pushed, err := registry.Push(t.Context(), ggcr.Source(changed), "app/base:v2", nil)
	must(t, err)
	if pushed.Stats.Existing != 1 || pushed.Stats.Sent != 3 {
		t.Errorf("%d were there and %d were sent, want the base's layer, and a layer, a config and a manifest", pushed.Stats.Existing, pushed.Stats.Sent)
	}
	back, err := ggcr.Image(t.Context(), repository(t, registry, "app/base"), "v2")
	must(t, err)
	sameImage(t, back, changed)
}

func TestALayerIsOpenedOnce(t *testing.T) {
	registry := open(t)
	once := &counted{Layer: plainLayer(t, strings.Repeat("many bytes, ", 20_000))}
	img := image(t, amd64, once)
	once.opened.Store(0)
	src := ggcr.Source(img)
	root, err := src.Root(t.Context())
	must(t, err)
	if _, err := registry.Push(t.Context(), src, "app/once:v1", nil); err != nil {
		t.Fatal(err)
	}
	if n := once.opened.Load(); n != 1 {
		t.Errorf("a push has opened the layer %d times", n)
	}
	if _, err := registry.Push(t.Context(), src, "app/once:v2", nil); err != nil {
		t.Fatal(err)
	}
	if n := once.opened.Load(); n != 1 {
		t.Errorf("the layer was there, and was opened %d times", n-1)
	}
	if want := digestOf(t, img); string(root.Digest) != want {
		t.Errorf("the root is %s, want %s", root.Digest, want)
	}
}

func TestManyUseOneImageAtOnce(t *testing.T) {
	registry := open(t)
	idx := indexOf(image(t, amd64, layer(t, "for amd64")), image(t, arm64, layer(t, "for arm64"), layer(t, "more")))
	src := ggcr.IndexSource(indexOf(idx))
	var group sync.WaitGroup
	for _, name := range []string{"app/a", "app/b", "app/c", "app/d"} {
		group.Go(func() {
			if _, err := registry.Push(t.Context(), src, name+":v1", nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	back, err := ggcr.Index(t.Context(), repository(t, registry, "app/a"), "v1")
	must(t, err)
	for range 4 {
		group.Go(func() {
			if err := validate.Index(back); err != nil {
				t.Error(err)
			}
		})
	}
	img, err := ggcr.Image(t.Context(), repository(t, registry, "app/b"), firstImage(t, idx))
	must(t, err)
	for range 4 {
		group.Go(func() {
			if err := validate.Image(img); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func firstImage(t *testing.T, idx v1.ImageIndex) string {
	t.Helper()
	m, err := idx.IndexManifest()
	must(t, err)
	return m.Manifests[0].Digest.String()
}
