package schema1

import (
	"encoding/json"
	"fmt"
	"mime"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// LibraryNamespace is the namespace that Docker's own images leave out of their names.
const LibraryNamespace = "library"

// Entry is a manifest of any format, as a registry has it.
type Entry struct {
	// Document is what the formats have in common. One of schema 1 has no config; its layers are its
	// blobs, base first, each once, of which the sizes are not known.
	*manifest.Document
	// Descriptor has the digest by which the manifest is known, and the size of its bytes. The digest
	// is of Payload, which for a signed manifest is not all of them.
	Descriptor v1.Descriptor
	Payload    []byte
	// Schema1 is the manifest if it is one of schema 1, else nil.
	Schema1 *Manifest
}

// Open reads a manifest of any format: one of schema 1 as [Parse], all others as manifest.Parse.
// Where the media type leaves it open, the manifest's schemaVersion decides.
//
// Errors: those of Parse and manifest.Parse.
func Open(mediaType string, raw []byte) (*Entry, error) {
	if isSchema1(mediaType, raw) {
		m, err := Parse(mediaType, raw)
		if err != nil {
			return nil, err
		}
		return m.entry(), nil
	}
	doc, err := manifest.Parse(mediaType, raw)
	if err != nil {
		return nil, err
	}
	return &Entry{Document: doc, Descriptor: manifest.Descriptor(doc.MediaType, raw), Payload: raw}, nil
}

// isSchema1 decides by what the sender declared, and by the content where that says nothing.
func isSchema1(mediaType string, raw []byte) bool {
	base, _, err := mime.ParseMediaType(mediaType)
	if err == nil && base != "application/json" {
		return manifest.IsSchema1(base)
	}
	var m struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	return (mediaType == "" || err == nil) && json.Unmarshal(raw, &m) == nil && m.SchemaVersion == 1
}

func (m *Manifest) entry() *Entry {
	doc := &manifest.Document{MediaType: m.MediaType(), Kind: manifest.Image}
	known := map[digest.Digest]bool{}
	for _, layer := range m.Layers {
		if !known[layer.BlobSum] {
			doc.Layers = append(doc.Layers, v1.Descriptor{Digest: layer.BlobSum})
		}
		known[layer.BlobSum] = true
	}
	desc := v1.Descriptor{MediaType: doc.MediaType, Digest: m.Digest(), Size: int64(len(m.raw))}
	return &Entry{Document: doc, Descriptor: desc, Payload: m.payload, Schema1: m}
}

// Verify returns berth.ErrDigestInvalid unless the manifest is what a digest names; the descriptor
// then has that digest.
func (e *Entry) Verify(d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	if err := manifest.Verify(v1.Descriptor{Digest: d, Size: int64(len(e.Payload))}, e.Payload); err != nil {
		return err
	}
	e.Descriptor.Digest = d
	return nil
}

// Admit reads a manifest that is to enter a repository, and checks all that does not depend on what is
// there: the options' digest, the tags, and of schema 1 every signature, the chain of the layers, and
// that name and tag are those it is pushed to. In the library namespace the name may leave that out.
// Every error, of several joined ones each, begins with the repository's name.
//
// Errors: those of Open; berth.ErrTagInvalid; berth.ErrDigestInvalid; of schema 1 those of
// Manifest.Check, Manifest.Verify and Manifest.Chain.
func Admit(repository string, raw []byte, opts *berth.PushOptions) (*Entry, error) {
	for _, tag := range opts.Tags {
		if err := berth.ValidateTag(tag); err != nil {
			return nil, fmt.Errorf("%s: %w", repository, err)
		}
	}
	e, err := Open(opts.MediaType, raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", repository, err)
	}
	if e.Schema1 != nil {
		if err := e.Schema1.admit(repository, opts); err != nil {
			return nil, err
		}
	}
	if opts.Digest == "" {
		return e, nil
	}
	if err := e.Verify(opts.Digest); err != nil {
		return nil, fmt.Errorf("%s: %w", repository, err)
	}
	return e, nil
}

// admit checks what is particular to schema 1. Who is wrong about name, tag and digest is told all of it.
func (m *Manifest) admit(repository string, opts *berth.PushOptions) error {
	to := Target{Ref: berth.Reference{Repository: repository, Digest: opts.Digest}, LibraryNamespace: LibraryNamespace}
	errs := []error{m.checkName(to), m.checkDigest(to)}
	for _, tag := range opts.Tags {
		to.Ref.Tag = tag
		errs = append(errs, m.checkTag(to))
	}
	if m.Signed() {
		_, err := m.Verify()
		errs = append(errs, err)
	}
	_, err := m.Chain()
	errs = append(errs, err)
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("%s: %w", repository, err)
		}
	}
	return joined(errs...)
}

// Missing is the error for a child that a repository lacks: schema 1 has its own code for that.
func (e *Entry) Missing() error {
	if e.Schema1 != nil {
		return berth.ErrBlobUnknown
	}
	return berth.ErrManifestBlobUnknown
}
