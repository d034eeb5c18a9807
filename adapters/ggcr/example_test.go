package ggcr_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berthoci/berth/adapters/ggcr"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// exampleRegistry is an open registry, and what ends it.
func exampleRegistry() (registry *sdk.Registry, end func()) {
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
	return registry, func() { registry.Close(); os.RemoveAll(dir) }
}

// exampleImage is an image of one layer.
func exampleImage() v1.Image {
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte("a layer"), types.DockerUncompressedLayer))
	if err != nil {
		log.Fatal(err)
	}
	return img
}

func ExampleSource() {
	registry, end := exampleRegistry()
	defer end()
	img := exampleImage()
	pushed, err := registry.Push(context.Background(), ggcr.Source(img), "app/hello:v1,latest", nil)
	if err != nil {
		log.Fatal(err)
	}
	digest, err := img.Digest()
	fmt.Println(pushed.Tags, string(pushed.Descriptor.Digest) == digest.String(), err)
	// Output: [v1 latest] true <nil>
}

func ExampleImage() {
	ctx := context.Background()
	registry, end := exampleRegistry()
	defer end()
	if _, err := registry.Push(ctx, ggcr.Source(exampleImage()), "app/hello:v1", nil); err != nil {
		log.Fatal(err)
	}
	repo, err := registry.Repository("app/hello")
	if err != nil {
		log.Fatal(err)
	}
	img, err := ggcr.Image(ctx, repo, "v1")
	if err != nil {
		log.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		log.Fatal(err)
	}
	size, err := layers[0].Size()
	fmt.Println(len(layers), "layer of", size, "bytes", err)
	// Output: 1 layer of 7 bytes <nil>
}

func ExampleIndex() {
	ctx := context.Background()
	registry, end := exampleRegistry()
	defer end()
	arm := v1.Platform{OS: "linux", Architecture: "arm64"}
	idx := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: exampleImage(), Descriptor: v1.Descriptor{Platform: &arm}})
	if _, err := registry.Push(ctx, ggcr.IndexSource(idx), "app/hello:v1", nil); err != nil {
		log.Fatal(err)
	}
	repo, err := registry.Repository("app/hello")
	if err != nil {
		log.Fatal(err)
	}
	found, err := ggcr.Index(ctx, repo, "v1")
	if err != nil {
		log.Fatal(err)
	}
	images, err := partial.FindImages(found, match.Platforms(arm))
	fmt.Println(len(images), err)
	// Output: 1 <nil>
}

// vault is where a tool keeps its logins, for go-containerregistry.
type vault struct{}

func (vault) Get(string) (username, password string, err error) { return "ada", "secret", nil }

func ExampleCredentials() {
	logins := ggcr.Credentials(authn.NewKeychainFromHelper(vault{}))
	// In a tool: sdk.Open(ctx, &sdk.Options{Credentials: logins})
	cred, err := logins(context.Background(), "registry.example")
	fmt.Println(cred, err)
	// Output: ada <nil>
}

func ExampleKeychain() {
	registry, end := exampleRegistry()
	defer end()
	if _, err := registry.Push(context.Background(), ggcr.Source(exampleImage()), "app/hello:v1", nil); err != nil {
		log.Fatal(err)
	}
	e := registry.Endpoint()
	login := auth.Static(e.Host, auth.Credential{Username: e.Username, Password: e.Password})
	ref, err := name.ParseReference(e.Host + "/app/hello:v1")
	if err != nil {
		log.Fatal(err)
	}
	desc, err := remote.Head(ref, remote.WithAuthFromKeychain(ggcr.Keychain(login)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(desc.MediaType)
	// Output: application/vnd.docker.distribution.manifest.v2+json
}
