//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
)

// hostLayerSize makes a push last long enough to be interrupted.
const hostLayerSize = 2 << 20

// hostCommand is the first argument that makes the test binary a host.
const hostCommand = "act-as-host"

// actAsHost is a build tool that never ends by itself: it opens a layout with a berth binary and pushes
// one image after the other, of content that it makes up, until it is killed.
//
//	act-as-host BERTH LAYOUT PREFIX
//
// It prints a line "open" when the registry answers, and a line "pushed REPOSITORY:TAG DIGEST" after
// each push. The tags are PREFIX and a number.
func actAsHost(args []string) {
	if len(args) != 4 || args[0] != hostCommand {
		return
	}
	err := pushForEver(context.Background(), args[1], args[2], args[3])
	fmt.Fprintln(os.Stderr, "host:", err)
	os.Exit(1)
}

// pushForEver returns only if something fails.
func pushForEver(ctx context.Context, berth, layout, prefix string) error {
	registry, err := sdk.Open(ctx, &sdk.Options{Layout: layout, Launcher: host.Binary(berth), Private: true})
	if err != nil {
		return err
	}
	defer registry.Close()
	fmt.Println("open")
	for i := 0; ; i++ {
		made, err := newHostImage()
		if err != nil {
			return err
		}
		ref := fmt.Sprintf("host/image:%s%d", prefix, i)
		pushed, err := registry.Push(ctx, made, ref, nil)
		if err != nil {
			return err
		}
		fmt.Println("pushed", ref, pushed.Descriptor.Digest)
	}
}

// hostImage is an image in memory.
type hostImage struct {
	root  v1.Descriptor
	blobs map[digest.Digest][]byte
}

func newHostImage() (*hostImage, error) { return newHostImageOf(hostLayerSize, hostLayerSize) }

// newHostImageOf makes an image with layers of these sizes.
func newHostImageOf(sizes ...int) (*hostImage, error) {
	m := &hostImage{blobs: map[digest.Digest][]byte{}}
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	manifest.Config = m.add(v1.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`))
	for _, size := range sizes {
		content := make([]byte, size)
		rand.Read(content)
		manifest.Layers = append(manifest.Layers, m.add(v1.MediaTypeImageLayer, content))
	}
	raw, err := json.Marshal(manifest)
	m.root = m.add(v1.MediaTypeImageManifest, raw)
	return m, err
}

func (m *hostImage) add(mediaType string, content []byte) v1.Descriptor {
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	m.blobs[desc.Digest] = content
	return desc
}

func (m *hostImage) Root(context.Context) (v1.Descriptor, error) { return m.root, nil }

func (m *hostImage) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m.blobs[desc.Digest])), nil
}

func (m *hostImage) Close() error { return nil }
