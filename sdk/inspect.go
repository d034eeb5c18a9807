package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
)

// MaxReportedTags is how many tags of a repository Inspect reports: the first that the registry lists,
// which are the first in byte order.
const MaxReportedTags = 1000

// InspectOptions say what of an image is looked at. Nil is the zero value.
type InspectOptions struct {
	// Platform selects an image from an index, as manifest.ParsePlatform reads it: "linux/arm64". Empty:
	// the index itself. What is no index is taken as it is, and its report says what it is for.
	Platform string
}

// platform is nil where none is chosen.
func (o *InspectOptions) platform() (*v1.Platform, error) {
	if o == nil || o.Platform == "" {
		return nil, nil
	}
	platform, err := manifest.ParsePlatform(o.Platform)
	return &platform, err
}

// Inspect reports what an image, an artifact or an index is, of any format that there is, without its
// layers: in the layout, or in a remote registry where ref has a host. A ref without tag and digest
// means the tag "latest" if there is one, else the first tag. An index is reported with its children;
// with a platform, the child for that, which has IndexDigest. The tags of the repository are reported
// too, MaxReportedTags at most, unless the registry refuses to list them.
//
// No byte is believed before it is known to be one of what was asked for: the manifest by the digest
// in ref, else by the one that the registry tells, a child by its digest in the index, the config by
// its descriptor.
//
// Errors: berth.ErrManifestUnknown, also for a repository without tags, and where the index has no
// image for the platform; berth.ErrNameUnknown; berth.ErrDigestInvalid for bytes that are not what they
// should be; berth.ErrManifestInvalid for a manifest, of schema 1 also for a chain of layers, or a
// config that breaks the rules of its format; berth.ErrBlobUnknown where the config is missing;
// berth.ErrSizeInvalid for a config beyond berth.MaxManifestSize; berth.ErrUnsupported for a
// platform that is none.
func (m *Images) Inspect(ctx context.Context, ref string, opts *InspectOptions) (*manifest.Report, error) {
	f, err := m.find(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	if err := f.addTags(ctx); err != nil {
		return nil, err
	}
	if f.Config, err = f.config(ctx); err != nil {
		return nil, err
	}
	return f.report()
}

// Manifest returns the manifest that Inspect would report, byte for byte.
//
// Errors: those of Inspect that are not about the config.
func (m *Images) Manifest(ctx context.Context, ref string, opts *InspectOptions) (berth.Manifest, error) {
	f, err := m.find(ctx, ref, opts)
	if err != nil {
		return berth.Manifest{}, err
	}
	return f.Manifest, nil
}

// Config returns the config of the image or artifact that Inspect would report, byte for byte.
//
// Errors: those of Inspect; berth.ErrUnsupported for what has no config: an index, of which a platform
// has to be chosen, and a manifest of schema 1.
func (m *Images) Config(ctx context.Context, ref string, opts *InspectOptions) ([]byte, error) {
	f, err := m.find(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	config, err := f.config(ctx)
	if err == nil && config == nil {
		err = f.lacksConfig()
	}
	return config, err
}

// finding is a reference, and what was fetched of the image that it names.
type finding struct {
	location
	manifest.Fetched
}

// find fetches a manifest: what the reference names, or of an index the child for the platform.
func (m *Images) find(ctx context.Context, reference string, opts *InspectOptions) (*finding, error) {
	platform, err := opts.platform()
	if err != nil {
		return nil, err
	}
	f := &finding{}
	if f.location, err = m.locate(reference); err != nil {
		return nil, err
	}
	f.Ref = f.ref.WithDefaultTag()
	if err := f.fetch(ctx); err != nil {
		return nil, err
	}
	if platform == nil || !f.isIndex() {
		return f, nil
	}
	return f, f.about(f.choose(ctx, *platform))
}

// about puts the reference in front of an error that says by itself what is wrong.
func (f *finding) about(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", f.reference, err)
}

func (f *finding) isIndex() bool {
	return manifest.KindOf(f.Manifest.Descriptor.MediaType) == manifest.Index
}

// fetch gets the manifest. Where no tag was named and there is no "latest", it is that of the first tag.
func (f *finding) fetch(ctx context.Context) (err error) {
	f.Manifest, err = f.repo.FetchManifest(ctx, f.target, nil)
	if f.whole && errors.Is(err, berth.ErrManifestUnknown) {
		return f.fetchFirst(ctx)
	}
	return f.wrap(err)
}

func (f *finding) fetchFirst(ctx context.Context) (err error) {
	if f.Tags, err = f.firstTags(ctx); err != nil {
		return f.wrap(err)
	}
	if f.Ref.Tag, err = manifest.DefaultTag(f.Tags); err != nil {
		return f.about(err)
	}
	f.Manifest, err = f.repo.FetchManifest(ctx, f.Ref.Tag, nil)
	return f.wrap(err)
}

// firstTags lists the tags, as far as they are reported. What is no tag cannot be asked for, and is
// left out.
func (f *finding) firstTags(ctx context.Context) ([]string, error) {
	tags, seen := []string{}, 0
	for tag, err := range f.repo.Tags(ctx, "") {
		if err != nil {
			return nil, err
		}
		if berth.ValidateTag(tag) == nil {
			tags = append(tags, tag)
		}
		if seen++; seen == MaxReportedTags {
			break
		}
	}
	return tags, nil
}

// addTags lists the tags, where the registry lets this caller do that: many let them pull, and no more.
func (f *finding) addTags(ctx context.Context) (err error) {
	if f.Tags != nil {
		return nil
	}
	f.Tags, err = f.firstTags(ctx)
	for _, refusal := range []error{berth.ErrUnauthorized, berth.ErrDenied, berth.ErrUnsupported, berth.ErrNameUnknown} {
		if errors.Is(err, refusal) {
			return nil
		}
	}
	return f.wrap(err)
}

// choose replaces an index by its child for a platform.
func (f *finding) choose(ctx context.Context, platform v1.Platform) error {
	index := f.Manifest
	doc, err := manifest.Parse(index.Descriptor.MediaType, index.Raw)
	if err != nil {
		return err
	}
	child, err := manifest.Select(doc, platform)
	if err != nil {
		return err
	}
	f.Index = &index
	if f.Manifest, err = f.repo.FetchManifest(ctx, string(child.Digest), nil); err != nil {
		return fmt.Errorf("the index names %s: %w", child.Digest, err)
	}
	return nil
}

// config fetches the config. It is nil where the manifest has none.
func (f *finding) config(ctx context.Context) ([]byte, error) {
	e, err := schema1.Open(f.Manifest.Descriptor.MediaType, f.Manifest.Raw)
	if err != nil || e.Config == nil {
		return nil, f.about(err)
	}
	raw, err := f.readConfig(ctx, *e.Config)
	if f.local && errors.Is(err, berth.ErrDigestInvalid) {
		err = fmt.Errorf("%w: it is damaged in the layout; berth fsck tells more", berth.ErrDigestInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: config %s: %w", f.reference, e.Config.Digest, err)
	}
	return raw, nil
}

// readConfig reads no more of a blob than a config may have.
func (f *finding) readConfig(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	if desc.Size > berth.MaxManifestSize {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are read", berth.ErrSizeInvalid, desc.Size, berth.MaxManifestSize)
	}
	blob, err := f.repo.OpenBlob(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	raw, err := io.ReadAll(io.LimitReader(blob, berth.MaxManifestSize+1))
	if err != nil {
		return nil, err
	}
	return raw, manifest.Verify(desc, raw)
}

// report reports what was fetched.
func (f *finding) report() (*manifest.Report, error) {
	inspect := manifest.Inspect
	if manifest.IsSchema1(f.Manifest.Descriptor.MediaType) {
		inspect = schema1.Inspect
	}
	r, err := inspect(f.Fetched)
	return r, f.about(err)
}

// lacksConfig says what to do instead of reading a config that is not there.
func (f *finding) lacksConfig() error {
	if !f.isIndex() {
		return f.about(fmt.Errorf("%w: a manifest of schema 1 has no config; what it says in its place is in the report", berth.ErrUnsupported))
	}
	r, err := f.report()
	if err != nil {
		return err
	}
	return f.about(fmt.Errorf("%w: an index has no config; choose a platform: %s", berth.ErrUnsupported, platformsOf(r)))
}

// platformsOf names the platforms that an index has images for, the first of many.
func platformsOf(r *manifest.Report) string {
	const (
		most        = 20
		attestation = "unknown/unknown" // what BuildKit puts beside images, and no platform
	)
	var names []string
	for _, child := range r.Manifests {
		if child.Platform != "" && child.Platform != attestation {
			names = append(names, child.Platform)
		}
	}
	switch {
	case len(names) == 0:
		return "none of its manifests says what it is for, so name one by its digest"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
