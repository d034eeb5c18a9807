// Package manifest understands image manifests and indexes, OCI's and Docker's. It is pure: it is
// given bytes, and it does no I/O.
//
// A [Document] is what all four formats have in common: a config and layers for one image, or a
// list of manifests; a subject, an artifact type and annotations where the format has them.
//
//	doc, err := manifest.Parse(desc.MediaType, raw)
//	for _, child := range doc.Successors() {
//		fmt.Println(child.Digest)
//	}
//
// [Negotiate] decides what a client is served that says which formats it reads, [Select] finds the
// image for a platform in an index, [Inspect] reports what an image is. Docker's schema 1 has a
// package of its own, schema1; here it is only recognised.
//
// # What Parse refuses
//
// A registry keeps what it is sent, byte for byte, and many programs read it. So Parse is strict
// where two readers could take the same bytes for different things, and lenient elsewhere. It refuses
//
//   - what [CheckJSON] refuses, and a key that only its case tells from one that is read here;
//   - a media type, declared or its own, that does not fit the other or the content: an image that
//     lists manifests, an index with a config or layers, a schemaVersion other than 2, fsLayers
//     (CVE-2021-41190);
//   - an image without a config;
//   - a digest that is none, or of an algorithm other than sha256, sha384 and sha512; a size that is
//     negative or beyond 2^53-1, from where on readers round;
//   - data that is not what digest and size say: one reader would use it, another fetch the blob;
//   - urls that are not absolute URIs (RFC 3986): one is enough to make a layer optional;
//   - media types of descriptors and artifact types of more than 255 characters (RFC 6838, 4.2), or
//     with others than printable ASCII;
//   - more than berth.MaxManifestSize bytes, 100 000 members of objects and arrays, 10 000 children, or 64
//     urls on one child.
//
// It takes, though the image specification asks for more: a manifest without mediaType, a descriptor
// without mediaType or size, layers or manifests that are missing or null, layers and configs of any
// media type (an image of 2016 can have the config type "text/html"), an artifact without
// artifactType, platforms without os, null where something is optional, and unknown members. Known
// clients write most of these, and readers do not differ over what is not there.
//
// # Sources
//
// The rules are those of the OCI image specification (manifest.md, image-index.md, descriptor.md,
// considerations.md), of Docker's image manifest version 2, schema 2, and of the OCI distribution
// specification; what is taken beyond them is what the distribution-spec conformance suite and known
// clients push. Negotiation follows RFC 9110, 12.5.1, and the reference registry; platforms match as
// in containerd.
package manifest

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// Docker's media types for what OCI calls an image manifest and an image index.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Docker's media types for manifests of schema 1, which Parse does not take: see package schema1.
const (
	MediaTypeSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// mediaTypeDockerConfig is Docker's media type for the config of an image.
const mediaTypeDockerConfig = "application/vnd.docker.container.image.v1+json"

// Kind tells the two shapes of manifest apart.
type Kind int

// The kinds of manifest.
const (
	// Image has a config and layers.
	Image Kind = iota + 1
	// Index lists manifests.
	Index
)

// String returns "image" or "index".
func (k Kind) String() string {
	switch k {
	case Image:
		return "image"
	case Index:
		return "index"
	}
	return "unknown"
}

// KindOf returns the kind of manifest that a media type stands for, or 0 if Parse does not take it.
func KindOf(mediaType string) Kind {
	switch mediaType {
	case v1.MediaTypeImageManifest, MediaTypeDockerManifest:
		return Image
	case v1.MediaTypeImageIndex, MediaTypeDockerManifestList:
		return Index
	}
	return 0
}

// IsSchema1 reports whether a media type is one of schema 1.
func IsSchema1(mediaType string) bool {
	return mediaType == MediaTypeSchema1 || mediaType == MediaTypeSchema1Signed
}

// IsManifest reports whether a media type is one of a manifest, schema 1 included.
func IsManifest(mediaType string) bool { return KindOf(mediaType) != 0 || IsSchema1(mediaType) }

// MediaTypes lists the media types that Parse takes, in the order a client should ask for them.
func MediaTypes() []string {
	return []string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, MediaTypeDockerManifestList, MediaTypeDockerManifest}
}

// Document is a parsed manifest. It does not replace the bytes: those are what a digest is of.
type Document struct {
	// MediaType without parameters; never empty.
	MediaType string
	Kind      Kind
	// Config is set for an Image.
	Config *v1.Descriptor
	// Layers are an Image's, base first.
	Layers []v1.Descriptor
	// Manifests are an Index's.
	Manifests []v1.Descriptor
	// Subject is the manifest that this one refers to, or nil.
	Subject *v1.Descriptor
	// ArtifactType is what the manifest says of itself, or empty: see ReferrerType.
	ArtifactType string
	Annotations  map[string]string
}

// Successors returns the children in the order in which they must exist: config first, then layers;
// or the manifests of an index. The subject is no child: a referrer may come before its subject.
func (d *Document) Successors() []v1.Descriptor {
	children := make([]v1.Descriptor, 0, 1+len(d.Layers)+len(d.Manifests))
	if d.Config != nil {
		children = append(children, *d.Config)
	}
	children = append(children, d.Layers...)
	return append(children, d.Manifests...)
}

// Required returns the successors that must be in the repository: all but layers that carry urls,
// which are distributed by somebody else.
func (d *Document) Required() []v1.Descriptor {
	required := make([]v1.Descriptor, 0, 1+len(d.Layers)+len(d.Manifests))
	for _, desc := range d.Successors() {
		if len(desc.URLs) == 0 || d.Kind == Index {
			required = append(required, desc)
		}
	}
	return required
}

// ReferrerType is the artifactType under which this manifest is listed as a referrer: its own, else
// the config's media type for an image, else none (distribution-spec, "Listing Referrers").
func (d *Document) ReferrerType() string {
	if d.ArtifactType == "" && d.Config != nil {
		return d.Config.MediaType
	}
	return d.ArtifactType
}

// Class is what a policy can allow or deny a manifest by: its artifact type, else its config's media
// type, else its own media type. It is in lower case, for media types do not depend on case, and is
// never empty. Examples:
//
//	application/vnd.oci.image.config.v1+json         an image
//	application/vnd.docker.container.image.v1+json   an image in Docker's format
//	application/vnd.oci.image.index.v1+json          an index of images
//	application/vnd.docker.plugin.v1+json            a plugin of Docker
//	application/vnd.cncf.helm.config.v1+json         a Helm chart
//	application/vnd.cncf.notary.signature            a signature of Notation
//	application/vnd.dev.sigstore.bundle.v0.3+json    a signature of Cosign; one before version 3
//	                                                 can look like an image
//
// The class is what the manifest's author says. A list of what is allowed holds whatever that is; a
// list of what is denied does not, for an image that runs can carry any artifact type.
func (d *Document) Class() string {
	class := d.MediaType
	if kind := d.ReferrerType(); kind != "" {
		class = kind
	}
	return strings.ToLower(class)
}

// Descriptor describes raw as a manifest of that media type, by its sha256 digest.
func Descriptor(mediaType string, raw []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// Verify returns berth.ErrDigestInvalid unless raw is what desc describes, in size and digest.
func Verify(desc v1.Descriptor, raw []byte) error {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return err
	}
	if int64(len(raw)) != desc.Size {
		return fmt.Errorf("%s has %d bytes, its descriptor says %d: %w", desc.Digest, len(raw), desc.Size, berth.ErrDigestInvalid)
	}
	if got := desc.Digest.Algorithm().FromBytes(raw); got != desc.Digest {
		return fmt.Errorf("%s: its content hashes to %s: %w", desc.Digest, got, berth.ErrDigestInvalid)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", berth.ErrManifestInvalid, fmt.Sprintf(format, args...))
}
