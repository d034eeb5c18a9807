package ocilayout

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

const (
	// outsideGrace is how old a file must be that the index has never heard of: another program may
	// be in the middle of copying an image into the directory.
	outsideGrace = time.Hour
	// traceFor is how long the removal of a tag is remembered, in case that another program comes
	// back with an index.json from before.
	traceFor = 24 * time.Hour
)

// collection is one run of GC.
type collection struct {
	layout *Layout
	opts   berth.GCOptions
	report berth.GCReport
	start  time.Time
	grace  time.Duration
	needed digestSet
	traces digestSet // of manifests that were removed: their files are ours
	// named: what index.json does not lead to is not needed.
	named bool
	// sparing: a client of an earlier owner may have been told of any blob.
	sparing bool
	// seen counts the files that were found in blobs/, swept those of them that were removed.
	seen, swept tally
}

// tally is a number of files and their bytes.
type tally struct {
	files int
	bytes int64
}

func (t *tally) add(g garbage) {
	t.files++
	t.bytes += g.size
}

// digestSet is a set of digests that takes little room. It may take one for another, which keeps a
// file for longer and does no harm.
type digestSet struct {
	seed maphash.Seed
	sums map[uint64]struct{}
}

func newDigestSet() digestSet { return digestSet{maphash.MakeSeed(), map[uint64]struct{}{}} }

func (s digestSet) add(d digest.Digest) { s.sums[maphash.String(s.seed, string(d))] = struct{}{} }

func (s digestSet) has(d digest.Digest) bool {
	_, found := s.sums[maphash.String(s.seed, string(d))]
	return found
}

// GC implements [berth.Collector]. Roots are all manifests that are members of a repository. A blob
// is removed when no root leads to it, and no client stored it, mounted it or was told that it exists
// within the grace period, nor since the collection began; so a client that finds a blob, and then
// pushes the manifest that names it, is never betrayed. Within one grace period of the start nothing
// is removed.
//
// Work is done in small steps between those of others. One collection runs at a time.
func (l *Layout) GC(ctx context.Context, opts *berth.GCOptions) (berth.GCReport, error) {
	c := &collection{layout: l, needed: newDigestSet(), traces: newDigestSet()}
	if opts != nil {
		c.opts = *opts
	}
	if err := c.prepare(); err != nil {
		return berth.GCReport{}, err
	}
	ctx, done, err := l.maintain(ctx)
	if err != nil {
		return berth.GCReport{}, err
	}
	defer done()
	var release func()
	c.start, release = l.recent.collect()
	defer release()
	if err = c.run(ctx); err == nil && !c.opts.DryRun {
		err = l.journal.collected(ctx, c.report)
	}
	return c.report, err
}

func (c *collection) prepare() error {
	c.report.DryRun = c.opts.DryRun
	c.grace = c.opts.Grace
	own := c.layout.recent.grace
	switch {
	case c.grace == 0:
		c.grace = own
	case c.grace > own:
		return fmt.Errorf("grace %v: the layout remembers what it told its clients for %v; open it with a longer grace", c.grace, own)
	case c.grace < 0:
		c.grace = 0
	}
	since := time.Since(c.layout.started)
	c.sparing = since < c.grace && !c.layout.epoch.rested(c.grace)
	return checkRules(c.opts)
}

func (c *collection) run(ctx context.Context) error {
	if !c.opts.DryRun {
		if err := c.layout.dropBallast(); err != nil {
			return err
		}
		defer c.layout.loadBallast()
	}
	if err := c.layout.writeUses(ctx); err != nil {
		return err
	}
	ended, err := c.retain(ctx)
	if err != nil {
		return err
	}
	if c.opts.DryRun {
		if err := c.mark(ctx, ended); err != nil {
			return err
		}
		return c.sweep(ctx)
	}
	// The first flush takes in what others have added; the second sees to it that index.json names nothing
	// any more that was not marked.
	if err := c.layout.Flush(ctx); err != nil {
		return err
	}
	if err := c.mark(ctx, ended); err != nil {
		return err
	}
	if err := c.layout.Flush(ctx); err != nil {
		return err
	}
	return c.sweep(ctx)
}

// cutoff is the time since which nobody may have been told of what is removed.
func (c *collection) cutoff() time.Time {
	cutoff := time.Now().Add(-c.grace)
	if c.start.Before(cutoff) {
		return c.start
	}
	return cutoff
}

// mark notes all that the manifests need which will not have ended.
func (c *collection) mark(ctx context.Context, ended map[string]bool) error {
	for m, err := range pages(ctx, c.layout.db, span{bucket: bucketManifests}, readManifestEntry) {
		if err != nil {
			return err
		}
		if m.digest == "" || ended[string(key(m.repo, string(m.digest)))] {
			continue
		}
		if c.named && c.layout.lost(m.digest) {
			continue
		}
		c.needed.add(m.digest)
		for _, child := range m.rec.Children {
			c.needed.add(child)
		}
	}
	return c.layout.db.View(func(tx *bolt.Tx) error {
		if err := tx.Bucket(bucketForeign).ForEach(func(k, v []byte) error {
			var rec foreignRecord
			if err := decode(k, v, &rec); err != nil {
				return err
			}
			return c.markForeign(rec.Raw)
		}); err != nil {
			return err
		}
		return tx.Bucket(bucketGone).ForEach(func(k, _ []byte) error {
			if d := digest.Digest(lastPart(k)); d.Validate() == nil {
				c.traces.add(d)
			}
			return nil
		})
	})
}

var anyDigest = lazily(`sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}`)

// markForeign keeps all that an entry of index.json may lead to that is not understood.
func (c *collection) markForeign(data []byte) error {
	return c.layout.below(data, c.needed, func(digest.Digest) error { return nil })
}

// below visits every digest in data, and in what these name. Those that are seen already it passes over.
func (l *Layout) below(data []byte, seen digestSet, visit func(digest.Digest) error) error {
	for _, found := range anyDigest().FindAll(data, -1) {
		d := digest.Digest(found)
		if seen.has(d) {
			continue
		}
		seen.add(d)
		if err := visit(d); err != nil {
			return err
		}
		if info, err := l.dir.Root().Lstat(blobPath(d)); err != nil || info.Size() > berth.MaxManifestSize || !info.Mode().IsRegular() {
			continue
		}
		content, err := l.dir.Root().ReadFile(blobPath(d))
		if err != nil {
			return err
		}
		if err := l.below(content, seen, visit); err != nil {
			return err
		}
	}
	return nil
}

// lost reports whether a manifest's file was found damaged.
func (l *Layout) lost(d digest.Digest) (lost bool) {
	l.db.View(func(tx *bolt.Tx) error {
		lost = isLost(tx, d)
		return nil
	})
	return lost
}

// forgetTraces drops what nobody will ask for again.
func (c *collection) forgetTraces(ctx context.Context) error {
	over := time.Now().Add(-traceFor).Unix()
	var old [][]byte
	for k, err := range pages(ctx, c.layout.db, span{bucket: bucketGone}, func(k, v []byte) ([]byte, error) {
		var rec goneRecord
		if err := decode(k, v, &rec); err != nil || rec.At >= over {
			return nil, err
		}
		return bytes.Clone(k), nil
	}) {
		if err != nil {
			return err
		}
		if k != nil {
			old = append(old, k)
		}
	}
	for batch := range slices.Chunk(old, retainBatch) {
		err := c.layout.writer.commit(ctx, change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
			for _, k := range batch {
				if err := forgetTrace(tx, k, over); err != nil {
					return err
				}
			}
			return nil
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

func forgetTrace(tx *bolt.Tx, k []byte, over int64) error {
	var rec goneRecord
	if _, err := get(tx, bucketGone, k, &rec); err != nil || rec.At >= over {
		return err
	}
	return remove(tx, bucketGone, k)
}
