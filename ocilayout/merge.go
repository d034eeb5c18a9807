package ocilayout

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// maxDepth bounds how deep indexes may be nested in what is taken over.
const maxDepth = 1000

// mergeOutside takes in what another program wrote to index.json. The file names the generation
// that it was based on, and every tag knows when it last moved: a tag that moved here since keeps
// its place, any other follows the file. A file that does not name a generation was based on the last
// projection, as far as can be known, and removes nothing.
// What is listed but cannot be understood stays listed as it is.
func (p *projector) mergeOutside(ctx context.Context) error {
	file, sum, err := p.readIndexFile(ctx)
	if err != nil {
		return p.setAside(err)
	}
	if file == nil {
		return nil
	}
	fresh, err := p.isFresh()
	if err != nil {
		return err
	}
	if fresh || !file.untouched() {
		if err := p.merge(ctx, file, fresh); err != nil {
			return fmt.Errorf("merge %s: %w", p.layout.path(v1.ImageIndexFile), err)
		}
	}
	p.seen = sum
	return nil
}

// isFresh reports whether the index has never been written to: then index.json is all there is.
func (p *projector) isFresh() (fresh bool, err error) {
	err = p.layout.db.View(func(tx *bolt.Tx) error {
		fresh = generation(tx) == 0
		return nil
	})
	return fresh, err
}

// setAside keeps a copy of an index.json that does not parse, so that the index can replace it. An
// index that knows nothing cannot.
func (p *projector) setAside(broken error) error {
	fresh, err := p.isFresh()
	if err != nil || fresh || !errors.Is(broken, berth.ErrLayoutInvalid) {
		return broken
	}
	data, err := p.layout.dir.Root().ReadFile(v1.ImageIndexFile)
	if err != nil {
		return err
	}
	const aside = ".berth/index.json.damaged"
	p.layout.log.Warn("index.json was damaged and is made anew", "err", broken, "copy", p.layout.path(aside))
	return p.layout.dir.WriteFile(aside, data, 0o644)
}

func (p *projector) merge(ctx context.Context, file *indexFile, fresh bool) error {
	var entries []json.RawMessage
	if len(file.Manifests) > 0 {
		if err := json.Unmarshal(file.Manifests, &entries); err != nil {
			return fmt.Errorf("%w: its manifests are no list", berth.ErrLayoutInvalid)
		}
	}
	m := &merger{layout: p.layout, base: p.base, named: map[string]bool{}}
	if g := file.generation(); g > 0 && !fresh {
		m.base, m.removes = g, true
	}
	for _, raw := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.take(raw)
	}
	return p.layout.writer.commit(ctx, change{write: func(tx *bolt.Tx, gen uint64) error {
		gen = max(gen, file.generation()+1) // a fresh index goes on counting where the lost one ended
		return errors.Join(m.write(tx, gen), setGeneration(tx, gen))
	}})
}

// merger gathers what an index.json says, and then writes the differences in one transaction.
type merger struct {
	layout  *Layout
	base    uint64 // generation that the edit was based on
	removes bool   // the file says so itself: what it does not list was taken out
	images  []*outside
	foreign []json.RawMessage
	named   map[string]bool // keys of all tags that the file lists
}

// outside is one entry of index.json that we understand, with all that is below it.
type outside struct {
	repo, tag string
	desc      v1.Descriptor
	nodes     []node
}

// node is a manifest below an entry, and the blobs that it names.
type node struct {
	desc  v1.Descriptor
	doc   *manifest.Document
	blobs []v1.Descriptor
}

func (m *merger) take(raw json.RawMessage) {
	entry, err := m.understand(raw)
	if err != nil {
		m.layout.log.Info("index.json entry left as it is", "err", err)
		m.foreign = append(m.foreign, raw)
		m.named[string(tagKeyOf(raw))] = true
		return
	}
	if entry.tag != "" {
		m.named[string(key(entry.repo, entry.tag))] = true
	}
	m.images = append(m.images, entry)
}

// tagKeyOf returns the key of the tag that an entry's name stands for, or nil.
func tagKeyOf(raw json.RawMessage) []byte {
	var entry struct {
		Annotations map[string]string `json:"annotations"`
	}
	if json.Unmarshal(raw, &entry) != nil {
		return nil
	}
	repo, tag, ok := parseRefName(entry.Annotations[v1.AnnotationRefName])
	if !ok {
		return nil
	}
	return key(repo, tag)
}

func (m *merger) understand(raw json.RawMessage) (*outside, error) {
	var desc v1.Descriptor
	if err := json.Unmarshal(raw, &desc); err != nil {
		return nil, errors.New("it is no descriptor")
	}
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return nil, err
	}
	entry := &outside{repo: DefaultRepository, desc: desc}
	if name := desc.Annotations[v1.AnnotationRefName]; name != "" {
		var ok bool
		if entry.repo, entry.tag, ok = parseRefName(name); !ok {
			return nil, fmt.Errorf("its name %.100q is not REPOSITORY:TAG", name)
		}
	} else if repo := desc.Annotations[annotationRepository]; berth.ValidateRepository(repo) == nil {
		entry.repo = repo
	}
	entry.desc.Annotations = othersAnnotations(desc.Annotations)
	if m.layout.holds(entry.repo, desc.Digest) {
		return entry, nil
	}
	return entry, m.layout.walk(desc, 0, func(n node) { entry.nodes = append(entry.nodes, n) })
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

// holds reports whether a manifest is a member of a repository already.
func (l *Layout) holds(repo string, d digest.Digest) (held bool) {
	l.db.View(func(tx *bolt.Tx) error {
		held = has(tx, bucketManifests, key(repo, string(d)))
		return nil
	})
	return held
}

// walk visits a manifest and all manifests below it, children first. Children that are not there
// are passed over: the image is sparse.
func (l *Layout) walk(desc v1.Descriptor, depth int, visit func(node)) error {
	raw, err := l.readManifest(desc)
	if err != nil {
		return err
	}
	doc, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return err
	}
	n := node{desc: v1.Descriptor{MediaType: doc.MediaType, Digest: desc.Digest, Size: desc.Size}, doc: doc}
	for _, child := range doc.Successors() {
		if manifest.KindOf(child.MediaType) != 0 && depth < maxDepth {
			if l.walk(child, depth+1, visit) == nil {
				continue
			}
		}
		if info, err := l.dir.Root().Lstat(blobPath(child.Digest)); err == nil && info.Mode().IsRegular() {
			child.Size = info.Size() // the digest decides; that a manifest gives another size does not matter here
			n.blobs = append(n.blobs, child)
		}
	}
	visit(n)
	return nil
}

func (m *merger) write(tx *bolt.Tx, gen uint64) error {
	for _, entry := range m.images {
		if err := m.writeEntry(tx, entry, gen); err != nil {
			return err
		}
	}
	if err := m.removeUnlisted(tx, gen); err != nil {
		return err
	}
	return m.writeForeign(tx)
}

func (m *merger) writeEntry(tx *bolt.Tx, entry *outside, gen uint64) error {
	if entry.tag != "" {
		follow, err := m.follows(tx, entry)
		if err != nil || !follow {
			return err
		}
		if err := setTag(tx, entry.repo, entry.tag, tagRecord{gen, entry.desc}); err != nil {
			return err
		}
	}
	for _, n := range entry.nodes {
		if err := enterOutside(tx, entry.repo, n); err != nil {
			return err
		}
	}
	return nil
}

// follows decides for one tag whether the file's word counts.
func (m *merger) follows(tx *bolt.Tx, entry *outside) (bool, error) {
	k := key(entry.repo, entry.tag)
	var now tagRecord
	found, err := get(tx, bucketTags, k, &now)
	if err != nil || found {
		return err == nil && now.Generation <= m.base && now.Descriptor.Digest != entry.desc.Digest, err
	}
	var gone uint64
	if _, err := get(tx, bucketGone, k, &gone); err != nil {
		return false, err
	}
	return gone <= m.base, nil
}

// enterOutside makes a manifest and its blobs members of a repository. The blobs are not believed
// before they are hashed.
func enterOutside(tx *bolt.Tx, repo string, n node) error {
	for _, blob := range n.blobs {
		if !has(tx, bucketBlobs, key(string(blob.Digest))) {
			rec := blobRecord{Size: blob.Size, Unverified: true}
			if err := put(tx, bucketBlobs, key(string(blob.Digest)), rec); err != nil {
				return err
			}
		}
		if err := addMember(tx, repo, blob.Digest); err != nil {
			return err
		}
	}
	return enter(tx, repo, n.desc, n.doc)
}

// removeUnlisted ends the tags that the other program had before it, and left out.
func (m *merger) removeUnlisted(tx *bolt.Tx, gen uint64) error {
	if !m.removes {
		return nil
	}
	var unlisted [][]byte
	err := tx.Bucket(bucketTags).ForEach(func(k, v []byte) error {
		var rec tagRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return err
		}
		if rec.Generation <= m.base && !m.named[string(k)] {
			unlisted = append(unlisted, append([]byte(nil), k...))
		}
		return nil
	})
	for _, k := range unlisted {
		err = errors.Join(err, removeTag(tx, firstPart(k), lastPart(k), gen))
	}
	return err
}

// writeForeign replaces the entries that are kept as they are: they come from the file alone.
func (m *merger) writeForeign(tx *bolt.Tx) error {
	if err := tx.DeleteBucket(bucketForeign); err != nil {
		return err
	}
	b, err := tx.CreateBucket(bucketForeign)
	if err != nil {
		return err
	}
	for i, raw := range m.foreign {
		if err := b.Put(binary.BigEndian.AppendUint32(nil, uint32(i)), raw); err != nil {
			return err
		}
	}
	return nil
}

// unnamed is the index.json entry of a manifest that has no tag.
func unnamed(k []byte, rec manifestRecord) v1.Descriptor {
	return v1.Descriptor{
		MediaType:   rec.MediaType,
		Digest:      digest.Digest(lastPart(k)),
		Size:        rec.Size,
		Annotations: map[string]string{annotationRepository: firstPart(k)},
	}
}
