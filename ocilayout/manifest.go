package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/manifest"
)

func (r *repository) Resolve(_ context.Context, ref string) (v1.Descriptor, error) {
	if err := ocirequest.ValidateReference(ref); err != nil {
		return v1.Descriptor{}, err
	}
	var desc v1.Descriptor
	err := r.layout.db.View(func(tx *bolt.Tx) (err error) {
		desc, err = resolve(tx, r.name, ref)
		return err
	})
	return desc, err
}

// resolve finds a manifest by tag or digest. Its descriptor has no annotations: those of a tag
// belong to the layout's index.json.
func resolve(tx *bolt.Tx, repo, ref string) (v1.Descriptor, error) {
	d := digest.Digest(ref)
	if !ocirequest.IsDigest(ref) {
		var tag tagRecord
		found, err := get(tx, bucketTags, key(repo, ref), &tag)
		if err != nil {
			return v1.Descriptor{}, err
		}
		if !found {
			return v1.Descriptor{}, unknownManifest(repo, ref)
		}
		d = tag.Descriptor.Digest
	}
	var rec manifestRecord
	found, err := get(tx, bucketManifests, key(repo, string(d)), &rec)
	if err == nil && !found {
		err = unknownManifest(repo, ref)
	}
	return v1.Descriptor{MediaType: rec.MediaType, Digest: d, Size: rec.Size}, err
}

func (r *repository) FetchManifest(ctx context.Context, ref string) (berth.Manifest, error) {
	desc, err := r.Resolve(ctx, ref)
	if err != nil {
		return berth.Manifest{}, err
	}
	raw, err := r.layout.readManifest(desc)
	if err != nil {
		r.layout.log.Warn("manifest cannot be served", "repository", r.name, "digest", desc.Digest, "err", err)
		return berth.Manifest{}, fmt.Errorf("%w: %w", unknownManifest(r.name, ref), err)
	}
	return berth.Manifest{Descriptor: desc, Raw: raw}, nil
}

// readManifest reads a manifest's file and believes it only if it is what the descriptor says.
func (l *Layout) readManifest(desc v1.Descriptor) ([]byte, error) {
	info, err := l.dir.Root().Lstat(blobPath(desc.Digest))
	if err != nil {
		return nil, err
	}
	if info.Size() > berth.MaxManifestSize || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: its file cannot be a manifest", desc.Digest)
	}
	raw, err := l.dir.Root().ReadFile(blobPath(desc.Digest))
	if err != nil {
		return nil, err
	}
	if err := manifest.Verify(desc, raw); err != nil {
		return nil, fmt.Errorf("its file is damaged: %d bytes, not what %s names", len(raw), desc.Digest)
	}
	return raw, nil
}

func (r *repository) PushManifest(ctx context.Context, raw []byte, opts *berth.PushOptions) (v1.Descriptor, error) {
	if opts == nil {
		opts = &berth.PushOptions{}
	}
	p := &push{repo: r, opts: opts, raw: raw}
	if err := p.parse(); err != nil {
		return v1.Descriptor{}, fmt.Errorf("%s: %w", r.name, err)
	}
	if err := r.layout.db.View(p.check); err != nil {
		return v1.Descriptor{}, err
	}
	if err := p.store(); err != nil {
		return v1.Descriptor{}, fmt.Errorf("store manifest %s: %w", p.desc.Digest, err)
	}
	if err := r.layout.writer.commit(ctx, change{check: p.check, write: p.write}); err != nil {
		return v1.Descriptor{}, err
	}
	r.layout.projector.wake()
	return p.desc, nil
}

// push is one manifest on its way in.
type push struct {
	repo *repository
	opts *berth.PushOptions
	raw  []byte
	doc  *manifest.Document
	desc v1.Descriptor
}

// parse checks all that can be checked without looking at the repository.
func (p *push) parse() error {
	for _, tag := range p.opts.Tags {
		if err := berth.ValidateTag(tag); err != nil {
			return err
		}
	}
	var err error
	if p.doc, err = manifest.Parse(p.opts.MediaType, p.raw); err != nil {
		return err
	}
	p.desc = manifest.Descriptor(p.doc.MediaType, p.raw)
	if p.opts.Digest == "" {
		return nil
	}
	if err := berth.ValidateDigest(p.opts.Digest); err != nil {
		return err
	}
	p.desc.Digest = p.opts.Digest
	return manifest.Verify(p.desc, p.raw)
}

// check says whether the manifest may enter the repository as it is now. It runs twice: once to
// refuse early, once inside the transaction that decides.
func (p *push) check(tx *bolt.Tx) error {
	for _, tag := range p.opts.Tags {
		if err := checkTag(tx, p.repo.name, tag, p.opts); err != nil {
			return err
		}
	}
	if p.opts.AllowMissing {
		return nil
	}
	var errs []error
	for _, child := range p.doc.Required() {
		if !isMember(tx, p.repo.name, child.Digest) {
			errs = append(errs, fmt.Errorf("%s@%s: %w", p.repo.name, child.Digest, berth.ErrManifestBlobUnknown))
		}
	}
	return errors.Join(errs...)
}

// checkTag compares where a tag points with what the caller believes.
func checkTag(tx *bolt.Tx, repo, tag string, opts *berth.PushOptions) error {
	if opts.IfMatch == "" && !opts.IfNoneMatch {
		return nil
	}
	var now tagRecord
	found, err := get(tx, bucketTags, key(repo, tag), &now)
	switch {
	case err != nil:
		return err
	case opts.IfNoneMatch && found:
		return fmt.Errorf("%s:%s: %w: it exists, as %s", repo, tag, berth.ErrPreconditionFailed, now.Descriptor.Digest)
	case opts.IfMatch != "" && now.Descriptor.Digest != opts.IfMatch:
		return fmt.Errorf("%s:%s: %w: it is %q, not %s", repo, tag, berth.ErrPreconditionFailed, now.Descriptor.Digest, opts.IfMatch)
	}
	return nil
}

// store writes the manifest's file, unless it is there and good.
func (p *push) store() error {
	l := p.repo.layout
	if _, err := l.readManifest(p.desc); err == nil {
		return nil
	}
	if err := l.dir.MkdirAll(v1.ImageBlobsDir+"/"+p.desc.Digest.Algorithm().String(), 0o755); err != nil {
		return err
	}
	return l.dir.WriteFile(blobPath(p.desc.Digest), p.raw, 0o644)
}

func (p *push) write(tx *bolt.Tx, gen uint64) error {
	if err := enter(tx, p.repo.name, p.desc, p.doc); err != nil {
		return err
	}
	for _, tag := range p.opts.Tags {
		if err := setTag(tx, p.repo.name, tag, tagRecord{gen, p.desc}); err != nil {
			return err
		}
	}
	return nil
}

// enter makes a manifest a member of a repository, with all that leads to it and from it.
func enter(tx *bolt.Tx, repo string, desc v1.Descriptor, doc *manifest.Document) error {
	rec := manifestRecord{MediaType: desc.MediaType, Size: desc.Size}
	if doc.Subject != nil {
		rec.Subject = doc.Subject.Digest
		referrer := v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size,
			ArtifactType: doc.ReferrerType(), Annotations: doc.Annotations}
		if err := put(tx, bucketReferrers, key(repo, string(rec.Subject), string(desc.Digest)), referrer); err != nil {
			return err
		}
	}
	for _, child := range doc.Manifests {
		if err := mark(tx, bucketParents, key(repo, string(child.Digest), string(desc.Digest))); err != nil {
			return err
		}
	}
	return put(tx, bucketManifests, key(repo, string(desc.Digest)), rec)
}

func (r *repository) DeleteManifest(ctx context.Context, d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	var rec manifestRecord
	defer r.layout.projector.wake()
	return r.layout.writer.commit(ctx, change{
		check: func(tx *bolt.Tx) error {
			found, err := get(tx, bucketManifests, key(r.name, string(d)), &rec)
			if err == nil && !found {
				err = unknownManifest(r.name, string(d))
			}
			return err
		},
		write: func(tx *bolt.Tx, gen uint64) error {
			return r.leave(tx, v1.Descriptor{MediaType: rec.MediaType, Digest: d, Size: rec.Size}, rec.Subject, gen)
		},
	})
}

// leave undoes enter, and removes the tags that point at the manifest.
func (r *repository) leave(tx *bolt.Tx, desc v1.Descriptor, subject digest.Digest, gen uint64) error {
	d := string(desc.Digest)
	var tags []string // gathered first: a bucket must not change under its cursor
	var errs []error
	scan(tx, span{bucket: bucketTagged, prefix: prefix(r.name, d)}, math.MaxInt, func(k, _ []byte) error {
		tags = append(tags, lastPart(k))
		return nil
	})
	for _, tag := range tags {
		errs = append(errs, removeTag(tx, r.name, tag, gen))
	}
	for _, child := range r.layout.childrenOf(desc) {
		errs = append(errs, remove(tx, bucketParents, key(r.name, string(child.Digest), d)))
	}
	if subject != "" {
		errs = append(errs, remove(tx, bucketReferrers, key(r.name, string(subject), d)))
	}
	return errors.Join(append(errs, remove(tx, bucketManifests, key(r.name, d)))...)
}

// childrenOf returns the manifests that an index lists, or none where its file is damaged or gone.
func (l *Layout) childrenOf(desc v1.Descriptor) []v1.Descriptor {
	raw, err := l.readManifest(desc)
	if err != nil {
		return nil
	}
	doc, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return nil
	}
	return doc.Manifests
}

func (r *repository) Untag(ctx context.Context, tag string, opts *berth.UntagOptions) error {
	if err := berth.ValidateTag(tag); err != nil {
		return err
	}
	if opts == nil {
		opts = &berth.UntagOptions{}
	}
	defer r.layout.projector.wake()
	return r.layout.writer.commit(ctx, change{
		check: func(tx *bolt.Tx) error {
			if !has(tx, bucketTags, key(r.name, tag)) {
				return unknownManifest(r.name, tag)
			}
			return checkTag(tx, r.name, tag, &berth.PushOptions{IfMatch: opts.IfMatch})
		},
		write: func(tx *bolt.Tx, gen uint64) error { return removeTag(tx, r.name, tag, gen) },
	})
}
