// Package manifest understands image manifests and indexes, OCI's and Docker's. It is pure: it is
// given bytes, and it does no I/O.
//
// A [Document] is what all four formats have in common: a config and layers for one image, or a
// list of manifests; a subject, an artifact type and annotations where the format has them. Parsing
// checks what must hold whoever wrote the manifest: that the content is of the kind that the media
// type says, that every digest and size is one, that nothing is beyond its limit.
//
//	doc, err := manifest.Parse(desc.MediaType, raw)
//	for _, child := range doc.Successors() {
//		fmt.Println(child.Digest)
//	}
//
// The rules are those of the OCI image specification (manifest.md, image-index.md, descriptor.md)
// and of Docker's image manifest version 2, schema 2.
package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
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

// maxDescriptors bounds what one manifest may name: far beyond any image, far below what hurts.
const maxDescriptors = 10_000

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

// KindOf returns the kind of manifest that a media type stands for, or 0 if it is not a manifest's.
func KindOf(mediaType string) Kind {
	switch mediaType {
	case v1.MediaTypeImageManifest, MediaTypeDockerManifest:
		return Image
	case v1.MediaTypeImageIndex, MediaTypeDockerManifestList:
		return Index
	}
	return 0
}

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

// Parse reads a manifest. mediaType is what its sender declared, with or without parameters; if it
// is empty, the manifest's own mediaType field decides, or else its shape.
//
// Errors: berth.ErrManifestInvalid; berth.ErrSizeInvalid beyond berth.MaxManifestSize;
// berth.ErrUnsupported for a media type that is no manifest's.
func Parse(mediaType string, raw []byte) (*Document, error) {
	if len(raw) > berth.MaxManifestSize {
		return nil, fmt.Errorf("manifest has %d bytes, at most %d are allowed: %w", len(raw), berth.MaxManifestSize, berth.ErrSizeInvalid)
	}
	var w wire
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, invalid("it is not a JSON object of the right shape: %v", describe(err))
	}
	mediaType, err := w.decideType(mediaType)
	if err != nil {
		return nil, err
	}
	doc := &Document{
		MediaType: mediaType, Kind: KindOf(mediaType),
		Config: w.Config, Layers: w.Layers, Manifests: w.Manifests,
		Subject: w.Subject, ArtifactType: w.ArtifactType, Annotations: w.Annotations,
	}
	if err := w.check(doc.Kind); err != nil {
		return nil, err
	}
	return doc, doc.checkDescriptors()
}

// wire is the union of the four formats as JSON.
type wire struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *v1.Descriptor    `json:"config"`
	Layers        []v1.Descriptor   `json:"layers"`
	Manifests     []v1.Descriptor   `json:"manifests"`
	Subject       *v1.Descriptor    `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
	FSLayers      json.RawMessage   `json:"fsLayers"`
}

// decideType settles what the manifest is, from what was declared and from what it says itself.
func (w *wire) decideType(declared string) (string, error) {
	if declared != "" {
		base, _, err := mime.ParseMediaType(declared)
		if err != nil {
			return "", fmt.Errorf("media type %.100q does not parse: %w", declared, berth.ErrUnsupported)
		}
		declared = base
	}
	switch {
	case declared == "":
		declared = w.ownType()
	case w.MediaType != "" && KindOf(declared) != 0 && !strings.EqualFold(w.MediaType, declared):
		return "", invalid("it was sent as %s, but says that it is %.100s", declared, w.MediaType)
	}
	if KindOf(declared) == 0 {
		return "", fmt.Errorf("%.100q is not a manifest media type that is stored here: %w", declared, berth.ErrUnsupported)
	}
	return declared, nil
}

// ownType is the type that an undeclared manifest has: the mediaType field is optional in OCI's
// formats, and their shapes do not overlap.
func (w *wire) ownType() string {
	switch {
	case w.MediaType != "":
		return w.MediaType
	case w.Manifests != nil:
		return v1.MediaTypeImageIndex
	default:
		return v1.MediaTypeImageManifest
	}
}

// check refuses a document that could be read as two kinds: an image with a list of manifests was
// the way around signature checks in CVE-2021-41190.
func (w *wire) check(kind Kind) error {
	switch {
	case w.SchemaVersion != 2:
		return invalid("schemaVersion is %d, it must be 2", w.SchemaVersion)
	case w.FSLayers != nil:
		return invalid("it has fsLayers, which only schema version 1 has")
	case kind == Image && w.Manifests != nil:
		return invalid("it is an image, but lists manifests")
	case kind == Image && w.Config == nil:
		return invalid("it is an image without a config")
	case kind == Index && (w.Config != nil || w.Layers != nil):
		return invalid("it is an index, but has a config or layers")
	case len(w.Layers) > maxDescriptors || len(w.Manifests) > maxDescriptors:
		return invalid("it names more than %d children", maxDescriptors)
	}
	return nil
}

func (d *Document) checkDescriptors() error {
	for i, desc := range d.all() {
		if err := berth.ValidateDigest(desc.Digest); err != nil {
			return invalid("descriptor %d: %v", i, err)
		}
		if desc.Size < 0 {
			return invalid("descriptor %d (%s): its size is negative", i, desc.Digest)
		}
	}
	return nil
}

func (d *Document) all() []v1.Descriptor {
	all := d.Successors()
	if d.Subject != nil {
		all = append(all, *d.Subject)
	}
	return all
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

// Descriptor describes raw as a manifest of that media type, by its sha256 digest.
func Descriptor(mediaType string, raw []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// Verify returns berth.ErrDigestInvalid unless raw is what desc describes, in size and digest.
func Verify(desc v1.Descriptor, raw []byte) error {
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

// describe says what is wrong with JSON without quoting it.
func describe(err error) string {
	switch e := err.(type) {
	case *json.SyntaxError:
		return fmt.Sprintf("syntax error at byte %d", e.Offset)
	case *json.UnmarshalTypeError:
		return fmt.Sprintf("field %q at byte %d cannot be a %s", e.Field, e.Offset, e.Value)
	}
	msg, _, _ := bytes.Cut([]byte(err.Error()), []byte("\n"))
	return fmt.Sprintf("%.100s", msg)
}
