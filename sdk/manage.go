package sdk

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// Tag points more tags of the same repository at the manifest that ref names, and returns what that is:
// in the layout, or in a remote registry where ref has a host. Its bytes are put once more under the new
// names, in one commit where the registry can do that; no blob moves. A tag that exists is moved.
// Without tag and digest ref means the tag "latest".
//
// Errors: berth.ErrManifestUnknown; berth.ErrTagInvalid for what is no tag, before anything is done,
// and from the registry for a manifest of schema 1, which has its one tag in it;
// berth.ErrManifestBlobUnknown where parts of the image are missing; berth.ErrUnsupported where the
// registry takes no pushes.
func (m *Images) Tag(ctx context.Context, ref string, tags ...string) (v1.Descriptor, error) {
	if err := checkTags(tags); err != nil {
		return v1.Descriptor{}, err
	}
	found, err := m.locate(ref)
	if err != nil {
		return v1.Descriptor{}, err
	}
	got, err := found.repo.FetchManifest(ctx, found.target, nil)
	if err != nil {
		return v1.Descriptor{}, found.wrap(err)
	}
	desc, err := found.repo.PushManifest(ctx, got.Raw, &berth.PushOptions{
		MediaType: got.Descriptor.MediaType,
		Digest:    got.Descriptor.Digest,
		Tags:      slices.Compact(slices.Sorted(slices.Values(tags))),
	})
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("tag %s: %w", ref, err)
	}
	return desc, nil
}

func checkTags(tags []string) error {
	if len(tags) == 0 {
		return fmt.Errorf("%w: none is named; name one or more", berth.ErrTagInvalid)
	}
	var errs []error
	for _, tag := range tags {
		errs = append(errs, berth.ValidateTag(tag))
	}
	return errors.Join(errs...)
}

// Remove removes tags and manifests: in the layout, or in a remote registry where a reference has a
// host. REPOSITORY:TAG removes the tag alone, REPOSITORY:TAG@DIGEST too, if the tag points there, and
// REPOSITORY@DIGEST removes the manifest and every tag that points at it. What could be removed is
// returned, in the order of refs, though something else could not. Blobs stay until they are collected.
//
// Errors: berth.ErrNameInvalid, berth.ErrTagInvalid, berth.ErrDigestInvalid for what is no reference to
// a tag or a manifest, a bare REPOSITORY being none, before anything is removed; joined, one for each
// that could not be removed, berth.ErrManifestUnknown, berth.ErrPreconditionFailed for a tag that points
// elsewhere, berth.ErrUnsupported where the registry does not let it be removed.
func (m *Images) Remove(ctx context.Context, refs ...string) (removed []string, err error) {
	removals, err := m.removals(refs)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, found := range removals {
		if err := found.remove(ctx); err != nil {
			errs = append(errs, found.wrap(err))
			continue
		}
		removed = append(removed, found.reference)
	}
	return removed, errors.Join(errs...)
}

// removals reads all references, so that a slip of the finger removes nothing.
func (m *Images) removals(refs []string) ([]location, error) {
	var all []location
	var errs []error
	for _, ref := range refs {
		found, err := m.locate(ref)
		if err == nil && found.whole {
			err = fmt.Errorf("%q: %w: there is none, and a whole repository is not removed; name %[1]s:TAG or %[1]s@DIGEST", ref, berth.ErrTagInvalid)
		}
		all, errs = append(all, found), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// remove removes the tag or the manifest that the reference names.
func (l location) remove(ctx context.Context) error {
	switch {
	case l.ref.Tag == "":
		return l.repo.DeleteManifest(ctx, l.ref.Digest)
	case l.ref.Digest == "":
		return l.repo.Untag(ctx, l.ref.Tag, nil)
	}
	err := l.repo.Untag(ctx, l.ref.Tag, &berth.UntagOptions{IfMatch: l.ref.Digest})
	if errors.Is(err, berth.ErrPreconditionFailed) {
		err = fmt.Errorf("%w; nothing is removed", err)
	}
	return err
}

// Referrers lists the manifests whose subject is what ref names, with artifactType and annotations, in
// the byte order of their digests: in the layout, or in a remote registry where ref has a host. An
// artifactType that is not empty selects those that have it. A tag is resolved first, "latest" where
// ref has neither; a manifest that is named by its digest need not be there. No referrer is an empty
// sequence. The first error ends it.
//
// Errors: berth.ErrManifestUnknown for a tag that is not there.
func (m *Images) Referrers(ctx context.Context, ref, artifactType string) iter.Seq2[v1.Descriptor, error] {
	return func(yield func(v1.Descriptor, error) bool) {
		found, subject, err := m.subject(ctx, ref)
		if err != nil {
			yield(v1.Descriptor{}, err)
			return
		}
		opts := &berth.ReferrersOptions{ArtifactType: artifactType}
		for desc, err := range found.repo.Referrers(ctx, subject, opts) {
			if !yield(desc, found.wrap(err)) {
				return
			}
		}
	}
}

// subject is the digest that a reference names.
func (m *Images) subject(ctx context.Context, reference string) (location, digest.Digest, error) {
	found, err := m.locate(reference)
	if err != nil {
		return found, "", err
	}
	if found.ref.Digest != "" {
		return found, found.ref.Digest, nil
	}
	desc, err := found.repo.Resolve(ctx, found.target)
	return found, desc.Digest, found.wrap(err)
}
