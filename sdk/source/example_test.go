package source_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// exampleImage writes an image of no layers to a place.
func exampleImage(ctx context.Context, to source.Destination) error {
	const config, raw = `{}`, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`
	root := manifest.Descriptor(v1.MediaTypeImageManifest, []byte(raw))
	for content, mediaType := range map[string]string{config: v1.MediaTypeEmptyJSON, raw: root.MediaType} {
		if err := to.Put(ctx, manifest.Descriptor(mediaType, []byte(content)), strings.NewReader(content)); err != nil {
			return err
		}
	}
	return to.Commit(ctx, root)
}

func ExampleToLayout() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	to, err := source.ToLayout(filepath.Join(dir, "image"), "v1")
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	if err := exampleImage(ctx, to); err != nil {
		log.Fatal(err)
	}
	from := source.Layout(filepath.Join(dir, "image"), "v1")
	defer from.Close()
	root, err := from.Root(ctx)
	fmt.Println(root.MediaType, root.Digest.Encoded()[:12], err)
	// Output: application/vnd.oci.image.manifest.v1+json 1ccb399e44f3 <nil>
}

func ExampleArchive() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "image.tar")
	to, err := source.ToArchive(name, "")
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	if err := exampleImage(ctx, to); err != nil {
		log.Fatal(err)
	}
	from := source.Archive(name, "")
	defer from.Close()
	root, err := from.Root(ctx)
	fmt.Println(root.Size, err)
	// Output: 239 <nil>
}

func ExampleParse() {
	for _, text := range []string{"oci:out/image:v1", "oci-archive:image.tar", "image.tar"} {
		src, err := source.Parse(text)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(src)
		src.Close()
	}
	// Output:
	// oci:out/image:v1
	// oci-archive:image.tar
	// "image.tar": want oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME]
}

func ExampleSplit() {
	form, path, name, err := source.Split("oci:out/image:v1")
	fmt.Println(form, path, name, err)
	// Output: oci out/image v1 <nil>
}
