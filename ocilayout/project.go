package ocilayout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// The annotations that berth writes into index.json. Other tools keep those of the index when they
// rewrite it, which is how an outside edit tells what it was based on.
const (
	annotationPrefix     = "io.github.berthoci."
	annotationGeneration = annotationPrefix + "generation" // of the index: what the projection shows
	annotationChecksum   = annotationPrefix + "checksum"   // of the index: sha256 of its manifests, as written
	annotationRepository = annotationPrefix + "repository" // of an entry without a name

	// annotationImageName is written for containerd and its kin, and never read back.
	annotationImageName = "io.containerd.image.name"
)

const (
	// projectionDelay is how long index.json may lag behind an answer, so that many changes are
	// written as one.
	projectionDelay = 100 * time.Millisecond
	// projectionShare bounds the work: a projection begins no sooner than this many times its own
	// cost after the last one.
	projectionShare = 20
	// retryDelay is how soon a projection that failed, on a full disk say, is tried again.
	retryDelay = time.Second
)

// indexFile is index.json with its entries left as they stand.
type indexFile struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Manifests     json.RawMessage   `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// generation is what the file was based on, or 0 where it does not say.
func (f *indexFile) generation() uint64 {
	g, err := strconv.ParseUint(f.Annotations[annotationGeneration], 10, 64)
	if err != nil {
		return 0
	}
	return g
}

// untouched reports whether the file is as berth wrote it.
func (f *indexFile) untouched() bool {
	return f.Annotations[annotationChecksum] == checksum(f.Manifests)
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// projector keeps index.json in step with the index.
type projector struct {
	layout  *Layout
	dirty   chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	ending  sync.Once

	mu   sync.Mutex // one projection at a time; guards the fields below
	seen string     // checksum of the index.json that was last written or merged
	base uint64     // generation that it showed; 0: not known
	cost time.Duration
}

func newProjector(l *Layout) *projector {
	return &projector{layout: l, dirty: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
}

// wake tells that the index has changed.
func (p *projector) wake() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

func (p *projector) begin() { go p.run() }

func (p *projector) run() {
	defer close(p.stopped)
	for {
		select {
		case <-p.stop:
			return
		case <-p.dirty:
		}
		if !p.pause(max(projectionDelay, projectionShare*p.lastCost())) {
			return
		}
		if err := p.flush(context.Background()); err != nil {
			p.layout.log.Error("index.json is behind", "err", err, "retry", retryDelay)
			p.wake()
			p.pause(retryDelay)
		}
	}
}

// pause waits, and reports whether to go on.
func (p *projector) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-p.stop:
		return false
	}
}

func (p *projector) lastCost() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cost
}

// end projects for the last time and ends the goroutine.
func (p *projector) end() error {
	p.ending.Do(func() { close(p.stop) })
	<-p.stopped
	return p.flush(context.Background())
}

// flush takes in what others wrote and brings index.json up to date.
func (p *projector) flush(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.mergeOutside(ctx); err != nil {
		return err
	}
	return p.project(ctx)
}

// project writes index.json if it would change.
func (p *projector) project(ctx context.Context) error {
	start := time.Now()
	var data []byte
	var base uint64
	err := p.layout.db.View(func(tx *bolt.Tx) (err error) {
		data, err = render(tx)
		base = generation(tx)
		return err
	})
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if sum := checksum(data); sum != p.seen {
		if err := p.layout.dir.WriteFile(v1.ImageIndexFile, data, 0o644); err != nil {
			return err
		}
		p.seen, p.cost = sum, time.Since(start)
	}
	p.base = base
	return nil
}

// render encodes the index as index.json.
func render(tx *bolt.Tx) ([]byte, error) {
	entries, err := tagEntries(tx)
	if err == nil {
		entries, err = appendUnnamed(tx, entries)
	}
	if err != nil {
		return nil, err
	}
	list, err := json.Marshal(append(entries, foreignEntries(tx)...))
	if err != nil {
		return nil, err
	}
	return json.Marshal(indexFile{
		SchemaVersion: 2,
		MediaType:     v1.MediaTypeImageIndex,
		Manifests:     list,
		Annotations: map[string]string{
			annotationGeneration: strconv.FormatUint(generation(tx), 10),
			annotationChecksum:   checksum(list),
		},
	})
}

// tagEntries returns one entry for each tag.
func tagEntries(tx *bolt.Tx) ([]json.RawMessage, error) {
	entries := []json.RawMessage{}
	err := tx.Bucket(bucketTags).ForEach(func(k, v []byte) error {
		var rec tagRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return fmt.Errorf("index entry %q is damaged: %w", k, err)
		}
		data, err := json.Marshal(named(rec.Descriptor, firstPart(k), lastPart(k)))
		entries = append(entries, data)
		return err
	})
	return entries, err
}

// named gives a descriptor the annotations that say which tag it is.
func named(desc v1.Descriptor, repo, tag string) v1.Descriptor {
	annotations := map[string]string{}
	maps.Copy(annotations, desc.Annotations)
	annotations[v1.AnnotationRefName] = refName(repo, tag)
	if full, err := reference.ParseNormalizedNamed(repo + ":" + tag); err == nil {
		annotations[annotationImageName] = full.String()
	}
	desc.Annotations = annotations
	return desc
}

// refName is a tag's name in index.json; parseRefName reads it.
func refName(repo, tag string) string {
	if repo == DefaultRepository {
		return tag
	}
	return repo + ":" + tag
}

// parseRefName returns the tag that a name in index.json stands for, if it can be one of ours.
func parseRefName(name string) (repo, tag string, ok bool) {
	repo, tag = DefaultRepository, name
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		repo, tag = name[:i], name[i+1:]
	}
	return repo, tag, berth.ValidateRepository(repo) == nil && berth.ValidateTag(tag) == nil
}

// appendUnnamed adds an entry for each manifest that neither a tag nor an index leads to.
func appendUnnamed(tx *bolt.Tx, entries []json.RawMessage) ([]json.RawMessage, error) {
	err := tx.Bucket(bucketManifests).ForEach(func(k, v []byte) error {
		below := append(bytes.Clone(k), 0)
		if anyBelow(tx, bucketTagged, below) || anyBelow(tx, bucketParents, below) {
			return nil
		}
		var rec manifestRecord
		if err := json.Unmarshal(v, &rec); err != nil {
			return fmt.Errorf("index entry %q is damaged: %w", k, err)
		}
		data, err := json.Marshal(unnamed(k, rec))
		entries = append(entries, data)
		return err
	})
	return entries, err
}

// foreignEntries returns what is not understood and has no name that is one of ours.
func foreignEntries(tx *bolt.Tx) (entries []json.RawMessage) {
	tx.Bucket(bucketForeign).ForEach(func(_, v []byte) error {
		if k := tagKeyOf(v); k == nil || !has(tx, bucketTags, k) {
			entries = append(entries, bytes.Clone(v))
		}
		return nil
	})
	return entries
}

// readIndexFile reads index.json, nil where there is none. A file that another program is writing
// at this moment is read again.
func (p *projector) readIndexFile(ctx context.Context) (*indexFile, string, error) {
	const attempts = 5
	var broken error
	for attempt := range attempts {
		data, err := p.layout.dir.Root().ReadFile(v1.ImageIndexFile)
		if errors.Is(err, fs.ErrNotExist) {
			p.seen = "" // to be made anew
			return nil, "", nil
		}
		if err != nil {
			return nil, "", err
		}
		if sum := checksum(data); sum == p.seen {
			return nil, sum, nil
		}
		var file indexFile
		if broken = json.Unmarshal(data, &file); broken == nil {
			return &file, checksum(data), nil
		}
		select {
		case <-time.After(projectionDelay << attempt / 4):
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
	return nil, "", fmt.Errorf("%s: %w: it does not parse as JSON (%w)", p.layout.path(v1.ImageIndexFile), berth.ErrLayoutInvalid, broken)
}
