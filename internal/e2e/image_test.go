//go:build linux

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// umociImage makes an OCI layout with one image, in which each layer is a file of random bytes.
func (s *shell) umociImage(dir, tag string, sizes ...int64) digest.Digest {
	s.Helper()
	image, bundle := dir+":"+tag, s.path("bundle")
	s.must("umoci", "init", "--layout", dir)
	s.must("umoci", "new", "--image", image)
	s.must("umoci", "unpack", "--rootless", "--image", image, bundle)
	for i, size := range sizes {
		s.randomFile(filepath.Join(bundle, "rootfs", fmt.Sprint("file", i)), size)
		s.must("umoci", "repack", "--refresh-bundle", "--image", image, bundle)
	}
	s.must("umoci", "config", "--image", image, "--config.cmd", "/bin/app")
	s.must("umoci", "gc", "--layout", dir)
	return s.rootOf(dir)
}

func (s *shell) randomFile(path string, size int64) {
	s.Helper()
	f, err := os.Create(path)
	s.check(err)
	defer f.Close()
	_, err = io.CopyN(f, rand.Reader, size)
	s.check(err)
}

// rootOf is the digest of the only image of a layout.
func (s *shell) rootOf(dir string) digest.Digest {
	s.Helper()
	entries := s.entriesOf(dir)
	if len(entries) != 1 {
		s.Fatalf("%s has %d images: %v", dir, len(entries), entries)
	}
	return entries[0].Digest
}

func (s *shell) entriesOf(dir string) []v1.Descriptor {
	s.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, v1.ImageIndexFile))
	s.check(err)
	var index v1.Index
	s.check(json.Unmarshal(raw, &index))
	return index.Manifests
}

// namesOf are the reference names that a layout's index.json shows. A directory that is not there
// shows none.
func (s *shell) namesOf(dir string) []string {
	s.Helper()
	names := []string{}
	if _, err := os.Stat(filepath.Join(dir, v1.ImageIndexFile)); err != nil {
		return names
	}
	for _, entry := range s.entriesOf(dir) {
		if name := entry.Annotations[v1.AnnotationRefName]; name != "" {
			names = append(names, name)
		}
	}
	return names
}

// blobsOf lists the blobs of a layout, and makes sure that each is what its name says.
func (s *shell) blobsOf(dir string) []digest.Digest {
	s.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, v1.ImageBlobsDir, "sha256"))
	s.check(err)
	all := []digest.Digest{}
	for _, entry := range entries {
		f, err := os.Open(filepath.Join(dir, v1.ImageBlobsDir, "sha256", entry.Name()))
		s.check(err)
		d, err := digest.FromReader(f)
		f.Close()
		s.check(err)
		if d.Encoded() != entry.Name() {
			s.Errorf("%s: the content of %s hashes to %s", dir, entry.Name(), d)
		}
		all = append(all, d)
	}
	return all
}

// sameBlobs compares the blobs of two layouts, byte for byte.
func (s *shell) sameBlobs(want, got string) {
	s.Helper()
	wanted, found := s.blobsOf(want), s.blobsOf(got)
	if !slices.Equal(wanted, found) {
		s.Errorf("%s has the blobs\n%v\nand %s\n%v", want, wanted, got, found)
		return
	}
	for _, d := range wanted {
		name := filepath.Join(v1.ImageBlobsDir, "sha256", d.Encoded())
		s.sameFile(filepath.Join(want, name), filepath.Join(got, name))
	}
}

func (s *shell) sameFile(want, got string) {
	s.Helper()
	wanted, err := os.ReadFile(want)
	s.check(err)
	found, err := os.ReadFile(got)
	s.check(err)
	if !slices.Equal(wanted, found) {
		s.Errorf("%s and %s differ", want, got)
	}
}

// image is what an image consists of.
type image struct {
	root  digest.Digest
	blobs []v1.Descriptor // config and layers
}

// smallImage makes an OCI layout with one image of random content, without a program's help.
func (s *shell) smallImage(dir, tag string, layers int) image {
	s.Helper()
	return s.imageOf(dir, tag, slices.Repeat([]int{layerSize}, layers))
}

func (s *shell) imageOf(dir, tag string, sizes []int) image {
	s.Helper()
	layers := []v1.Descriptor{}
	for _, size := range sizes {
		layers = append(layers, s.putLayer(dir, size))
	}
	return s.imageWith(dir, tag, layers...)
}

// imageWith makes an image of layers that are there.
func (s *shell) imageWith(dir, tag string, layers ...v1.Descriptor) image {
	s.Helper()
	manifest := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: layers}
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"author":%q}`, rand.Text())
	manifest.Config = s.putBlob(dir, v1.MediaTypeImageConfig, []byte(config))
	root := s.putBlob(dir, v1.MediaTypeImageManifest, s.encode(manifest))
	s.writeIndex(dir, tag, root)
	return image{root.Digest, append([]v1.Descriptor{manifest.Config}, layers...)}
}

// layerSize makes an image that is pushed at once.
const layerSize = 8 << 10

func (s *shell) putLayer(dir string, size int) v1.Descriptor {
	s.Helper()
	return s.putBlob(dir, v1.MediaTypeImageLayerGzip, s.layer(size))
}

// layer is random bytes, compressed: skopeo would compress what is not.
func (s *shell) layer(size int) []byte {
	s.Helper()
	content := make([]byte, size)
	rand.Read(content)
	return s.compress(content)
}

func (s *shell) compress(content []byte) []byte {
	s.Helper()
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err := w.Write(content)
	s.check(err)
	s.check(w.Close())
	return compressed.Bytes()
}

func (s *shell) writeIndex(dir, tag string, root v1.Descriptor) {
	s.Helper()
	root.Annotations = map[string]string{v1.AnnotationRefName: tag}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{root}}
	s.write(filepath.Join(dir, v1.ImageLayoutFile), string(s.encode(v1.ImageLayout{Version: v1.ImageLayoutVersion})))
	s.write(filepath.Join(dir, v1.ImageIndexFile), string(s.encode(index)))
}

func (s *shell) putBlob(dir, mediaType string, content []byte) v1.Descriptor {
	s.Helper()
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	s.write(blobFile(dir, desc.Digest), string(content))
	return desc
}

func blobFile(dir string, d digest.Digest) string {
	return filepath.Join(dir, v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (s *shell) encode(v any) []byte {
	s.Helper()
	raw, err := json.Marshal(v)
	s.check(err)
	return raw
}

// serves makes sure that an image is complete behind a tag: that the manifest and all that it names
// can be fetched, and are what they should be.
func (s *shell) serves(address, repository, tag string, want digest.Digest) {
	s.Helper()
	base := "http://" + address + "/v2/" + repository
	raw := s.fetch(base + "/manifests/" + tag)
	if got := digest.FromBytes(raw); got != want {
		s.Errorf("%s:%s is %s, want %s: %.200s", repository, tag, got, want, raw)
		return
	}
	var manifest v1.Manifest
	s.check(json.Unmarshal(raw, &manifest))
	for _, desc := range append(manifest.Layers, manifest.Config) {
		content := s.fetch(base + "/blobs/" + string(desc.Digest))
		if digest.FromBytes(content) != desc.Digest {
			s.Errorf("%s:%s: what comes as blob %s is something else: %.200s", repository, tag, desc.Digest, content)
		}
	}
}

// fetch returns the body of whatever answer comes.
func (s *shell) fetch(url string) []byte {
	s.Helper()
	resp, err := ask(s.Context(), http.MethodGet, url)
	s.check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	s.check(err)
	return body
}

// ask sends a request of somebody who takes any image.
func ask(ctx context.Context, method, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", strings.Join([]string{v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, "*/*"}, ", "))
	return http.DefaultClient.Do(req)
}
