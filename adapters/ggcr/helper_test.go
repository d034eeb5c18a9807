package ggcr_test

import (
	"archive/tar"
	"bytes"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

// open serves a new layout from within the test.
func open(tb testing.TB) *sdk.Registry {
	tb.Helper()
	registry, err := sdk.Open(tb.Context(), &sdk.Options{
		Layout:   filepath.Join(tb.TempDir(), "layout"),
		Launcher: embedded.InProcess(),
		Private:  true,
	})
	must(tb, err)
	tb.Cleanup(func() { must(tb, registry.Close()) })
	return registry
}

func repository(tb testing.TB, registry berth.Registry, name string) berth.Repository {
	tb.Helper()
	repo, err := registry.Repository(name)
	must(tb, err)
	return repo
}

// archive is a tar file with one file in it.
func archive(tb testing.TB, content string) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	must(tb, w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content))}))
	_, err := io.WriteString(w, content)
	must(tb, err)
	must(tb, w.Close())
	return out.Bytes()
}

// layer is compressed each time that it is read.
func layer(tb testing.TB, content string, opts ...tarball.LayerOption) v1.Layer {
	tb.Helper()
	packed := archive(tb, content)
	made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil }, opts...)
	must(tb, err)
	return made
}

func zstdLayer(tb testing.TB, content string) v1.Layer {
	return layer(tb, content, tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
}

func plainLayer(tb testing.TB, content string) v1.Layer {
	return static.NewLayer(archive(tb, content), types.OCIUncompressedLayer)
}

// image is an image of OCI's for a platform.
func image(tb testing.TB, platform v1.Platform, layers ...v1.Layer) v1.Image {
	tb.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	config, err := img.ConfigFile()
	must(tb, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	img, err = mutate.ConfigFile(img, config)
	must(tb, err)
	img, err = mutate.AppendLayers(img, layers...)
	must(tb, err)
	return img
}

var (
	amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = v1.Platform{OS: "linux", Architecture: "arm64"}
)

// indexOf lists images for platforms, or whatever else there is.
func indexOf(adds ...mutate.Appendable) v1.ImageIndex {
	var all []mutate.IndexAddendum
	for _, add := range adds {
		one := mutate.IndexAddendum{Add: add}
		if img, ok := add.(v1.Image); ok {
			if config, err := img.ConfigFile(); err == nil {
				one.Descriptor.Platform = config.Platform()
			}
		}
		all = append(all, one)
	}
	return mutate.AppendManifests(empty.Index, all...)
}

// platforms is an index of two images that share a layer.
func platforms(tb testing.TB) (idx v1.ImageIndex, images [2]v1.Image) {
	tb.Helper()
	base := layer(tb, "base")
	images = [2]v1.Image{image(tb, amd64, base, zstdLayer(tb, "for amd64")), image(tb, arm64, base, plainLayer(tb, "for arm64"))}
	return indexOf(images[0], images[1]), images
}

// counted counts how often a layer is opened.
type counted struct {
	v1.Layer
	opened atomic.Int64
}

func (c *counted) Compressed() (io.ReadCloser, error) {
	c.opened.Add(1)
	return c.Layer.Compressed()
}

func digestOf(tb testing.TB, what partial.WithRawManifest) string {
	tb.Helper()
	hash, err := partial.Digest(what)
	must(tb, err)
	return hash.String()
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func digestFrom(hash v1.Hash) digest.Digest { return digest.Digest(hash.String()) }
