//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const manifestType = v1.MediaTypeImageManifest

// layerSize is that of a small image's layers, in bytes.
const layerSize = 4 << 10

// image is a small one, ready to be pushed.
type image struct {
	tag      string
	blobs    []blob
	manifest []byte
}

// blob is what is pushed under a digest.
type blob struct {
	content
	digest digest.Digest
}

// newImage makes an image of two layers and a config, which no two seeds have in common.
func newImage(seed uint64, tag string) image {
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), 1})
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","created_by":"%d","rootfs":{"type":"layers","diff_ids":[]}}`, seed)
	all := [][]byte{make([]byte, layerSize), make([]byte, layerSize), config}
	img := image{tag: tag}
	for i, bytes := range all {
		if i < 2 {
			random.Read(bytes)
		}
		img.blobs = append(img.blobs, blob{content{tail: bytes}, digest.FromBytes(bytes)})
	}
	img.manifest = img.describe()
	return img
}

func (i image) describe() []byte {
	descriptor := func(mediaType string, b blob) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, b.digest, b.size())
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s,%s]}`, manifestType,
		descriptor(v1.MediaTypeImageConfig, i.blobs[2]),
		descriptor(v1.MediaTypeImageLayerGzip, i.blobs[0]), descriptor(v1.MediaTypeImageLayerGzip, i.blobs[1]))
}

// taggedImage is the one that all tags lead to where tags are what is measured.
func taggedImage() image { return newImage(1<<32-1, "first") }

// pushBlob uploads a blob in one piece: POST and PUT.
func (c *conn) pushBlob(repository string, b blob) error {
	begun, err := c.want(http.StatusAccepted, request{method: http.MethodPost, path: "/v2/" + repository + "/blobs/uploads/"})
	if err != nil {
		return err
	}
	_, err = c.want(http.StatusCreated, request{method: http.MethodPut, path: finishPath(begun.location, b.digest),
		contentType: "application/octet-stream", body: b.content})
	return err
}

// finishPath is where an upload ends, which may be told as a whole URL.
func finishPath(location string, d digest.Digest) string {
	if _, rest, whole := strings.Cut(location, "://"); whole {
		location = rest[strings.Index(rest, "/"):]
	}
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	return location + separator + "digest=" + string(d)
}

// pushImage does as clients do: it asks for each blob, pushes it, and then the manifest by its tag.
func (c *conn) pushImage(repository string, i image) error {
	for _, b := range i.blobs {
		if _, err := c.want(http.StatusNotFound, request{method: http.MethodHead, path: blobPath(repository, b.digest)}); err != nil {
			return err
		}
		if err := c.pushBlob(repository, b); err != nil {
			return err
		}
	}
	return c.pushTag(repository, i.tag, i.manifest)
}

func (c *conn) pushTag(repository, tag string, manifest []byte) error {
	_, err := c.want(http.StatusCreated, request{method: http.MethodPut, path: manifestPath(repository, tag),
		contentType: manifestType, body: content{tail: manifest}})
	return err
}

func blobPath(repository string, d digest.Digest) string {
	return "/v2/" + repository + "/blobs/" + string(d)
}

func manifestPath(repository, tag string) string {
	return "/v2/" + repository + "/manifests/" + tag
}
