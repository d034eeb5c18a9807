package containerd_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/adapters/containerd"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

// exampleStore is a repository of an open registry, as a store, and what ends it.
func exampleStore() (registry *sdk.Registry, store *containerd.Store, end func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	registry, err = sdk.Open(context.Background(), &sdk.Options{
		Layout:   filepath.Join(dir, "layout"),
		Launcher: embedded.InProcess(),
		Private:  true,
	})
	if err != nil {
		log.Fatal(err)
	}
	repo, err := registry.Repository("app/hello")
	if err != nil {
		log.Fatal(err)
	}
	return registry, containerd.NewStore(repo), func() { registry.Close(); os.RemoveAll(dir) }
}

// exampleImage writes an image of no layers into a store, as a builder does.
func exampleImage(to content.Ingester) ocispec.Descriptor {
	config := manifest.Descriptor(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[]}`,
		ocispec.MediaTypeImageManifest, config.MediaType, config.Digest)
	root := manifest.Descriptor(ocispec.MediaTypeImageManifest, []byte(raw))
	for desc, text := range map[*ocispec.Descriptor]string{&root: raw, &config: "{}"} {
		if err := content.WriteBlob(context.Background(), to, string(desc.Digest), strings.NewReader(text), *desc); err != nil {
			log.Fatal(err)
		}
	}
	return root
}

func ExampleSource() {
	ctx := context.Background()
	registry, store, end := exampleStore()
	defer end()
	// What a builder has written becomes an image with tags.
	root := exampleImage(store)
	pushed, err := registry.Push(ctx, containerd.Source(store, root), "app/hello:v1,latest", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(pushed.Tags, pushed.Descriptor.Digest == root.Digest, "blobs that were there:", pushed.Stats.Existing)
	// Output: [v1 latest] true blobs that were there: 1
}

func ExampleNewStore() {
	ctx := context.Background()
	_, store, end := exampleStore()
	defer end()
	root := exampleImage(store)
	children, err := images.Children(ctx, store, root)
	if err != nil {
		log.Fatal(err)
	}
	config, err := content.ReadBlob(ctx, store, children[0])
	fmt.Println(string(config), err)
	_, err = store.Info(ctx, digest.FromString("nothing"))
	fmt.Println(errdefs.IsNotFound(err))
	// Output:
	// {} <nil>
	// true
}

func ExampleStore_Writer() {
	ctx := context.Background()
	_, store, end := exampleStore()
	defer end()
	w, err := store.Writer(ctx, content.WithRef("download"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(w, "the first half, ")
	w.Close() // and later:
	if w, err = store.Writer(ctx, content.WithRef("download")); err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	status, err := w.Status()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(w, "and the second")
	want := digest.FromString("the first half, and the second")
	fmt.Println("from", status.Offset, "on:", w.Commit(ctx, 0, want))
	// Output: from 16 on: <nil>
}
