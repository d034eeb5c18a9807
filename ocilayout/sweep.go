package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth/internal/durable"
)

// sweepBatch is how many blobs are removed in one transaction: few, so that a push that waits for
// its turn does not wait long.
const sweepBatch = 32

// garbage is a blob that is not needed.
type garbage struct {
	digest digest.Digest
	size   int64
}

// sweep removes what is not needed: first what the index knows, then files that it does not.
func (c *collection) sweep(ctx context.Context) error {
	if err := c.sweepRecords(ctx); err != nil {
		return err
	}
	c.swept = tally{}
	if err := c.sweepFiles(ctx); err != nil {
		return err
	}
	c.report.Left, c.report.LeftBytes = c.seen.files-c.swept.files, c.seen.bytes-c.swept.bytes
	if c.opts.DryRun {
		c.report.Left, c.report.LeftBytes = c.seen.files-c.report.Blobs, c.seen.bytes-c.report.Bytes
		return nil
	}
	return c.forgetTraces(ctx)
}

func (c *collection) sweepRecords(ctx context.Context) error {
	var batch []garbage
	for b, err := range c.unneeded(ctx) {
		if err != nil {
			return err
		}
		if batch = append(batch, garbage{b.digest, b.blob.Size}); len(batch) < sweepBatch {
			continue
		}
		if err := c.remove(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	return c.remove(ctx, batch)
}

// unneeded yields the blobs that the index knows and no manifest needs.
func (c *collection) unneeded(ctx context.Context) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		for b, err := range pages(ctx, c.layout.db, span{bucket: bucketBlobs}, readBlobEntry) {
			if err == nil && (b.digest == "" || c.needed.has(b.digest)) {
				continue
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// sweepFiles looks at all files of blobs/, counts those that stay, and removes those that no record
// speaks of.
func (c *collection) sweepFiles(ctx context.Context) error {
	algorithms, err := fs.ReadDir(c.layout.dir.Root().FS(), v1.ImageBlobsDir)
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms {
		if !algorithm.IsDir() {
			continue
		}
		if err := c.sweepFolder(ctx, digest.Algorithm(algorithm.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) sweepFolder(ctx context.Context, algorithm digest.Algorithm) error {
	folder, err := c.layout.dir.Root().Open(v1.ImageBlobsDir + "/" + algorithm.String())
	if err != nil {
		return err
	}
	defer folder.Close()
	for {
		entries, err := folder.ReadDir(pageSize)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var batch []garbage
		for _, entry := range entries {
			if g, unneeded := c.judge(algorithm, entry); unneeded {
				batch = append(batch, g)
			}
		}
		for len(batch) > 0 {
			n := min(len(batch), sweepBatch)
			if err := c.remove(ctx, batch[:n]); err != nil {
				return err
			}
			batch = batch[n:]
		}
	}
}

// judge decides about one file that no record speaks of.
func (c *collection) judge(algorithm digest.Algorithm, entry fs.DirEntry) (garbage, bool) {
	info, err := entry.Info()
	d := digest.NewDigestFromEncoded(algorithm, entry.Name())
	if err != nil || d.Validate() != nil || !info.Mode().IsRegular() {
		return garbage{}, false
	}
	g := garbage{d, info.Size()}
	c.seen.add(g)
	// Where no image is known at all, it is more likely that index.json was lost than that nobody needs
	// any of the files.
	if c.needed.has(d) || c.layout.hasRecord(d) || len(c.needed.sums) == 0 && !c.traces.has(d) {
		return g, false
	}
	return g, c.traces.has(d) || c.layout.ago(durable.ChangedAt(info)) > max(c.layout.outsideGrace, c.grace)
}

// ago is how long ago a file's time is. A clock that was set forward since the layout was opened makes no
// file older.
func (l *Layout) ago(t time.Time) time.Duration {
	now := time.Now()
	jumped := now.Round(0).Sub(l.started.Round(0)) - now.Sub(l.started)
	return now.Sub(t) - max(jumped, 0)
}

func (l *Layout) hasRecord(d digest.Digest) (found bool) {
	l.db.View(func(tx *bolt.Tx) error {
		found = has(tx, bucketBlobs, key(string(d)))
		return nil
	})
	return found
}

// remove takes blobs off the disk, except those that somebody was told of. The records go first: so
// nothing ever vouches for a file that is gone.
func (c *collection) remove(ctx context.Context, batch []garbage) error {
	var doomed []garbage
	defer func() {
		for _, g := range doomed {
			c.layout.recent.spare(g.digest)
		}
	}()
	for _, g := range batch {
		if !c.sparing && c.layout.recent.doom(g.digest, c.cutoff()) {
			doomed = append(doomed, g)
		} else {
			c.report.Spared++
			c.report.SparedBytes += g.size
		}
	}
	if c.opts.DryRun || len(doomed) == 0 {
		c.count(doomed)
		return ctx.Err()
	}
	if err := c.layout.forget(ctx, doomed); err != nil {
		return err
	}
	return c.unlink(doomed)
}

func (c *collection) unlink(doomed []garbage) error {
	for i, g := range doomed {
		if err := c.layout.dir.Remove(blobPath(g.digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.count(doomed[:i])
			return fmt.Errorf("remove blob %s: %w", g.digest, err)
		}
	}
	c.count(doomed)
	return nil
}

func (c *collection) count(removed []garbage) {
	for _, g := range removed {
		c.swept.add(g)
		c.report.Blobs++
		c.report.Bytes += g.size
	}
}

// forget drops all that the index knows of blobs.
func (l *Layout) forget(ctx context.Context, all []garbage) error {
	return l.writer.commit(ctx, change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
		for _, g := range all {
			if err := forgetBlob(tx, g.digest); err != nil {
				return err
			}
		}
		return nil
	}})
}

func forgetBlob(tx *bolt.Tx, d digest.Digest) error {
	var members [][]byte // gathered first: a bucket must not change under its cursor
	err := scan(tx, span{bucket: bucketBlobs, prefix: prefix(string(d))}, math.MaxInt, func(k, _ []byte) error {
		members = append(members, append([]byte(nil), k...))
		return nil
	})
	for _, k := range members {
		err = errors.Join(err, remove(tx, bucketBlobs, k))
	}
	return errors.Join(err, remove(tx, bucketBlobs, key(string(d))))
}
