package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/sdk/pin"
	"github.com/berthoci/berth/sdk/source"
)

// pack makes an image of one layer, as an OCI image layout. The same program gives the same digest.
func pack(ctx context.Context, dir, program string) (err error) {
	layer, err := layerOf(program)
	if err != nil {
		return err
	}
	to, err := source.ToLayout(dir, "hello")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	layerDesc := describe(v1.MediaTypeImageLayer, layer)
	config := encode(v1.Image{
		Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   v1.ImageConfig{Entrypoint: []string{"/hello"}},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerDesc.Digest}},
	})
	manifest := encode(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    describe(v1.MediaTypeImageConfig, config),
		Layers:    []v1.Descriptor{layerDesc},
	})
	root := describe(v1.MediaTypeImageManifest, manifest)
	return errors.Join(
		to.Put(ctx, layerDesc, layer),
		to.Put(ctx, describe(v1.MediaTypeImageConfig, config), config),
		to.Put(ctx, root, manifest),
		to.Commit(ctx, root))
}

// layerOf is a tar file with the program in it.
func layerOf(program string) (*bytes.Reader, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: "hello", Mode: 0o755, Size: int64(len(content))}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	return bytes.NewReader(layer.Bytes()), w.Close()
}

// describe reads content to its end and back to its start.
func describe(mediaType string, content *bytes.Reader) v1.Descriptor {
	content.Seek(0, io.SeekStart)
	d, _ := digest.FromReader(content)
	content.Seek(0, io.SeekStart)
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: content.Size()}
}

// digestInLayout reads index.json, as any tool would that knows nothing of berth.
func digestInLayout(dir string) (digest.Digest, error) {
	data, err := os.ReadFile(filepath.Join(dir, v1.ImageIndexFile))
	if err != nil {
		return "", err
	}
	var index v1.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return "", err
	}
	for _, desc := range index.Manifests {
		if desc.Annotations[v1.AnnotationRefName] == image {
			return desc.Digest, nil
		}
	}
	return "", fmt.Errorf("%s has no entry %s", dir, image)
}

func digestInLock(name string) (digest.Digest, error) {
	lock, err := pin.Load(name)
	if err != nil {
		return "", err
	}
	pinned, ok := lock.Pin(image)
	if !ok {
		return "", fmt.Errorf("%s does not pin %s", name, image)
	}
	return pinned.Digest, nil
}
