//go:build linux

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/json"
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

// platforms are what the images are made for whose root is an index.
var platforms = []string{"linux/amd64", "linux/arm64"}

// platformFile is in each of these images, and names the platform of the one that it is in.
const platformFile = "platform"

// index is an OCI layout with one index for all platforms.
type index struct {
	dir     string
	root    digest.Digest
	content map[string]string        // of platformFile, by platform
	images  map[string]digest.Digest // by platform
}

// newIndex makes an index with real layers: clients unpack them, and compare diff IDs.
func (s *shell) newIndex(dir, tag string) index {
	s.Helper()
	made := index{dir: dir, content: map[string]string{}, images: map[string]digest.Digest{}}
	all := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for _, name := range platforms {
		made.content[name] = name + " " + rand.Text()
		image := s.platformImage(dir, name, made.content[name])
		made.images[name] = image.Digest
		all.Manifests = append(all.Manifests, image)
	}
	root := s.putBlob(dir, v1.MediaTypeImageIndex, s.encode(all))
	s.writeIndex(dir, tag, root)
	made.root = root.Digest
	return made
}

// platformImage makes the image for one platform.
func (s *shell) platformImage(dir, platform, content string) v1.Descriptor {
	s.Helper()
	layer := s.tarball(platformFile, content)
	of := platformOf(platform)
	image := v1.Image{Platform: of, RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}}
	desc := s.putBlob(dir, v1.MediaTypeImageManifest, s.encode(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    s.putBlob(dir, v1.MediaTypeImageConfig, s.encode(image)),
		Layers:    []v1.Descriptor{s.putBlob(dir, v1.MediaTypeImageLayerGzip, s.compress(layer))},
	}))
	desc.Platform = &of
	return desc
}

func platformOf(name string) v1.Platform {
	system, architecture, _ := strings.Cut(name, "/")
	return v1.Platform{OS: system, Architecture: architecture}
}

// tarball is an archive of one file, which may be executed.
func (s *shell) tarball(name, content string) []byte {
	s.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	s.check(w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}))
	_, err := io.WriteString(w, content)
	s.check(err)
	s.check(w.Close())
	return archive.Bytes()
}

// fileIn is the content of a file in an archive.
func (s *shell) fileIn(archive io.Reader, name string) string {
	s.Helper()
	for r := tar.NewReader(archive); ; {
		header, err := r.Next()
		if err != nil {
			s.Fatalf("%s in an archive: %v", name, err)
		}
		if strings.TrimPrefix(header.Name, "/") == name {
			content, err := io.ReadAll(r)
			s.check(err)
			return string(content)
		}
	}
}

// wantPlatformFile compares the file that a client has unpacked.
func (s *shell) wantPlatformFile(made index, platform, file string) {
	s.Helper()
	content, err := os.ReadFile(file)
	s.check(err)
	if string(content) != made.content[platform] {
		s.Errorf("the image for %s has %q, want %q", platform, content, made.content[platform])
	}
}

// closure fetches a manifest and all that it leads to, makes sure that each is what its digest says, and
// returns the digests in order.
func (s *shell) closure(base, ref string) []digest.Digest {
	s.Helper()
	raw := s.fetchWhole(base+"/manifests/"+ref, ref)
	all := []digest.Digest{digest.FromBytes(raw)}
	var manifest struct {
		Manifests []v1.Descriptor
		Config    *v1.Descriptor
		Layers    []v1.Descriptor
	}
	s.check(json.Unmarshal(raw, &manifest))
	for _, child := range manifest.Manifests {
		all = append(all, s.closure(base, string(child.Digest))...)
	}
	if manifest.Config != nil {
		manifest.Layers = append(manifest.Layers, *manifest.Config)
	}
	for _, blob := range manifest.Layers {
		s.fetchWhole(base+"/blobs/"+string(blob.Digest), string(blob.Digest))
		all = append(all, blob.Digest)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// fetchWhole fetches what has to be there. If it was asked for by digest, that has to be its digest; and
// so does the one in the answer's header.
func (s *shell) fetchWhole(url, ref string) []byte {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, url, nil)
	s.check(err)
	resp, err := http.DefaultClient.Do(req)
	s.check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	s.check(err)
	got := string(digest.FromBytes(body))
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Content-Digest") != got || (strings.Contains(ref, ":") && ref != got) {
		s.Fatalf("%s: %s with %s in its header and %s in its body: %.200s", url, resp.Status, resp.Header.Get("Docker-Content-Digest"), got, body)
	}
	return body
}

// wantBlobs makes sure that a directory has files by the names of these digests, and that they are what
// their names say. What else a client keeps there is its own affair.
func (s *shell) wantBlobs(dir string, want []digest.Digest) {
	s.Helper()
	for _, d := range want {
		content, err := os.ReadFile(filepath.Join(dir, d.Encoded()))
		s.check(err)
		if got := digest.FromBytes(content); got != d {
			s.Errorf("%s hashes to %s", d, got)
		}
	}
}
