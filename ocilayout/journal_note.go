package ocilayout

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// This is about what changes say to the log. All but Pulled is called inside of transactions of the writer.

// Pulled notes that somebody is about to get a manifest by a tag, or by its digest where the tag is empty. Where
// nobody wants to know of pulls it does nothing. Elsewhere it returns when the event is as durable as an
// answer: who calls it before the bytes are sent loses none.
func (l *Layout) Pulled(ctx context.Context, repository string, desc v1.Descriptor, tag string) error {
	if !l.journal.pulls.Load() {
		return nil
	}
	e := berth.Event{Kind: berth.EventPull, Repository: repository,
		Descriptor: v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}}
	if tag != "" {
		e.Tags = []string{tag}
	}
	return l.writer.commitAlways(ctx, change{hidden: true, write: func(*bolt.Tx, uint64) error {
		l.journal.note(e)
		return nil
	}})
}

// stored notes that a manifest has entered a repository, under tags.
func (j *journal) stored(repo string, m member, tags []string) {
	desc := m.served()
	desc.ArtifactType = m.doc.ReferrerType()
	j.note(berth.Event{Kind: berth.EventPush, Repository: repo, Descriptor: desc, Tags: tags})
}

// moved notes that a tag was pointed at a manifest that was there.
func (j *journal) moved(tx *bolt.Tx, repo string, d digest.Digest, tag string) error {
	return j.about(tx, berth.EventTag, repo, d, tag)
}

// untagged notes that a tag is about to be removed.
func (j *journal) untagged(tx *bolt.Tx, repo, tag string) error {
	var rec tagRecord
	if j.rec == nil {
		return nil
	}
	found, err := get(tx, bucketTags, key(repo, tag), &rec)
	if err != nil || !found {
		return err
	}
	return j.about(tx, berth.EventUntag, repo, rec.Descriptor.Digest, tag)
}

// about notes what happens to the tags of a manifest, as far as that is known.
func (j *journal) about(tx *bolt.Tx, kind berth.EventKind, repo string, d digest.Digest, tags ...string) error {
	if j.rec == nil {
		return nil
	}
	var rec manifestRecord
	if _, err := get(tx, bucketManifests, key(repo, string(d)), &rec); err != nil {
		return err
	}
	j.note(berth.Event{Kind: kind, Repository: repo, Descriptor: rec.served(d), Tags: tags})
	return nil
}

// collected notes, in a transaction of its own, that a collection was finished.
func (j *journal) collected(ctx context.Context, report berth.GCReport) error {
	if rec, _ := j.current(); rec == nil {
		return nil
	}
	did := &berth.GCSummary{Tags: len(report.Tags), Manifests: len(report.Manifests), Blobs: report.Blobs, Bytes: report.Bytes}
	return j.layout.writer.commitAlways(ctx, change{hidden: true, write: func(*bolt.Tx, uint64) error {
		j.note(berth.Event{Kind: berth.EventGC, GC: did})
		return nil
	}})
}

// untag is removeTag, with its event.
func (l *Layout) untag(tx *bolt.Tx, repo, tag string, gen uint64) error {
	return errors.Join(l.journal.untagged(tx, repo, tag), removeTag(tx, repo, tag, gen))
}

// expel is leave, with its event.
func (l *Layout) expel(tx *bolt.Tx, repo string, d digest.Digest, rec *manifestRecord, gen uint64) error {
	if l.journal.rec != nil {
		l.journal.note(berth.Event{Kind: berth.EventDelete, Repository: repo, Descriptor: rec.served(d), Tags: tagsOf(tx, repo, d)})
	}
	return leave(tx, repo, d, rec, gen)
}
