package ocilayout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
)

// maxDepth bounds how deep indexes may be nested in what is taken over.
const maxDepth = 1000

// mergeBatch is how many entries of an index.json are merged in one transaction.
const mergeBatch = 512

// merge takes in an index.json that another program wrote. The file names the generation that it was
// based on, and every tag knows when it last moved: a tag that moved here since keeps its place, any
// other follows the file. A file that does not name a generation was based on the last projection, as
// far as can be known, and removes nothing; so was one that names another layout.
// What is listed but cannot be understood stays listed as it is.
func (p *publisher) merge(ctx context.Context, name string, file *indexFile, base uint64) error {
	is, err := p.whatIs()
	if err != nil {
		return err
	}
	m := &merger{layout: p.layout, ctx: ctx, fresh: is.generation == 0, base: base, removes: p.exact,
		named: map[string]bool{}, understood: map[string]bool{}, hidden: map[string]bool{}, below: newDigestSet(), others: file.others}
	ours := file.says && file.layout == is.layout
	if ours && !m.fresh {
		m.base, m.removes = file.Generation, true
	}
	if ours || m.fresh {
		m.floor = file.Generation + 1
	}
	if err := m.findHidden(); err != nil {
		return err
	}
	defer m.release()
	again, err := p.layout.readIndexFile(name, m.take)
	if err != nil {
		return err
	}
	if again.Checksum != file.Checksum {
		return errors.New("it was written to while it was read")
	}
	return m.finish()
}

// merger brings the differences between an index.json and the index into the index.
type merger struct {
	layout  *Layout
	ctx     context.Context // of the one call that it is for
	fresh   bool            // the index knows nothing, and is to look so until all is merged
	floor   uint64          // a fresh index goes on counting where the lost one ended
	taken   uint64          // entries of a fresh index: what comes later in the file counts as newer
	base    uint64          // generation that the edit was based on
	removes bool            // the file says so itself: what it does not list was taken out
	images  []*outside
	foreign []json.RawMessage
	others  map[string]string // annotations of the file
	named   map[string]bool   // keys of all that the file lists
	// understood are those of them that are entries which are understood
	understood map[string]bool
	hidden     map[string]bool // entries that index.json did not show, because a tag has the name
	below      digestSet       // what is held for entries that are not understood
	held       []func()        // lets go of what must not be collected before it is merged
}

// release lets a collection have what is merged, or will not be.
func (m *merger) release() {
	for _, let := range m.held {
		let()
	}
}

func (m *merger) hold(d digest.Digest) error {
	release, err := m.layout.recent.hold(m.ctx, d)
	if err == nil {
		m.held = append(m.held, release)
	}
	return err
}

// flush merges the entries that are gathered, and forgets them.
func (m *merger) flush() error {
	return m.layout.writer.commitAlways(m.ctx, change{hidden: m.fresh, write: func(tx *bolt.Tx, gen uint64) error {
		return m.writeImages(tx, max(gen, m.floor))
	}})
}

// finish merges the last entries, and what can only be known at the end.
func (m *merger) finish() error {
	if err := m.removeUnlisted(); err != nil {
		return err
	}
	return m.layout.writer.commitAlways(m.ctx, change{write: func(tx *bolt.Tx, gen uint64) error {
		gen = max(gen, m.floor+m.taken)
		if err := m.writeImages(tx, gen); err != nil {
			return err
		}
		return errors.Join(m.writeForeign(tx, gen), m.writeAnnotations(tx, gen), setGeneration(tx, gen))
	}})
}

// outside is one entry of index.json that we understand, with all that is below it.
type outside struct {
	repo, tag string
	desc      v1.Descriptor
	nodes     []node
	known     bool   // the index says the same already
	moved     uint64 // the generation in which the tag last moved, for an index that knows nothing
}

// key is that of the tag, or of the manifest where there is none.
func (o *outside) key() []byte {
	if o.tag == "" {
		return key(o.repo, string(o.desc.Digest))
	}
	return key(o.repo, o.tag)
}

// tags are those that are pointed at the manifest: the one, or none.
func (o *outside) tags() []string {
	if o.tag == "" {
		return nil
	}
	return []string{o.tag}
}

// is reports whether the index says the same of the tag.
func (o *outside) is(recorded v1.Descriptor) bool {
	return recorded.Digest == o.desc.Digest && maps.Equal(recorded.Annotations, o.desc.Annotations)
}

// node is a manifest below an entry, and the blobs that it names.
type node struct {
	member
	blobs []v1.Descriptor
}

func (m *merger) take(raw json.RawMessage) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	entry, err := m.understand(raw)
	if isTrouble(err) {
		return err
	}
	if err != nil {
		m.layout.log.Info("index.json entry left as it is", "err", err)
		return m.takeForeign(raw)
	}
	m.named[string(entry.key())] = true
	m.understood[string(entry.key())] = true
	if entry.known {
		return nil
	}
	m.images = append(m.images, entry)
	if len(m.images) < mergeBatch {
		return nil
	}
	return m.flush()
}

// isTrouble reports whether an entry was not looked at to the end, for reasons that are not its own.
func isTrouble(err error) bool {
	for _, trouble := range []error{context.Canceled, context.DeadlineExceeded, errDamaged, ErrClosed, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, trouble) {
			return true
		}
	}
	return false
}

func (m *merger) understand(raw json.RawMessage) (*outside, error) {
	var desc v1.Descriptor
	if err := json.Unmarshal(raw, &desc); err != nil {
		return nil, errors.New("it is no descriptor")
	}
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return nil, err
	}
	entry := &outside{repo: DefaultRepository, desc: desc, moved: m.movedAt(desc)}
	if name := desc.Annotations[v1.AnnotationRefName]; name != "" {
		var ok bool
		if entry.repo, entry.tag, ok = parseRefName(name); !ok {
			return nil, fmt.Errorf("its name %.100q is not REPOSITORY:TAG", name)
		}
	} else if repo := desc.Annotations[annotationRepository]; berth.ValidateRepository(repo) == nil {
		entry.repo = repo
	}
	if entry.tag != "" && m.understood[string(entry.key())] {
		entry.tag = "" // the first of two entries has the name, the other is kept without
	}
	entry.desc.Annotations = othersAnnotations(desc.Annotations)
	held, err := m.compare(entry)
	if err != nil || entry.known {
		return entry, err
	}
	err = m.walk(desc, 0, map[digest.Digest]bool{}, func(n node) { entry.nodes = append(entry.nodes, n) })
	if held && !isTrouble(err) {
		err = nil // it is there, if damaged
	}
	return entry, err
}

// compare reports whether the entry's manifest is a member of its repository already, and notes in
// the entry whether the index says all of it.
func (m *merger) compare(entry *outside) (held bool, err error) {
	err = m.layout.db.View(func(tx *bolt.Tx) error {
		held = has(tx, bucketManifests, key(entry.repo, string(entry.desc.Digest)))
		entry.known = held
		if entry.tag == "" {
			return nil
		}
		var rec tagRecord
		_, err := get(tx, bucketTags, entry.key(), &rec)
		entry.known = held && entry.is(rec.Descriptor)
		return err
	})
	return held, err
}

// movedAt is when a tag last moved, as far as a fresh index can know: the file says so if berth wrote it.
func (m *merger) movedAt(desc v1.Descriptor) uint64 {
	gen, err := strconv.ParseUint(desc.Annotations[annotationMoved], 10, 64)
	if err == nil && gen < m.floor {
		return gen
	}
	m.taken++
	return m.floor + m.taken
}

// othersAnnotations leaves out those that berth writes itself.
func othersAnnotations(all map[string]string) map[string]string {
	others := map[string]string{}
	for k, v := range all {
		if k != v1.AnnotationRefName && k != annotationImageName && !strings.HasPrefix(k, annotationPrefix) {
			others[k] = v
		}
	}
	return others
}

// walk visits a manifest and all manifests below it, children first, each once. Children that are not
// there are passed over: the image is sparse. What is found is held: a collection that began before must
// not remove it now.
func (m *merger) walk(desc v1.Descriptor, depth int, seen map[digest.Digest]bool, visit func(node)) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	seen[desc.Digest] = true
	if err := m.hold(desc.Digest); err != nil {
		return err
	}
	raw, err := m.layout.readManifest(desc)
	if err != nil {
		return err
	}
	opened, err := schema1.Open(desc.MediaType, raw)
	if err != nil {
		return err
	}
	n := node{member: member{desc: v1.Descriptor{MediaType: opened.MediaType, Digest: desc.Digest, Size: desc.Size}, doc: opened.Document}}
	if opened.Schema1 != nil {
		n.signed = m.signedFile(desc)
	}
	for _, child := range opened.Successors() {
		if manifest.KindOf(child.MediaType) != 0 && depth < maxDepth {
			if seen[child.Digest] {
				continue
			}
			err := m.walk(child, depth+1, seen, visit)
			if err == nil {
				continue
			}
			if isTrouble(err) {
				return err
			}
		}
		if err := m.hold(child.Digest); err != nil {
			return err
		}
		if info, err := m.layout.dir.Root().Lstat(blobPath(child.Digest)); err == nil && info.Mode().IsRegular() {
			child.Size = info.Size() // the digest decides; that a manifest gives another size does not matter here
			n.blobs = append(n.blobs, child)
		}
	}
	visit(n)
	return nil
}

// signedFile returns the file that has a manifest's signatures, if the entry names one that is there and
// has the manifest as its payload.
func (m *merger) signedFile(desc v1.Descriptor) *v1.Descriptor {
	d := digest.Digest(desc.Annotations[annotationSigned])
	if berth.ValidateDigest(d) != nil || m.hold(d) != nil {
		return nil
	}
	info, err := m.layout.dir.Root().Lstat(blobPath(d))
	if err != nil {
		return nil
	}
	signed := v1.Descriptor{MediaType: schema1.MediaTypeSigned, Digest: d, Size: info.Size()}
	raw, err := m.layout.readManifest(signed)
	if err != nil {
		return nil
	}
	whole, err := schema1.Parse(schema1.MediaTypeSigned, raw)
	if err != nil || desc.Digest.Algorithm().FromBytes(whole.Payload()) != desc.Digest {
		return nil
	}
	return &signed
}

// writeImages writes the entries that are gathered, and forgets them when that has worked.
func (m *merger) writeImages(tx *bolt.Tx, gen uint64) error {
	for _, entry := range m.images {
		if err := m.writeEntry(tx, entry, gen); err != nil {
			return err
		}
	}
	m.images = m.images[:0]
	return nil
}

func (m *merger) writeEntry(tx *bolt.Tx, entry *outside, gen uint64) error {
	now, follow, err := m.follows(tx, entry)
	if err != nil || !follow {
		return err
	}
	if now.Descriptor.Digest == entry.desc.Digest { // it has not moved
		now.Descriptor.Annotations = entry.desc.Annotations
		return put(tx, bucketTags, entry.key(), now)
	}
	came, err := m.enterAll(tx, entry)
	if err != nil || entry.tag == "" {
		return err
	}
	var held manifestRecord
	if _, err := get(tx, bucketManifests, key(entry.repo, string(entry.desc.Digest)), &held); err != nil {
		return err
	}
	entry.desc.MediaType, entry.desc.Size = held.MediaType, held.Size
	next := tagRecord{Generation: gen, Descriptor: entry.desc, Pushed: time.Now().Unix(),
		Past: now.Past.with(place{now.Generation, now.Descriptor.Digest})}
	if m.fresh {
		next.Generation = entry.moved
	}
	if err := setTag(tx, entry.repo, entry.tag, next); err != nil || came {
		return err
	}
	return m.layout.journal.moved(tx, entry.repo, entry.desc.Digest, entry.tag)
}

// enterAll makes an entry's manifest, and all below it, members of its repository. It reports whether the
// manifest itself was none.
func (m *merger) enterAll(tx *bolt.Tx, entry *outside) (came bool, err error) {
	for _, n := range entry.nodes {
		isNew, err := m.layout.enterOutside(tx, entry.repo, n)
		if err != nil {
			return false, err
		}
		if !isNew {
			continue
		}
		var tags []string
		if n.desc.Digest == entry.desc.Digest {
			came, tags = true, entry.tags()
		}
		m.layout.journal.stored(entry.repo, n.member, tags)
	}
	return came, nil
}

// follows decides for one entry whether the file's word counts. It returns where the tag points now, or
// that and since when it points nowhere.
func (m *merger) follows(tx *bolt.Tx, entry *outside) (now tagRecord, follow bool, err error) {
	if entry.tag != "" {
		found, err := get(tx, bucketTags, entry.key(), &now)
		if err != nil || found {
			return now, !entry.is(now.Descriptor) && m.counts(now.Generation, now.Past, entry.desc.Digest), err
		}
	}
	var gone goneRecord
	_, err = get(tx, bucketGone, entry.key(), &gone)
	now.Generation, now.Past = gone.Generation, gone.Past
	return now, m.counts(gone.Generation, gone.Past, entry.desc.Digest), err
}

// counts decides whether the file's word counts for a tag that last moved in a generation.
func (m *merger) counts(moved uint64, before past, to digest.Digest) bool {
	return moved <= m.base || before.changes(m.base, to)
}

// enterOutside makes a manifest and its blobs members of a repository, and reports whether the manifest was
// none. The blobs are not believed before they are hashed, and whoever wrote the files may not have flushed
// them.
func (l *Layout) enterOutside(tx *bolt.Tx, repo string, n node) (isNew bool, err error) {
	l.unflushed.add(blobPath(n.desc.Digest), n.desc.Size)
	for _, blob := range n.blobs {
		l.unflushed.add(blobPath(blob.Digest), blob.Size)
		if !has(tx, bucketBlobs, key(string(blob.Digest))) {
			rec := blobRecord{Size: blob.Size, Unverified: true}
			if err := put(tx, bucketBlobs, key(string(blob.Digest)), rec); err != nil {
				return false, err
			}
		}
		if err := addMember(tx, repo, blob.Digest); err != nil {
			return false, err
		}
	}
	if has(tx, bucketManifests, key(repo, string(n.desc.Digest))) {
		return false, nil
	}
	if n.signed != nil {
		l.unflushed.add(blobPath(n.signed.Digest), n.signed.Size)
	}
	return true, enter(tx, repo, n.member)
}

// removeUnlisted ends the tags that the other program had before it, and left out. A manifest that
// had no tag stays: one that the other program has tagged is listed under that name alone.
func (m *merger) removeUnlisted() error {
	if !m.removes {
		return nil
	}
	var unlisted [][]byte
	for k, err := range pages(m.ctx, m.layout.db, span{bucket: bucketTags}, m.isUnlisted) {
		if err != nil {
			return err
		}
		if k != nil {
			unlisted = append(unlisted, k)
		}
	}
	for batch := range slices.Chunk(unlisted, mergeBatch) {
		err := m.layout.writer.commitAlways(m.ctx, change{write: func(tx *bolt.Tx, gen uint64) error { return m.endTags(tx, batch, gen) }})
		if err != nil {
			return err
		}
	}
	return nil
}

// isUnlisted returns the key of a tag that the file does not list, or nil.
func (m *merger) isUnlisted(k, v []byte) ([]byte, error) {
	var rec tagRecord
	if m.named[string(k)] {
		return nil, nil
	}
	if err := decode(k, v, &rec); err != nil || !m.counts(rec.Generation, rec.Past, "") {
		return nil, err
	}
	return bytes.Clone(k), nil
}

// endTags ends tags that have not moved meanwhile. One whose manifest is lost was not listed by berth
// either.
func (m *merger) endTags(tx *bolt.Tx, keys [][]byte, gen uint64) error {
	for _, k := range keys {
		var now tagRecord
		found, err := get(tx, bucketTags, k, &now)
		if err != nil {
			return err
		}
		if !found || !m.counts(now.Generation, now.Past, "") || isLost(tx, now.Descriptor.Digest) {
			continue
		}
		err = errors.Join(m.layout.journal.untagged(tx, firstPart(k), lastPart(k)), dropTag(tx, firstPart(k), lastPart(k)))
		if err != nil {
			return err
		}
		gone := goneRecord{gen, time.Now().Unix(), now.Past.with(place{now.Generation, now.Descriptor.Digest})}
		if err := put(tx, bucketGone, k, gone); err != nil {
			return err
		}
	}
	return nil
}
