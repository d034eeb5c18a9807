package manifest

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// Fetched is what was fetched of an image, to be inspected.
type Fetched struct {
	// Ref is what was asked for. Its digest, if it has one, is that of the index or of the manifest.
	Ref berth.Reference
	// Tags of the repository. Nil: not asked for.
	Tags []string
	// Manifest to be reported.
	Manifest berth.Manifest
	// Index that the manifest was selected from. Nil: none.
	Index *berth.Manifest
	// Config is the blob that the manifest names as its config. Nil: not fetched, and what it says
	// is not reported.
	Config []byte
}

// Inspect reports what an image, an artifact or an index is. Nothing is believed before the bytes
// are known to be those that were asked for: index and manifest by their digests, the manifest as a
// child of the index, the config by its descriptor. A config of a type that is no image's is verified
// and not read (manifest.md).
//
// A schema 1 manifest is for schema1.Inspect; IsSchema1 tells them apart.
//
// Errors: berth.ErrDigestInvalid; berth.ErrManifestUnknown where the index does not list the
// manifest; those of Parse; berth.ErrManifestInvalid where an image's config cannot be read;
// berth.ErrSizeInvalid for a config beyond berth.MaxManifestSize.
func Inspect(f Fetched) (*Report, error) {
	r, err := NewReport(f, f.Manifest.Raw)
	if err != nil {
		return nil, err
	}
	doc, err := Parse(f.Manifest.Descriptor.MediaType, f.Manifest.Raw)
	if err != nil {
		return nil, err
	}
	r.readManifest(doc)
	if f.Config == nil || doc.Config == nil {
		return r, nil
	}
	if err := Verify(*doc.Config, f.Config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if !doc.HasImageConfig() {
		return r, nil
	}
	if err := r.ReadConfig(f.Config); err != nil {
		return nil, err
	}
	return r, nil
}

// NewReport begins a report for a format that this package does not read: it verifies what was
// fetched, but for the config, and fills in the names, the digests and the media type. payload is
// what the manifest's digest can be of beside its bytes, for a schema 1 manifest that is signed; else
// it is those bytes.
//
// Errors: those of Inspect that are about the manifest and the index.
func NewReport(f Fetched, payload []byte) (*Report, error) {
	contents := [][]byte{f.Manifest.Raw, payload}
	if err := verifyEither(f.Manifest, payload); err != nil {
		return nil, err
	}
	r := &Report{
		Name: f.Ref.Repository, Tag: f.Ref.Tag, RepoTags: slices.Clone(f.Tags),
		Digest: f.Manifest.Descriptor.Digest, MediaType: f.Manifest.Descriptor.MediaType,
	}
	if f.Index != nil {
		if err := verifyListed(f.Index, contents); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		r.IndexDigest = f.Index.Descriptor.Digest
		contents = append(contents, f.Index.Raw)
	}
	if f.Ref.Digest != "" && !hashesTo(f.Ref.Digest, contents) {
		return nil, fmt.Errorf("%w: what was fetched is not %.150q", berth.ErrDigestInvalid, f.Ref.Digest)
	}
	return r, nil
}

// verifyEither is Verify, but the digest can also be that of the payload. The size is then either's.
func verifyEither(m berth.Manifest, payload []byte) error {
	err := Verify(m.Descriptor, m.Raw)
	if err == nil || bytes.Equal(m.Raw, payload) || !hashesTo(m.Descriptor.Digest, [][]byte{payload}) {
		return err
	}
	return nil
}

// hashesTo reports whether a digest is of one of the contents.
func hashesTo(d digest.Digest, contents [][]byte) bool {
	return berth.ValidateDigest(d) == nil && slices.ContainsFunc(contents, func(content []byte) bool {
		return d.Algorithm().FromBytes(content) == d
	})
}

// verifyListed verifies an index, and that it lists the content.
func verifyListed(index *berth.Manifest, contents [][]byte) error {
	if err := Verify(index.Descriptor, index.Raw); err != nil {
		return err
	}
	doc, err := Parse(index.Descriptor.MediaType, index.Raw)
	if err != nil {
		return err
	}
	digests := map[digest.Digest]bool{}
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		for _, content := range contents {
			digests[algorithm.FromBytes(content)] = true
		}
	}
	for _, child := range doc.Manifests {
		if digests[child.Digest] {
			return nil
		}
	}
	return fmt.Errorf("%w: it does not list the manifest", berth.ErrManifestUnknown)
}
