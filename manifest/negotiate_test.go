package manifest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// checkNegotiated checks what holds for every request.
func checkNegotiated(t *testing.T, a Accept, stored v1.Descriptor, byTag bool) {
	t.Helper()
	decision, err := Negotiate(a, stored, byTag)
	switch {
	case (err == nil) != (decision != 0):
		t.Errorf("%v with %v", decision, err)
	case err != nil && !errors.Is(err, berth.ErrManifestUnknown):
		t.Errorf("an error of another kind: %v", err)
	case a.Takes(stored.MediaType) && decision != AsStored:
		t.Errorf("%s is taken, but %v", stored.MediaType, decision)
	case !byTag && err == nil && decision != AsStored:
		t.Errorf("by digest %v", decision)
	case decision == AsSchema1 && !a.takesOnlySchema1():
		t.Errorf("schema 1 for a client that reads %v", a)
	}
}

const (
	oci       = v1.MediaTypeImageManifest
	ociIndex  = v1.MediaTypeImageIndex
	docker    = MediaTypeDockerManifest
	list      = MediaTypeDockerManifestList
	signed    = MediaTypeSchema1Signed
	refused   = "refused"
	stored    = "as stored"
	child     = "default child"
	asSchema1 = "as schema 1"
)

func negotiated(accept []string, mediaType string, byTag bool) string {
	decision, err := Negotiate(ParseAccept(accept), v1.Descriptor{MediaType: mediaType}, byTag)
	if err != nil {
		return refused
	}
	return decision.String()
}

// clients are the Accept fields that programs send, each with what they get by tag where an OCI image,
// an OCI index, Docker's image, Docker's list and a signed schema 1 manifest are stored.
var clients = []struct {
	name                                string
	accept                              []string
	oci, ociIndex, docker, list, signed string
}{
	{"curl", []string{"*/*"}, stored, stored, stored, stored, stored},
	{"Go's http package", nil, stored, stored, stored, stored, stored},
	{"Java", []string{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"}, stored, stored, stored, stored, stored},
	{"a script", []string{"application/json"}, stored, stored, stored, stored, stored},
	{"docker 1.10", []string{"application/json", signed, docker, list}, refused, refused, stored, stored, stored},
	{"docker 28", []string{docker, list, oci, ociIndex, signed, "application/json"}, stored, stored, stored, stored, stored},
	{"containerd", []string{strings.Join([]string{docker, list, oci, ociIndex, "*/*"}, ", ")}, stored, stored, stored, stored, stored},
	{"skopeo", []string{oci, ociIndex, docker, list, MediaTypeSchema1, signed}, stored, stored, stored, stored, stored},
	{"crane", []string{strings.Join([]string{docker, oci, list, ociIndex}, ",")}, stored, stored, stored, stored, stored},
	{"the conformance suite", []string{ociIndex, oci}, stored, stored, stored, child, stored},
	{"a script that knows Docker", []string{docker}, refused, refused, stored, child, stored},
	{"a client of schema 1", []string{signed}, asSchema1, refused, asSchema1, child, stored},
	{"a client of schema 1, by its old name", []string{MediaTypeSchema1 + ", " + signed, "application/json"}, asSchema1, refused, asSchema1, child, stored},
	{"a client of OCI images alone", []string{oci}, stored, refused, stored, child, stored},
	{"all but OCI", []string{"*/*, " + oci + ";q=0, " + ociIndex + ";q=0"}, refused, refused, stored, stored, stored},
	{"a browser", []string{"text/html"}, refused, refused, stored, child, stored},
}

// OCI manifest or index only to clients that accept it. A manifest list asked for by tag by a client
// that cannot read lists: the linux/amd64 child.
func TestWhatClientsGetByTag(t *testing.T) {
	for _, c := range clients {
		for mediaType, want := range map[string]string{oci: c.oci, ociIndex: c.ociIndex, docker: c.docker, list: c.list, signed: c.signed} {
			if got := negotiated(c.accept, mediaType, true); got != want {
				t.Errorf("%s gets %s %s, want %s", c.name, mediaType, got, want)
			}
		}
	}
}

// By digest nothing is served but what is stored.
func TestWhatClientsGetByDigest(t *testing.T) {
	for _, c := range clients {
		for _, a := range all {
			want := stored
			if taken := ParseAccept(c.accept).Takes(a.mediaType); !taken && !isDockers(a.mediaType) {
				want = refused
			}
			if got := negotiated(c.accept, a.mediaType, false); got != want {
				t.Errorf("%s gets %s %s, want %s", c.name, a.mediaType, got, want)
			}
		}
	}
}

// MANIFEST_UNKNOWN with a reason.
func TestRefusalSaysWhatIsStoredAndAccepted(t *testing.T) {
	_, err := Negotiate(ParseAccept([]string{docker + ", text/html;q=0.3"}), v1.Descriptor{MediaType: ociIndex}, true)
	if berth.Code(err) != "MANIFEST_UNKNOWN" {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{ociIndex, docker, "text/html"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	long := ParseAccept([]string{strings.Repeat("application/x-one, ", 500)})
	if _, err := Negotiate(long, v1.Descriptor{MediaType: strings.Repeat("x", 1000)}, true); err == nil || len(err.Error()) > 600 {
		t.Errorf("got %v", err)
	}
}

// platformed is a child of an index.
func platformed(mediaType, name, os, architecture, variant string) v1.Descriptor {
	desc := Descriptor(mediaType, []byte(name))
	desc.Platform = &v1.Platform{OS: os, Architecture: architecture, Variant: variant}
	return desc
}

func TestNegotiateChild(t *testing.T) {
	children := []v1.Descriptor{
		platformed(docker, "386", "linux", "386", ""), platformed(docker, "v3", "linux", "amd64", "v3"),
		platformed(docker, "arm", "linux", "arm", "v7"), platformed(docker, "amd64", "linux", "amd64", ""),
		platformed(docker, "again", "linux", "amd64", ""),
	}
	retyped := func(mediaType string) *Document {
		only := children[3]
		only.MediaType = mediaType
		return &Document{Kind: Index, MediaType: list, Manifests: []v1.Descriptor{only}}
	}
	whole := &Document{Kind: Index, MediaType: list, Manifests: children}
	tests := []struct {
		name   string
		accept []string
		list   *Document
		want   Decision
	}{
		{"the child is read", []string{docker}, whole, AsStored},
		{"schema 1 alone is read", []string{signed}, whole, AsSchema1},
		{"neither is read", []string{oci}, whole, 0},
		{"the child is OCI's, and read", []string{oci}, retyped(oci), AsStored},
		{"the child is OCI's, and not read", []string{docker}, retyped(oci), 0},
		{"the child is OCI's, for a client of schema 1", []string{signed}, retyped(oci), AsSchema1},
		{"the child is schema 1, and read", []string{signed}, retyped(signed), AsStored},
		{"the child is a list again", []string{docker}, retyped(list), 0},
		{"there is none", []string{docker}, &Document{Kind: Index, MediaType: list, Manifests: children[:3]}, 0},
		{"the list is empty", []string{docker}, &Document{Kind: Index, MediaType: list}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, decision, err := NegotiateChild(ParseAccept(tt.accept), tt.list)
			if decision != tt.want || (err == nil) != (tt.want != 0) {
				t.Fatalf("got %v, %v", decision, err)
			}
			if err == nil && got.Digest != children[3].Digest {
				t.Errorf("got the child %+v", got)
			}
			if err != nil && (!errors.Is(err, berth.ErrManifestUnknown) || !strings.Contains(err.Error(), "accepts "+tt.accept[0])) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, _, err := NegotiateChild(Accept{}, &Document{Kind: Image}); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("an image: got %v", err)
	}
}

func TestDecisionsHaveNames(t *testing.T) {
	for decision, want := range map[Decision]string{AsStored: stored, DefaultChild: child, AsSchema1: asSchema1, 0: refused} {
		if got := fmt.Sprint(decision); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
