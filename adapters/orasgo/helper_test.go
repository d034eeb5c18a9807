package orasgo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/orasgo"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
)

// What a target is to oras-go.
var (
	_ oras.GraphTarget          = (*orasgo.Target)(nil)
	_ content.Deleter           = (*orasgo.Target)(nil)
	_ content.Untagger          = (*orasgo.Target)(nil)
	_ registry.ReferenceFetcher = (*orasgo.Target)(nil)
	_ registry.ReferencePusher  = (*orasgo.Target)(nil)
	_ registry.ReferrerLister   = (*orasgo.Target)(nil)
	_ registry.TagLister        = (*orasgo.Target)(nil)
	_ registry.Mounter          = (*orasgo.Target)(nil)
)

// open serves a new layout from within the test.
func open(tb testing.TB) *sdk.Registry {
	tb.Helper()
	served, err := sdk.Open(tb.Context(), &sdk.Options{
		Layout:   filepath.Join(tb.TempDir(), "layout"),
		Launcher: embedded.InProcess(),
		Private:  true,
	})
	must(tb, err)
	tb.Cleanup(func() { must(tb, served.Close()) })
	return served
}

func repository(tb testing.TB, of berth.Registry, name string) berth.Repository {
	tb.Helper()
	repo, err := of.Repository(name)
	must(tb, err)
	return repo
}

// target is a repository of a layout as a target.
func target(tb testing.TB, of berth.Registry, name string) *orasgo.Target {
	tb.Helper()
	return orasgo.NewTarget(repository(tb, of, name))
}

// layout is oras-go's own store, in a directory.
func layout(tb testing.TB) *oci.Store {
	tb.Helper()
	store, err := oci.New(tb.TempDir())
	must(tb, err)
	return store
}

func layer(name string, compression source.Compression) source.Layer {
	return source.Layer{FS: fstest.MapFS{name: {Data: []byte(strings.Repeat(name+"\n", 20_000))}}, Compression: compression}
}

// platforms is an index of two images with layers of all kinds.
func platforms(tb testing.TB) source.Source {
	tb.Helper()
	built := source.Build(&source.BuildOptions{TempDir: tb.TempDir()},
		source.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Layers: []source.Layer{layer("base", source.Gzip), layer("amd64", source.Zstd)}},
		source.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}, Layers: []source.Layer{layer("base", source.Gzip), layer("arm64", source.None)}},
	)
	tb.Cleanup(func() { must(tb, built.Close()) })
	return built
}

// single is one image of one layer.
func single(tb testing.TB, text string) source.Source {
	tb.Helper()
	built := source.Build(&source.BuildOptions{TempDir: tb.TempDir()}, source.Image{Layers: []source.Layer{layer(text, source.Gzip)}})
	tb.Cleanup(func() { must(tb, built.Close()) })
	return built
}

// fill copies an image into a store of oras-go, by berth's copy, and tags it v1.
func fill(tb testing.TB, to oras.Target, from source.Source) ocispec.Descriptor {
	tb.Helper()
	root, err := from.Root(tb.Context())
	must(tb, err)
	_, err = sync.Copy(tb.Context(), from, pusher{to}, root, nil)
	must(tb, err)
	must(tb, to.Tag(tb.Context(), root, "v1"))
	return root
}

// pusher is a store of oras-go as the target of berth's copy.
type pusher struct{ oras.Target }

func (p pusher) Has(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	return p.Exists(ctx, desc)
}

func (p pusher) PutBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) (sync.Action, error) {
	from, err := open()
	if err != nil {
		return "", err
	}
	defer from.Close()
	return sync.Sent, p.Push(ctx, desc, from)
}

func (p pusher) PutManifest(ctx context.Context, desc ocispec.Descriptor, raw []byte, _ bool) error {
	return p.Push(ctx, desc, bytes.NewReader(raw))
}

// contents reads all that an image leads to, by oras-go's own means, which verify it.
func contents(tb testing.TB, from content.Fetcher, root ocispec.Descriptor) map[digest.Digest]string {
	tb.Helper()
	all := map[digest.Digest]string{}
	var visit func(ocispec.Descriptor)
	visit = func(desc ocispec.Descriptor) {
		raw, err := content.FetchAll(tb.Context(), from, desc)
		must(tb, err)
		all[desc.Digest] = string(raw)
		children, err := content.Successors(tb.Context(), from, desc)
		must(tb, err)
		for _, child := range children {
			visit(child)
		}
	}
	visit(root)
	return all
}

func same(tb testing.TB, got, want map[digest.Digest]string) {
	tb.Helper()
	if len(got) != len(want) {
		tb.Errorf("it has %d parts, want %d", len(got), len(want))
	}
	for d, raw := range want {
		if got[d] != raw {
			tb.Errorf("%s has %d bytes, want %d, or others", d, len(got[d]), len(raw))
		}
	}
}

// attach adds an artifact that refers to subject.
func attach(tb testing.TB, to content.Pusher, subject ocispec.Descriptor, kind string) ocispec.Descriptor {
	tb.Helper()
	config := pushBytes(tb, to, ocispec.MediaTypeEmptyJSON, "{}")
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"kind":%[2]q}}`,
		ocispec.MediaTypeImageManifest, kind, config.MediaType, config.Digest, subject.MediaType, subject.Digest, subject.Size)
	return pushBytes(tb, to, ocispec.MediaTypeImageManifest, raw)
}

func pushBytes(tb testing.TB, to content.Pusher, mediaType, text string) ocispec.Descriptor {
	tb.Helper()
	desc := manifest.Descriptor(mediaType, []byte(text))
	if err := to.Push(tb.Context(), desc, strings.NewReader(text)); err != nil && !errors.Is(err, errdef.ErrAlreadyExists) {
		tb.Fatal(err)
	}
	return desc
}

// wants reports what an error should be and is not.
func wants(tb testing.TB, what string, err error, is ...error) {
	tb.Helper()
	for _, want := range is {
		if !errors.Is(err, want) {
			tb.Errorf("%s: %v, which is not: %v", what, err, want)
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
