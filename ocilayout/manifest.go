package ocilayout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
)

func (r *repository) PushManifest(ctx context.Context, raw []byte, opts *berth.PushOptions) (v1.Descriptor, error) {
	if opts == nil {
		opts = &berth.PushOptions{}
	}
	p := &push{repo: r, opts: opts, raw: raw}
	if err := p.parse(); err != nil {
		return v1.Descriptor{}, err
	}
	release, err := r.layout.recent.hold(ctx, p.touched()...)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer release()
	if err := r.layout.throttle(ctx); err != nil {
		return v1.Descriptor{}, err
	}
	if err := p.checkFiles(ctx); err != nil {
		return v1.Descriptor{}, err
	}
	leave, err := r.layout.writer.enter(ctx)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer leave()
	if err := p.store(); err != nil {
		return v1.Descriptor{}, fmt.Errorf("store manifest %s: %w", p.desc.Digest, err)
	}
	folder := r.layout.folderToFlush(p.desc.Digest)
	if err := r.layout.writer.commitAlways(ctx, change{check: p.check, write: p.write, folder: folder}); err != nil {
		return v1.Descriptor{}, err
	}
	r.layout.publisher.wake()
	return p.entry.Descriptor, nil
}

// push is one manifest on its way in.
type push struct {
	repo *repository
	opts *berth.PushOptions
	raw  []byte
	// entry is what raw is.
	entry *schema1.Entry
	// desc is of the bytes that the digest is of, and signed of raw where these are others.
	desc   v1.Descriptor
	signed *v1.Descriptor
}

// parse checks all that can be checked without looking at the repository.
func (p *push) parse() (err error) {
	if p.entry, err = schema1.Admit(p.repo.name, p.raw, p.opts); err != nil {
		return err
	}
	p.desc = p.entry.Descriptor
	if len(p.entry.Payload) == len(p.raw) {
		return nil
	}
	signed := manifest.Descriptor(p.desc.MediaType, p.raw)
	p.signed = &signed
	p.desc.MediaType, p.desc.Size = schema1.MediaType, int64(len(p.entry.Payload))
	return nil
}

// touched is what the push says is there.
func (p *push) touched() []digest.Digest {
	touched := append(digestsOf(p.entry.Successors()), p.desc.Digest)
	if p.signed != nil {
		touched = append(touched, p.signed.Digest)
	}
	return touched
}

// digestsOf returns the digests of descriptors, of which there may be thousands, each once.
func digestsOf(all []v1.Descriptor) []digest.Digest {
	var digests []digest.Digest
	known := make(map[digest.Digest]bool, len(all))
	for _, desc := range all {
		if !known[desc.Digest] {
			digests = append(digests, desc.Digest)
		}
		known[desc.Digest] = true
	}
	return digests
}

// check says whether the manifest may enter the repository as it is now. It runs inside the
// transaction that decides.
func (p *push) check(tx *bolt.Tx) error {
	for _, tag := range p.opts.Tags {
		if err := checkTag(tx, p.repo.name, tag, p.opts); err != nil {
			return err
		}
	}
	return p.checkChildren(func(child digest.Digest) error {
		if isMember(tx, p.repo.name, child) {
			return nil
		}
		return p.missing(child)
	})
}

// checkFiles runs before the manifest is stored, to refuse early, and looks at the files too: one that
// was taken away or altered behind the index's back is to be pushed again.
func (p *push) checkFiles(ctx context.Context) error {
	records := map[digest.Digest]blobRecord{}
	err := p.repo.layout.db.View(func(tx *bolt.Tx) error {
		if err := p.check(tx); err != nil {
			return err
		}
		return p.checkChildren(func(child digest.Digest) (err error) {
			records[child], err = fileRecord(tx, p.repo.name, child)
			return err
		})
	})
	if err != nil {
		return err
	}
	return p.checkChildren(func(child digest.Digest) error {
		if err := p.repo.vouch(ctx, child, records[child]); err != nil {
			return fmt.Errorf("%w: %w", p.missing(child), err)
		}
		return nil
	})
}

func (p *push) checkChildren(check func(digest.Digest) error) error {
	if p.opts.AllowMissing {
		return nil
	}
	var errs []error
	for _, child := range p.entry.Required() {
		errs = append(errs, check(child.Digest))
	}
	return errors.Join(errs...)
}

func (p *push) missing(child digest.Digest) error {
	return fmt.Errorf("%s@%s: %w", p.repo.name, child, p.entry.Missing())
}

// fileRecord is what is known of a member's file, be it a blob or a manifest.
func fileRecord(tx *bolt.Tx, repo string, d digest.Digest) (blobRecord, error) {
	var manifest manifestRecord
	if found, err := get(tx, bucketManifests, key(repo, string(d)), &manifest); err != nil || found {
		return blobRecord{Size: manifest.Size}, err
	}
	var rec blobRecord
	_, err := get(tx, bucketBlobs, key(string(d)), &rec)
	return rec, err
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

// store writes the manifest's file, and that with the signatures first: a file that is named is there.
func (p *push) store() error {
	if p.signed != nil {
		if err := p.storeFile(*p.signed, p.raw); err != nil {
			return err
		}
	}
	return p.storeFile(p.desc, p.entry.Payload)
}

// storeFile writes one file, unless it is there and good.
func (p *push) storeFile(desc v1.Descriptor, content []byte) error {
	l := p.repo.layout
	if _, err := l.readManifest(desc); err == nil {
		return l.adopt(desc.Digest, desc.Size)
	}
	name := ingestPath + "/" + durable.TempPrefix + rand.Text()
	f, err := l.dir.Create(name, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = l.dir.Writer(f, name).Write(content); err == nil {
		err = l.place(f, name, desc.Digest, desc.Size)
	}
	if err != nil {
		l.dir.Root().Remove(name)
	}
	return err
}

func (p *push) write(tx *bolt.Tx, gen uint64) error {
	m := member{p.desc, p.entry.Document, p.signed}
	if err := enter(tx, p.repo.name, m); err != nil {
		return err
	}
	for _, tag := range p.opts.Tags {
		if err := setTag(tx, p.repo.name, tag, tagRecord{Generation: gen, Descriptor: p.desc, Pushed: now()}); err != nil {
			return err
		}
	}
	p.repo.layout.journal.stored(p.repo.name, m, p.opts.Tags)
	return nil
}

// member is a manifest that enters a repository.
type member struct {
	desc   v1.Descriptor
	doc    *manifest.Document
	signed *v1.Descriptor // the file to serve, where desc is not of that
}

// served is the descriptor under which clients know the manifest.
func (m member) served() v1.Descriptor {
	desc := m.desc
	if m.signed != nil {
		desc.MediaType, desc.Size = m.signed.MediaType, m.signed.Size
	}
	return desc
}

// enter makes a manifest a member of a repository, with all that leads to it and from it.
func enter(tx *bolt.Tx, repo string, m member) error {
	d := string(m.desc.Digest)
	rec := manifestRecord{MediaType: m.desc.MediaType, Size: m.desc.Size, Signed: m.signed, Children: digestsOf(m.doc.Successors()), Idle: now()}
	if m.signed != nil {
		rec.Children = append(rec.Children, m.signed.Digest)
		if err := errors.Join(put(tx, bucketBlobs, key(string(m.signed.Digest)), blobRecord{Size: m.signed.Size}), addMember(tx, repo, m.signed.Digest)); err != nil {
			return err
		}
	}
	rec.Sparse = slices.ContainsFunc(rec.Children, func(child digest.Digest) bool { return !isMember(tx, repo, child) })
	if m.doc.Subject != nil {
		rec.Subject = m.doc.Subject.Digest
		referrer := rec.descriptor(m.desc.Digest)
		referrer.ArtifactType, referrer.Annotations = m.doc.ReferrerType(), m.doc.Annotations
		if err := put(tx, bucketReferrers, key(repo, string(rec.Subject), d), referrer); err != nil {
			return err
		}
	}
	for _, child := range m.doc.Manifests {
		if err := mark(tx, bucketManifests, key(repo, string(child.Digest), byIndex, d)); err != nil {
			return err
		}
	}
	return errors.Join(retype(tx, repo, m.desc), remove(tx, bucketGone, key(repo, d)), remove(tx, bucketLost, key(d)),
		put(tx, bucketManifests, key(repo, d), rec))
}

// retype makes the tags of a manifest agree with what it was last pushed as, for bytes that can be
// more than one type.
func retype(tx *bolt.Tx, repo string, desc v1.Descriptor) error {
	var old manifestRecord
	found, err := get(tx, bucketManifests, key(repo, string(desc.Digest)), &old)
	if err != nil || !found || old.MediaType == desc.MediaType {
		return err
	}
	for _, tag := range tagsOf(tx, repo, desc.Digest) {
		var rec tagRecord
		if _, err := get(tx, bucketTags, key(repo, tag), &rec); err != nil {
			return err
		}
		rec.Descriptor.MediaType = desc.MediaType
		if err := put(tx, bucketTags, key(repo, tag), rec); err != nil {
			return err
		}
	}
	return nil
}

func (r *repository) DeleteManifest(ctx context.Context, d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	var rec manifestRecord
	defer r.layout.publisher.wake()
	return r.layout.writer.commit(ctx, change{
		check: func(tx *bolt.Tx) error {
			found, err := get(tx, bucketManifests, key(r.name, string(d)), &rec)
			if err == nil && !found {
				err = unknownManifest(r.name, string(d))
			}
			return err
		},
		write: func(tx *bolt.Tx, gen uint64) error {
			return r.layout.expel(tx, r.name, d, &rec, gen)
		},
	})
}

// leave undoes enter, and removes the tags that point at the manifest.
func leave(tx *bolt.Tx, repo string, d digest.Digest, rec *manifestRecord, gen uint64) error {
	var errs []error
	for _, tag := range tagsOf(tx, repo, d) {
		errs = append(errs, removeTag(tx, repo, tag, gen))
	}
	for _, child := range rec.Children {
		k := key(repo, string(child), byIndex, string(d))
		if has(tx, bucketManifests, k) {
			errs = append(errs, remove(tx, bucketManifests, k), rest(tx, repo, string(child)))
		}
	}
	if rec.Subject != "" {
		errs = append(errs, remove(tx, bucketReferrers, key(repo, string(rec.Subject), string(d))))
	}
	errs = append(errs, remove(tx, bucketUsed, key(repo, string(d))), remember(tx, repo, string(d), gen))
	return errors.Join(append(errs, remove(tx, bucketManifests, key(repo, string(d))))...)
}

// tagsOf returns the tags that point at a manifest.
func tagsOf(tx *bolt.Tx, repo string, d digest.Digest) (tags []string) {
	all := span{bucket: bucketManifests, prefix: prefix(repo, string(d), byTag)}
	scan(tx, all, math.MaxInt, func(k, _ []byte) error {
		tags = append(tags, lastPart(k))
		return nil
	})
	return tags
}

func (r *repository) Untag(ctx context.Context, tag string, opts *berth.UntagOptions) error {
	if err := berth.ValidateTag(tag); err != nil {
		return err
	}
	if opts == nil {
		opts = &berth.UntagOptions{}
	}
	defer r.layout.publisher.wake()
	return r.layout.writer.commit(ctx, change{
		check: func(tx *bolt.Tx) error {
			if !has(tx, bucketTags, key(r.name, tag)) {
				return unknownManifest(r.name, tag)
			}
			return checkTag(tx, r.name, tag, &berth.PushOptions{IfMatch: opts.IfMatch})
		},
		write: func(tx *bolt.Tx, gen uint64) error { return r.layout.untag(tx, r.name, tag, gen) },
	})
}
