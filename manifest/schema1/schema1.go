package schema1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// The media types of schema 1. Registries of its time also sent it as "application/json".
const (
	MediaType       = manifest.MediaTypeSchema1
	MediaTypeSigned = manifest.MediaTypeSchema1Signed
)

// maxLayers bounds what one manifest may name: Docker itself could not stack more than 127.
const maxLayers = 10_000

// Manifest is a parsed schema 1 manifest. It is not changed by its methods, which may run at once.
type Manifest struct {
	// Name of the repository, without a host. It may lack a library namespace: see Target.
	Name string
	// Tag may be empty.
	Tag string
	// Architecture may be empty; it was never more than a hint.
	Architecture string
	// Layers are as in the manifest, repeats included, but base first. Chain has them checked.
	Layers []Layer

	raw        []byte
	payload    []byte
	signatures []signature
}

// Parse reads a manifest. mediaType is what its sender declared, with or without parameters:
// MediaType, MediaTypeSigned, "application/json", or empty. Whether a manifest is signed is decided
// by its content, but one that was declared as signed has to be.
//
// Only the payload is interpreted, and what is not payload may be signatures alone, so that nothing
// that is read here is unsigned. Parse verifies no signature, and does not follow the parents.
//
// Errors: berth.ErrManifestInvalid, a *SignatureError where a signature is malformed;
// berth.ErrSizeInvalid beyond berth.MaxManifestSize; berth.ErrUnsupported for another media type.
func Parse(mediaType string, raw []byte) (*Manifest, error) {
	if len(raw) > berth.MaxManifestSize {
		return nil, fmt.Errorf("manifest has %d bytes, at most %d are allowed: %w", len(raw), berth.MaxManifestSize, berth.ErrSizeInvalid)
	}
	declared, err := baseType(mediaType)
	if err != nil {
		return nil, err
	}
	if err := manifest.CheckJSON(raw); err != nil {
		return nil, invalid("%v", err)
	}
	m := &Manifest{raw: bytes.Clone(raw)}
	if err := m.open(); err != nil {
		return nil, err
	}
	if declared == MediaTypeSigned && !m.Signed() {
		return nil, invalid("it was sent as %s, but has no signatures", MediaTypeSigned)
	}
	if err := m.interpret(); err != nil {
		return nil, err
	}
	return m, nil
}

func baseType(mediaType string) (string, error) {
	if mediaType == "" {
		return "", nil
	}
	base, _, err := mime.ParseMediaType(mediaType)
	if err == nil && slices.Contains([]string{MediaType, MediaTypeSigned, "application/json"}, base) {
		return base, nil
	}
	return "", fmt.Errorf("%.100q is not a media type of schema 1: %w", mediaType, berth.ErrUnsupported)
}

// open finds the payload and the signatures.
func (m *Manifest) open() error {
	var blocks json.RawMessage
	if err := readObject(m.raw, field{"signatures", &blocks}); err != nil {
		return invalid("%v", err)
	}
	m.payload = m.raw
	if blocks == nil {
		return nil
	}
	var err error
	if m.signatures, err = parseSignatures(blocks); err != nil {
		return err
	}
	m.payload, err = reconstruct(m.raw, m.signatures)
	return err
}

// interpret fills in the exported fields from the payload.
func (m *Manifest) interpret() error {
	var w wire
	if err := w.read(m.payload); err != nil {
		return invalid("%v", err)
	}
	if err := w.check(); err != nil {
		return err
	}
	m.Name, m.Tag, m.Architecture = w.name, w.tag, w.architecture
	for i := len(w.history) - 1; i >= 0; i-- {
		layer, err := w.layer(i)
		if err != nil {
			return invalid("entry %d of fsLayers and history: %v", i, err)
		}
		m.Layers = append(m.Layers, layer)
	}
	return nil
}

// wire is the payload as JSON. The last three are members of other formats.
type wire struct {
	schemaVersion            int
	mediaType                string
	name, tag, architecture  string
	fsLayers, history        []json.RawMessage
	config, layers, children json.RawMessage
}

func (w *wire) read(payload []byte) error {
	return readObject(payload,
		field{"schemaVersion", &w.schemaVersion}, field{"mediaType", &w.mediaType},
		field{"name", &w.name}, field{"tag", &w.tag}, field{"architecture", &w.architecture},
		field{"fsLayers", &w.fsLayers}, field{"history", &w.history},
		field{"config", &w.config}, field{"layers", &w.layers}, field{"manifests", &w.children})
}

// check refuses what could also be read as another format: that was the way around signature checks
// in CVE-2021-41190.
func (w *wire) check() error {
	switch {
	case w.schemaVersion != 1:
		return invalid("schemaVersion is %d, it must be 1", w.schemaVersion)
	case w.mediaType != "" && w.mediaType != MediaType && w.mediaType != MediaTypeSigned:
		return invalid("its schemaVersion is 1, but it says that it is %.100q", w.mediaType)
	case w.config != nil || w.layers != nil || w.children != nil:
		return invalid("its schemaVersion is 1, but it has a config, layers or manifests")
	case len(w.fsLayers) != len(w.history):
		return invalid("it has %d fsLayers, but %d entries of history", len(w.fsLayers), len(w.history))
	case len(w.fsLayers) == 0:
		return invalid("it has no layers")
	case len(w.fsLayers) > maxLayers:
		return invalid("it has %d layers, at most %d are allowed", len(w.fsLayers), maxLayers)
	}
	return w.checkNames()
}

func (w *wire) checkNames() error {
	if err := berth.ValidateRepository(w.name); err != nil {
		return invalid("name: %v", err)
	}
	if w.tag == "" {
		return nil
	}
	if err := berth.ValidateTag(w.tag); err != nil {
		return invalid("tag: %v", err)
	}
	return nil
}

// layer reads the i-th layer in the order of the file.
func (w *wire) layer(i int) (Layer, error) {
	var blobSum, v1JSON string
	if err := readObject(w.fsLayers[i], field{"blobSum", &blobSum}); err != nil {
		return Layer{}, fmt.Errorf("fsLayers: %w", err)
	}
	if err := readObject(w.history[i], field{"v1Compatibility", &v1JSON}); err != nil {
		return Layer{}, fmt.Errorf("history: %w", err)
	}
	return newLayer(digest.Digest(blobSum), []byte(v1JSON))
}

// Raw returns the manifest as it was parsed, signatures included. It must not be changed.
func (m *Manifest) Raw() []byte { return m.raw }

// Signed reports whether the manifest has signatures; they may be wrong.
func (m *Manifest) Signed() bool { return len(m.signatures) > 0 }

// MediaType is the media type of Raw.
func (m *Manifest) MediaType() string {
	if m.Signed() {
		return MediaTypeSigned
	}
	return MediaType
}

// Payload returns what the signatures sign: Raw as it was before they were put in. Without
// signatures it is Raw. It must not be changed.
func (m *Manifest) Payload() []byte { return m.payload }

// Digest is the sha256 digest of the payload: the manifest's name in a registry, also where the
// signed file is served.
func (m *Manifest) Digest() digest.Digest { return digest.FromBytes(m.payload) }

// Target says where a manifest stands, or shall stand, in a registry.
type Target struct {
	// Ref may lack a digest, and a tag where it has a digest.
	Ref berth.Reference
	// LibraryNamespace is the namespace that manifests of its repositories leave out: where it is
	// "library", a manifest of library/ubuntu may be named ubuntu, and a new one is. Empty: none.
	LibraryNamespace string
}

// manifestName is the name that a new manifest gets.
func (t Target) manifestName() string {
	if short, ok := t.libraryName(); ok {
		return short
	}
	return t.Ref.Repository
}

func (t Target) libraryName() (string, bool) {
	short, ok := strings.CutPrefix(t.Ref.Repository, t.LibraryNamespace+"/")
	return short, ok && t.LibraryNamespace != "" && !strings.Contains(short, "/")
}

// Check tells whether the manifest may be put at a target: its name must be the target's, its tag
// the target's if that has one, and its payload must have the target's digest if that has one.
// Several errors come joined.
//
// Errors: berth.ErrNameInvalid, berth.ErrTagInvalid; berth.ErrManifestInvalid where the digest is
// another, as schema 1 registries report it.
func (m *Manifest) Check(t Target) error {
	return joined(m.checkName(t), m.checkTag(t), m.checkDigest(t))
}

func (m *Manifest) checkName(t Target) error {
	short, inLibrary := t.libraryName()
	if m.Name == t.Ref.Repository || inLibrary && m.Name == short {
		return nil
	}
	return fmt.Errorf("%w: the manifest is of %q, not of %.300q", berth.ErrNameInvalid, m.Name, t.Ref.Repository)
}

func (m *Manifest) checkTag(t Target) error {
	if t.Ref.Tag == "" || m.Tag == t.Ref.Tag {
		return nil
	}
	return fmt.Errorf("%w: the manifest is tagged %q, not %.140q", berth.ErrTagInvalid, m.Tag, t.Ref.Tag)
}

func (m *Manifest) checkDigest(t Target) error {
	if t.Ref.Digest == "" {
		return nil
	}
	if err := berth.ValidateDigest(t.Ref.Digest); err != nil {
		return err
	}
	if got := t.Ref.Digest.Algorithm().FromBytes(m.payload); got != t.Ref.Digest {
		return invalid("digest mismatch: the payload hashes to %s, not to %s", got, t.Ref.Digest)
	}
	return nil
}
