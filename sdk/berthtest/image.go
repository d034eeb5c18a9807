package berthtest

import (
	"cmp"
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing/fstest"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// Image is the shape of an image that holds files without meaning. Nil is the zero value.
type Image struct {
	// Layers is how many it has. Zero: one.
	Layers int
	// Size is how many bytes the file has that each layer holds. Zero: 1024.
	Size int
	// Platforms are what it runs on, like "linux/arm64"; of several, there is an index. None: linux, on this machine's
	// architecture.
	Platforms []string
	// Seed makes all images of one shape and one seed the same, on all machines if Platforms are named. Zero: no two are.
	Seed uint64
}

// PushImage makes an image, and brings it straight into the registry. ref is REPOSITORY[:TAG][,TAG…]. What it returns is
// the descriptor of the manifest, or of the index. It fails the test if it cannot.
func (r *Registry) PushImage(ref string, image *Image) v1.Descriptor {
	r.tb.Helper()
	if image == nil {
		image = &Image{}
	}
	images, err := image.plan()
	if err != nil {
		r.tb.Fatalf("berthtest: image %s: %v", ref, err)
	}
	built := source.Build(nil, images...)
	defer built.Close()
	pushed, err := r.Push(r.tb.Context(), built, ref, nil)
	if err != nil {
		r.tb.Fatalf("berthtest: %v", err)
	}
	return pushed.Descriptor
}

// plan is what is to be built: one image for each platform.
func (i Image) plan() ([]source.Image, error) {
	if i.Layers < 0 || i.Size < 0 {
		return nil, fmt.Errorf("%d layers of %d bytes: want more", i.Layers, i.Size)
	}
	content := i.content()
	if len(i.Platforms) == 0 {
		return []source.Image{{Layers: i.layers(content)}}, nil
	}
	var images []source.Image
	for _, name := range i.Platforms {
		platform, err := manifest.ParsePlatform(name)
		if err != nil {
			return nil, err
		}
		images = append(images, source.Image{Platform: platform, Layers: i.layers(content)})
	}
	return images, nil
}

// content is where the bytes come from. They never end.
func (i Image) content() io.Reader {
	if i.Seed == 0 {
		return crand.Reader
	}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], i.Seed)
	return rand.NewChaCha8(seed)
}

func (i Image) layers(content io.Reader) []source.Layer {
	layers := make([]source.Layer, cmp.Or(i.Layers, 1))
	for n := range layers {
		data := make([]byte, cmp.Or(i.Size, 1024))
		io.ReadFull(content, data)
		layers[n] = source.Layer{FS: fstest.MapFS{"data": {Data: data}}, CreatedBy: "berthtest"}
	}
	return layers
}
