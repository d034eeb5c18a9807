//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
)

const (
	syncRepository = "bench/app"
	// sharedLayers are in each image that is synced, and one more of its own.
	sharedLayers    = 3
	sharedLayerSize = 20 << 20
	ownLayerSize    = 1 << 20
)

// synced is a layout whose images are to be in another registry, and what that has to be sent at least.
type synced struct {
	layout string
	unique int64   // bytes of all blobs and manifests, each once
	blobs  []blob  // files of the layout, the shared layers first
	tags   []image // with nothing but a tag and a manifest
}

// layer is one that all images share, or one has.
type layer struct {
	v1.Descriptor
	diffID digest.Digest
}

// makeSynced makes a layout with so many images, each under two tags.
func (b *bench) makeSynced(ctx context.Context, images int) (*synced, error) {
	made := &synced{layout: filepath.Join(b.dir, "synced")}
	s, err := b.start(ctx, berth, made.layout)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	err = s.alone(func(c *conn) error { return made.make(c, images) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", made.layout, err)
	}
	return made, nil
}

func (m *synced) make(c *conn, images int) error {
	var shared []layer
	for range sharedLayers {
		l, err := m.makeLayer(c, sharedLayerSize)
		if err != nil {
			return err
		}
		shared = append(shared, l)
	}
	for i := range images {
		own, err := m.makeLayer(c, ownLayerSize)
		if err != nil {
			return err
		}
		if err := m.makeImage(c, fmt.Sprintf("v%03d", i), append(shared[:sharedLayers:sharedLayers], own)); err != nil {
			return err
		}
	}
	return nil
}

// makeLayer makes a layer of bytes that nobody has seen.
func (m *synced) makeLayer(c *conn, size int) (layer, error) {
	content := make([]byte, size)
	rand.Read(content)
	plain, packed, err := pack(content)
	if err != nil {
		return layer{}, err
	}
	desc, err := m.put(c, v1.MediaTypeImageLayerGzip, packed)
	return layer{desc, digest.FromBytes(plain)}, err
}

// pack puts a file into an archive, and that into the form of one that is compressed: what clients find in no such form
// they compress themselves.
func pack(content []byte) (plain, packed []byte, err error) {
	var archived, zipped bytes.Buffer
	archive := tar.NewWriter(&archived)
	err = archive.WriteHeader(&tar.Header{Name: "data", Mode: 0o644, Size: int64(len(content))})
	if err != nil {
		return nil, nil, err
	}
	archive.Write(content)
	if err := archive.Close(); err != nil {
		return nil, nil, err
	}
	gz, err := gzip.NewWriterLevel(&zipped, gzip.NoCompression)
	if err != nil {
		return nil, nil, err
	}
	gz.Write(archived.Bytes())
	err = gz.Close()
	return archived.Bytes(), zipped.Bytes(), err
}

func (m *synced) makeImage(c *conn, tag string, layers []layer) error {
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, RootFS: v1.RootFS{Type: "layers"}}
	described := v1.Manifest{MediaType: manifestType}
	described.SchemaVersion = 2
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		described.Layers = append(described.Layers, l.Descriptor)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if described.Config, err = m.put(c, v1.MediaTypeImageConfig, raw); err != nil {
		return err
	}
	if raw, err = json.Marshal(described); err != nil {
		return err
	}
	m.unique += int64(len(raw))
	for _, tag := range []string{tag, tag + "-latest"} {
		m.tags = append(m.tags, image{tag: tag, manifest: raw})
		if err := c.pushTag(syncRepository, tag, raw); err != nil {
			return err
		}
	}
	return nil
}

// put stores a blob, and remembers the file that it then is.
func (m *synced) put(c *conn, mediaType string, raw []byte) (v1.Descriptor, error) {
	desc := manifest.Descriptor(mediaType, raw)
	file := filepath.Join(m.layout, "blobs", string(desc.Digest.Algorithm()), desc.Digest.Encoded())
	m.blobs = append(m.blobs, blob{content{file: file, length: desc.Size}, desc.Digest})
	m.unique += desc.Size
	return desc, c.pushBlob(syncRepository, blob{content{tail: raw}, desc.Digest})
}
