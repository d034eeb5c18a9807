//go:build linux

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

var syncReferrers = flag.Int("sync-referrers", 20, "how many signatures of one image each of two machines syncs")

// signatureType is the type of an artifact that refers to an image.
const signatureType = "application/vnd.example.signature"

// signing serves a layout while signatures of an image in it are pushed. They are told apart by their digests, and have no tags.
func (s *shell) signing(layout, repository, mediaType string, subject digest.Digest, n int) []digest.Digest {
	s.Helper()
	info, err := os.Stat(blobFile(layout, subject))
	s.check(err)
	server, address := s.serve(layout)
	defer server.stop()
	all := []digest.Digest{}
	for range n {
		all = append(all, s.sign("http://"+address+"/v2/"+repository, v1.Descriptor{MediaType: mediaType, Digest: subject, Size: info.Size()}))
	}
	return all
}

// sign pushes an artifact that refers to an image in the repository at an address.
func (s *shell) sign(repository string, subject v1.Descriptor) digest.Digest {
	s.Helper()
	raw := s.encode(v1.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    v1.MediaTypeImageManifest,
		ArtifactType: signatureType,
		Config:       s.upload(repository, v1.MediaTypeEmptyJSON, []byte("{}")),
		Layers:       []v1.Descriptor{s.upload(repository, signatureType, []byte(rand.Text()))},
		Subject:      &subject,
	})
	d := digest.FromBytes(raw)
	s.send(http.MethodPut, repository+"/manifests/"+string(d), v1.MediaTypeImageManifest, raw, http.StatusCreated)
	return d
}

// Two machines that sync signatures of one image at the same time to a registry that lists none by itself: the list that
// stands in for that has all of them in the end.
func TestTwoMachinesSyncSignaturesOfOneImage(t *testing.T) {
	for name, program := range map[string]string{"version 2": oldRegistry, "version 3": "registry"} {
		t.Run(name, func(t *testing.T) {
			s := newShell(t)
			host := s.registryOf(program, "")
			made := s.path("made")
			image := s.smallImage(made, "v1", 1).root
			var all []digest.Digest
			var machines []*process
			layouts := []string{s.path("one"), s.path("two")}
			for _, layout := range layouts {
				s.must("berth", "--layout", layout, "push", "oci:"+made, "app/web:v1")
				all = append(all, s.signing(layout, "app/web", v1.MediaTypeImageManifest, image, *syncReferrers)...)
			}
			for _, layout := range layouts {
				machines = append(machines, s.start("berth", "--layout", layout, "sync", "--to", host, "app/web"))
			}
			for _, m := range machines {
				if out := m.wait(runTimeout); out.code != 0 {
					t.Errorf("exit code %d:\n%s%s", out.code, out.stdout, out.stderr)
				}
			}
			manifests := "http://" + host + "/v2/app/web/manifests/"
			s.listedByTag(manifests, image, all)
			list := s.fetch(manifests + listTag(image))
			for i, layout := range layouts { // somebody has overwritten the list: each finds its own missing
				if i == 0 {
					s.send(http.MethodPut, manifests+listTag(image), v1.MediaTypeImageIndex, s.emptied(list), http.StatusCreated)
				}
				s.must("berth", "--layout", layout, "sync", "--to", host, "app/web")
			}
			s.listedByTag(manifests, image, all)
		})
	}
}

// listTag is the tag that lists what refers to an image.
func listTag(image digest.Digest) string { return strings.Replace(string(image), ":", "-", 1) }

// emptied is an index without its entries.
func (s *shell) emptied(index []byte) []byte {
	s.Helper()
	var list v1.Index
	s.check(json.Unmarshal(index, &list))
	list.Manifests = []v1.Descriptor{}
	return s.encode(list)
}

// listedByTag compares the list that the tag has which is called after an image.
func (s *shell) listedByTag(manifests string, image digest.Digest, want []digest.Digest) {
	s.Helper()
	var list v1.Index
	s.check(json.Unmarshal(s.fetch(manifests+listTag(image)), &list))
	s.wantDigests(string(image), list.Manifests, want)
	for _, d := range want {
		if got := digest.FromBytes(s.fetch(manifests + string(d))); got != d {
			s.Errorf("the signature %s is %s there", d, got)
		}
	}
}
