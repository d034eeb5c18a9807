package source_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/sdk/source"
)

// The same files make the same image, wherever and whenever it is built.
func ExampleBuild() {
	files := fstest.MapFS{"bin/hello": {Data: []byte("#!/bin/sh\necho hello\n"), Mode: 0o755}}
	image := source.Build(nil, source.Image{
		Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
		Layers:   []source.Layer{{FS: files}},
		Config:   v1.ImageConfig{Entrypoint: []string{"/bin/hello"}},
	})
	defer image.Close()
	root, err := image.Root(context.Background())
	fmt.Println(root.MediaType, root.Digest.Encoded()[:12], err)
	// Output: application/vnd.oci.image.manifest.v1+json 966830f3039f <nil>
}

// Of one index, each platform is an image of its own.
func ExampleForPlatform() {
	var images []source.Image
	for _, architecture := range []string{"amd64", "arm64"} {
		images = append(images, source.Image{Platform: v1.Platform{OS: "linux", Architecture: architecture}})
	}
	all := source.Build(nil, images...)
	defer all.Close()
	one, err := source.ForPlatform(all, v1.Platform{OS: "linux", Architecture: "arm64"}).Root(context.Background())
	fmt.Println(one.MediaType, err)
	_, err = source.ForPlatform(all, v1.Platform{OS: "linux", Architecture: "s390x"}).Root(context.Background())
	fmt.Println(err != nil)
	// Output:
	// application/vnd.oci.image.manifest.v1+json <nil>
	// true
}

// memory is a store that a program has already.
type memory map[digest.Digest][]byte

func (m memory) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m[desc.Digest])), nil
}

// Whatever can fetch a descriptor is a source.
func ExampleNew() {
	store := memory{digest.FromString("{}"): []byte("{}")}
	from := source.New(v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("{}"), Size: 2}, store)
	defer from.Close()
	root, err := from.Root(context.Background())
	fmt.Println(root.Size, err)
	// Output: 2 <nil>
}

// An image for docker load and podman load, and read again.
func ExampleToDockerArchive() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "hello.tar")
	to, err := source.ToDockerArchive(name, "app/hello:v1")
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	if err := exampleImage(ctx, to); err != nil {
		log.Fatal(err)
	}
	from := source.DockerArchive(name, "app/hello:v1")
	defer from.Close()
	root, err := from.Root(ctx)
	fmt.Println(root.Digest.Encoded()[:12], err)
	// Output: 1ccb399e44f3 <nil>
}
