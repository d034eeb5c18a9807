package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// maxDescriptors bounds what one manifest may name: far beyond any image, far below what hurts.
const maxDescriptors = 10_000

// Parse reads a manifest. mediaType is what its sender declared, with or without parameters; if it
// is empty, the manifest's own mediaType field decides, or else its shape. What is refused, and what
// is not, is said in the package's documentation.
//
// Errors: berth.ErrManifestInvalid; berth.ErrSizeInvalid beyond berth.MaxManifestSize;
// berth.ErrUnsupported for a media type that is no manifest's, or schema 1's.
func Parse(mediaType string, raw []byte) (*Document, error) {
	if len(raw) > berth.MaxManifestSize {
		return nil, fmt.Errorf("manifest has %d bytes, at most %d are allowed: %w", len(raw), berth.MaxManifestSize, berth.ErrSizeInvalid)
	}
	if err := checkMembers(raw); err != nil {
		return nil, invalid("%v", err)
	}
	var w wire
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, invalid("it is not a JSON object of the right shape: %s", describe(err))
	}
	mediaType, err := w.decideType(mediaType)
	if err != nil {
		return nil, err
	}
	if err := checkValid(raw, manifestShape); err != nil {
		return nil, invalid("%v", err)
	}
	doc := &Document{
		MediaType: mediaType, Kind: KindOf(mediaType),
		Config: w.Config, Layers: w.Layers, Manifests: w.Manifests,
		Subject: w.Subject, ArtifactType: w.ArtifactType, Annotations: w.Annotations,
	}
	if err := w.check(doc.Kind); err != nil {
		return nil, err
	}
	if err := doc.checkDescriptors(); err != nil {
		return nil, err
	}
	return doc, nil
}

// wire is the union of the four formats as JSON. manifestShape has the same names.
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
	case w.MediaType != "" && KindOf(declared) != 0 && w.MediaType != declared:
		return "", invalid("it was sent as %s, but says that it is %.100q", declared, w.MediaType)
	}
	switch {
	case IsSchema1(declared):
		return "", fmt.Errorf("%s is schema 1, which is not read as a manifest of today: %w", declared, berth.ErrUnsupported)
	case KindOf(declared) == 0:
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

// describe says what is wrong with JSON without quoting it.
func describe(err error) string {
	switch e := err.(type) {
	case *json.SyntaxError:
		return fmt.Sprintf("JSON syntax error at byte %d", e.Offset)
	case *json.UnmarshalTypeError:
		return fmt.Sprintf("field %.60q at byte %d cannot be a JSON %.20s", e.Field, e.Offset, e.Value)
	}
	msg, _, _ := bytes.Cut([]byte(err.Error()), []byte("\n"))
	return fmt.Sprintf("%.100s", msg)
}
