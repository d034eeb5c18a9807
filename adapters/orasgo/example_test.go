package orasgo_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/errdef"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/orasgo"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

// exampleRegistry is an open registry, and what ends it.
func exampleRegistry() (served *sdk.Registry, end func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	served, err = sdk.Open(context.Background(), &sdk.Options{
		Layout:   filepath.Join(dir, "layout"),
		Launcher: embedded.InProcess(),
		Private:  true,
	})
	if err != nil {
		log.Fatal(err)
	}
	return served, func() { served.Close(); os.RemoveAll(dir) }
}

// exampleStore is a store of oras-go with an artifact in it, which has the tag v1.
func exampleStore() (store *memory.Store, root ocispec.Descriptor) {
	ctx := context.Background()
	store = memory.New()
	note, err := oras.PushBytes(ctx, store, "text/plain", []byte("a note"))
	if err != nil {
		log.Fatal(err)
	}
	created := map[string]string{ocispec.AnnotationCreated: "2000-01-01T00:00:00Z"}
	opts := oras.PackManifestOptions{Layers: []ocispec.Descriptor{note}, ManifestAnnotations: created}
	root, err = oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, "text/note", opts)
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Tag(ctx, root, "v1"); err != nil {
		log.Fatal(err)
	}
	return store, root
}

func ExampleNewTarget() {
	ctx := context.Background()
	served, end := exampleRegistry()
	defer end()
	repo, err := served.Repository("app/note")
	if err != nil {
		log.Fatal(err)
	}
	store, root := exampleStore()
	target := orasgo.NewTarget(repo)
	copied, err := oras.Copy(ctx, store, "v1", target, "latest", oras.DefaultCopyOptions)
	fmt.Println(copied.Digest == root.Digest, err)
	_, err = target.Resolve(ctx, "v2")
	fmt.Println(errors.Is(err, errdef.ErrNotFound), errors.Is(err, berth.ErrManifestUnknown))
	// Output:
	// true <nil>
	// true true
}

func ExampleSource() {
	served, end := exampleRegistry()
	defer end()
	store, root := exampleStore()
	pushed, err := served.Push(context.Background(), orasgo.Source(store, root), "app/note:v1,latest", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(pushed.Tags, pushed.Stats.Sent)
	// Output: [v1 latest] 3
}
