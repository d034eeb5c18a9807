package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"path/filepath"
	"testing/fstest"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/sdk/source"
)

// A build tool has files, and makes an image of them.
func ExampleRegistry_Push_build() {
	registry, _, end := exampleRegistry()
	defer end()
	image := source.Build(nil, source.Image{
		Layers: []source.Layer{{FS: fstest.MapFS{"hello": {Data: []byte("hello")}}}},
		Config: v1.ImageConfig{Cmd: []string{"/hello"}},
	})
	defer image.Close()
	pushed, err := registry.Push(context.Background(), image, "app/built:v1,latest", nil)
	fmt.Println(pushed.Tags, err)
	// Output: [v1 latest] <nil>
}

// An image goes from one registry to another, by a reference of either.
func ExampleImages_Source() {
	ctx := context.Background()
	registry, _, end := exampleRegistry()
	defer end()
	from, err := registry.Source("app/hello:v1")
	if err != nil {
		log.Fatal(err)
	}
	defer from.Close()
	pushed, err := registry.Push(ctx, from, "app/copy:v1", nil)
	fmt.Println(pushed.Descriptor.Digest.Encoded()[:12], err)
	// Output: 1ccb399e44f3 <nil>
}

// ParseSource and ParseDestination take what users type.
func ExampleImages_ParseDestination() {
	ctx := context.Background()
	registry, dir, end := exampleRegistry()
	defer end()
	host, endRemote := exampleRemote()
	defer endRemote()
	for _, text := range []string{"oci:" + filepath.Join(dir, "copy") + ":v1", "docker://" + host + "/team/hello:v1"} {
		to, err := registry.ParseDestination(text)
		if err != nil {
			log.Fatal(err)
		}
		pulled, err := registry.Pull(ctx, "app/hello:v1", to, nil)
		fmt.Println(pulled.Descriptor.Digest.Encoded()[:12], errors.Join(err, to.Close()))
	}
	// Output:
	// 1ccb399e44f3 <nil>
	// 1ccb399e44f3 <nil>
}
