package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/manifest/schema1"
)

func (r *repository) Resolve(ctx context.Context, ref string) (v1.Descriptor, error) {
	m, err := r.FetchManifest(ctx, ref, nil)
	return m.Descriptor, err
}

func (r *repository) FetchManifest(_ context.Context, ref string, opts *berth.FetchOptions) (berth.Manifest, error) {
	if err := ocirequest.ValidateReference(ref); err != nil {
		return berth.Manifest{}, err
	}
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	d := digest.Digest(ref)
	if !ocirequest.IsDigest(ref) {
		d = r.tags[ref]
	}
	m, found := r.manifests[d]
	if !found {
		return berth.Manifest{}, r.unknownManifest(ref)
	}
	if !opts.Within(m.Descriptor.Size) {
		return berth.Manifest{Descriptor: m.Descriptor}, nil
	}
	return berth.Manifest{Descriptor: m.Descriptor, Raw: bytes.Clone(m.Raw)}, nil
}

func (r *repository) unknownManifest(ref string) error {
	return fmt.Errorf("%s: %q: %w", r.name, ref, berth.ErrManifestUnknown)
}

func (r *repository) PushManifest(_ context.Context, raw []byte, opts *berth.PushOptions) (v1.Descriptor, error) {
	if opts == nil {
		opts = &berth.PushOptions{}
	}
	m, err := r.read(raw, opts)
	if err != nil {
		return v1.Descriptor{}, err
	}
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	if err := r.checkTags(opts); err != nil {
		return v1.Descriptor{}, err
	}
	if err := r.checkChildren(m.entry); err != nil && !opts.AllowMissing {
		return v1.Descriptor{}, err
	}
	r.manifests[m.Descriptor.Digest] = m
	for _, tag := range opts.Tags {
		r.tags[tag] = m.Descriptor.Digest
	}
	return m.Descriptor, nil
}

// read checks all that can be checked without looking at the repository.
func (r *repository) read(raw []byte, opts *berth.PushOptions) (m stored, err error) {
	if m.entry, err = schema1.Admit(r.name, raw, opts); err != nil {
		return m, err
	}
	return stored{Manifest: berth.Manifest{Descriptor: m.entry.Descriptor, Raw: bytes.Clone(raw)}, entry: m.entry}, nil
}

// checkTags compares where the tags point with what the caller believes.
func (r *repository) checkTags(opts *berth.PushOptions) error {
	for _, tag := range opts.Tags {
		now, exists := r.tags[tag]
		if exists && opts.IfNoneMatch || opts.IfMatch != "" && opts.IfMatch != now {
			return fmt.Errorf("%s:%s: %w: it is %q", r.name, tag, berth.ErrPreconditionFailed, now)
		}
	}
	return nil
}

// checkChildren returns one error for each child that is neither a blob nor a manifest of the
// repository and has to be.
func (r *repository) checkChildren(e *schema1.Entry) error {
	var errs []error
	for _, child := range e.Required() {
		_, isBlob := r.blobs[child.Digest]
		_, isManifest := r.manifests[child.Digest]
		if !isBlob && !isManifest {
			errs = append(errs, fmt.Errorf("%s@%s: %w", r.name, child.Digest, e.Missing()))
		}
	}
	return errors.Join(errs...)
}

func (r *repository) DeleteManifest(_ context.Context, d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	if _, found := r.manifests[d]; !found {
		return r.unknownManifest(string(d))
	}
	delete(r.manifests, d)
	maps.DeleteFunc(r.tags, func(_ string, at digest.Digest) bool { return at == d })
	return nil
}

func (r *repository) Untag(_ context.Context, tag string, opts *berth.UntagOptions) error {
	if err := berth.ValidateTag(tag); err != nil {
		return err
	}
	r.registry.mu.Lock()
	defer r.registry.mu.Unlock()
	now, found := r.tags[tag]
	if !found {
		return r.unknownManifest(tag)
	}
	if opts != nil && opts.IfMatch != "" && opts.IfMatch != now {
		return fmt.Errorf("%s:%s: %w: it is %s", r.name, tag, berth.ErrPreconditionFailed, now)
	}
	delete(r.tags, tag)
	return nil
}

func (r *repository) Tags(ctx context.Context, after string) iter.Seq2[string, error] {
	return list(ctx, func() ([]string, error) {
		r.registry.mu.Lock()
		defer r.registry.mu.Unlock()
		if len(r.manifests) == 0 {
			return nil, fmt.Errorf("%s: %w", r.name, berth.ErrNameUnknown)
		}
		all := slices.Sorted(maps.Keys(r.tags))
		return slices.DeleteFunc(all, func(tag string) bool { return tag <= after }), nil
	})
}

func (r *repository) Referrers(ctx context.Context, subject digest.Digest, opts *berth.ReferrersOptions) iter.Seq2[v1.Descriptor, error] {
	if opts == nil {
		opts = &berth.ReferrersOptions{}
	}
	return list(ctx, func() (all []v1.Descriptor, err error) {
		if err := berth.ValidateDigest(subject); err != nil {
			return nil, err
		}
		r.registry.mu.Lock()
		defer r.registry.mu.Unlock()
		for _, d := range slices.Sorted(maps.Keys(r.manifests)) {
			m := r.manifests[d]
			if d > opts.After && m.refersTo(subject) && (opts.ArtifactType == "" || opts.ArtifactType == m.entry.ReferrerType()) {
				all = append(all, m.referrer())
			}
		}
		return all, nil
	})
}

func (m stored) refersTo(subject digest.Digest) bool {
	return m.entry.Subject != nil && m.entry.Subject.Digest == subject
}

// referrer is the descriptor under which a manifest is listed as a referrer.
func (m stored) referrer() v1.Descriptor {
	desc := m.Descriptor
	desc.ArtifactType, desc.Annotations = m.entry.ReferrerType(), m.entry.Annotations
	return desc
}
