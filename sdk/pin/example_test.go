package pin_test

import (
	"context"
	"fmt"
	"log"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/pin"
)

// tags stands for a registry.
type tags map[string]string

func (t tags) FetchReference(_ context.Context, reference string) (berth.Manifest, error) {
	raw, ok := t[reference]
	if !ok {
		return berth.Manifest{}, berth.ErrManifestUnknown
	}
	return berth.Manifest{Descriptor: manifest.Descriptor(v1.MediaTypeImageIndex, []byte(raw)), Raw: []byte(raw)}, nil
}

func Example() {
	ctx := context.Background()
	registry := tags{"app/hello:v1": `{"schemaVersion":2,"manifests":[]}`}
	f, err := pin.Parse("berth.lock", []byte("# Ask Ada before you change this.\nversion: 1\npins:\n"))
	if err != nil {
		log.Fatal(err)
	}
	changes, err := pin.Add(ctx, f, registry, "app/hello:v1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(changes), "added")
	fmt.Print(string(f.Bytes()))

	registry["app/hello:v1"] = `{"schemaVersion":2,"manifests":[],"annotations":{}}`
	drifts, err := pin.Verify(ctx, f, registry)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range drifts {
		fmt.Println(d.Reference+":", d.Reason)
	}
	// Output:
	// 1 added
	// # Ask Ada before you change this.
	// version: 1
	// pins:
	//   app/hello:v1:
	//     digest: sha256:bc5857ac9458293d5111ab85c952172cd7f56bceb4e3014ddc4cafac8927b313
	//     mediaType: application/vnd.oci.image.index.v1+json
	//     size: 34
	// app/hello:v1: it names another manifest
}
