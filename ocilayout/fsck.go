package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
)

// check is one run of Fsck.
type check struct {
	layout *Layout
	repair bool

	judging sync.Mutex // held by who decides about a manifest that is damaged

	mu     sync.Mutex // guards the field below
	report berth.FsckReport
}

// Fsck implements [berth.Checker]: it reads and hashes every blob and every manifest, as many at once
// as there are processors, and follows every record to what it speaks of. A file that is damaged is
// moved to .berth/quarantine by a repair; the repositories that have the blob keep it, so one push of it
// anywhere puts all of them right.
func (l *Layout) Fsck(ctx context.Context, opts *berth.FsckOptions) (berth.FsckReport, error) {
	c := &check{layout: l, repair: opts != nil && opts.Repair}
	ctx, done, err := l.maintain(ctx)
	if err != nil {
		return berth.FsckReport{}, err
	}
	defer done()
	err = c.run(ctx)
	if errors.Is(err, errDamaged) {
		c.add(berth.Problem{Kind: berth.ProblemIndex, Detail: err.Error()})
		err = nil
	}
	return c.report, err
}

func (c *check) run(ctx context.Context) error {
	steps := []func(context.Context) error{c.layout.Flush, c.checkBlobs, c.checkManifests, c.checkTags, c.checkFiles, c.layout.Flush}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) add(p berth.Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Problems = append(c.report.Problems, p)
}

// entry is the record of a blob, or of a manifest in a repository.
type entry struct {
	repo   string
	digest digest.Digest
	blob   blobRecord
	rec    manifestRecord
}

// readBlobEntry reads a blob's record; what else is in the bucket is an empty entry.
func readBlobEntry(k, v []byte) (e entry, err error) {
	if len(parts(k)) > 1 {
		return e, nil
	}
	e.digest = digest.Digest(string(k))
	return e, decode(k, v, &e.blob)
}

// readManifestEntry reads a manifest's record; what else is in the bucket is an empty entry.
func readManifestEntry(k, v []byte) (e entry, err error) {
	names := parts(k)
	if len(names) != 2 {
		return e, nil
	}
	e.repo, e.digest = names[0], digest.Digest(names[1])
	return e, decode(k, v, &e.rec)
}

// each calls work for the entries of a bucket, several at once.
func (c *check) each(ctx context.Context, bucket []byte, read func(k, v []byte) (entry, error), work func(context.Context, entry) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for e, err := range pages(ctx, c.layout.db, span{bucket: bucket}, read) {
		if err != nil {
			group.Go(func() error { return err })
			break
		}
		if e.digest != "" {
			group.Go(func() error { return work(ctx, e) })
		}
	}
	return group.Wait()
}

func (c *check) checkBlobs(ctx context.Context) error {
	return c.each(ctx, bucketBlobs, readBlobEntry, c.checkBlob)
}

func (c *check) checkBlob(ctx context.Context, e entry) error {
	wrong := c.layout.examineBlob(ctx, e)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.count(e.blob.Size, wrong == nil)
	if wrong == nil {
		if e.blob.Unverified {
			return c.layout.verifyBlob(ctx, e.digest)
		}
		return nil
	}
	// It may have been removed or pushed again meanwhile: look once more while nobody can.
	if !c.layout.recent.seize(e.digest) {
		return nil
	}
	defer c.layout.recent.spare(e.digest)
	references, known := c.layout.holders(e.digest)
	if !known || c.layout.examineBlob(ctx, e) == nil {
		return ctx.Err()
	}
	return c.judge(e.digest, references, wrong)
}

func (c *check) count(size int64, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Blobs++
	if good {
		c.report.Bytes += size
	}
}

// examineBlob reads a blob's file whole.
func (l *Layout) examineBlob(ctx context.Context, e entry) error {
	if err := l.look(e.digest, e.blob); err != nil {
		return err
	}
	_, err := l.hashFile(ctx, e.digest)
	return err
}

// judge reports a file that is missing or damaged and, in a repair, moves it out of the way.
func (c *check) judge(d digest.Digest, references []string, wrong error) error {
	problem := berth.Problem{Kind: berth.ProblemDamaged, Digest: d, References: references, Detail: wrong.Error()}
	if _, err := c.layout.dir.Root().Lstat(blobPath(d)); errors.Is(err, fs.ErrNotExist) {
		problem.Kind = berth.ProblemMissing
	} else if c.repair {
		if err := c.layout.quarantine(blobPath(d)); err != nil {
			return fmt.Errorf("quarantine blob %s: %w", d, err)
		}
		problem.Repaired = true
	}
	c.add(problem)
	return nil
}

// holders returns the repositories that have a blob, as references.
func (l *Layout) holders(d digest.Digest) (references []string, known bool) {
	const most = 20
	l.db.View(func(tx *bolt.Tx) error {
		known = has(tx, bucketBlobs, key(string(d)))
		return scan(tx, span{bucket: bucketBlobs, prefix: prefix(string(d))}, most, func(k, _ []byte) error {
			references = append(references, lastPart(k)+"@"+string(d))
			return nil
		})
	})
	return references, known
}

func (c *check) checkManifests(ctx context.Context) error {
	return c.each(ctx, bucketManifests, readManifestEntry, c.checkManifest)
}

func (c *check) checkManifest(ctx context.Context, e entry) error {
	_, wrong := c.layout.readManifest(e.rec.descriptor(e.digest))
	references, missing, err := c.layout.around(e)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.report.Manifests++
	if len(missing) > 0 && e.rec.Sparse {
		c.report.Sparse++
	}
	c.mu.Unlock()
	for _, child := range missing {
		if !e.rec.Sparse {
			c.add(berth.Problem{Kind: berth.ProblemMissing, Digest: child, References: references,
				Detail: "it was taken out of its repository, and the image needs it"})
		}
	}
	if wrong == nil {
		return c.layout.findManifest(ctx, e)
	}
	c.judging.Lock() // the same manifest may be that of another repository
	defer c.judging.Unlock()
	if !c.layout.recent.seize(e.digest) {
		return ctx.Err()
	}
	defer c.layout.recent.spare(e.digest)
	if !c.layout.holds(e.repo, e.digest) {
		return nil
	}
	if _, wrong = c.layout.readManifest(e.rec.descriptor(e.digest)); wrong == nil {
		return nil
	}
	if err := c.judge(e.digest, references, wrong); err != nil || !c.repair {
		return err
	}
	return c.layout.loseManifest(ctx, e)
}

// loseManifest keeps index.json from naming a manifest whose file is gone. Its tags, and what it needs,
// stay for whoever pushes it again.
func (l *Layout) loseManifest(ctx context.Context, e entry) error {
	return l.writer.commit(ctx, change{write: func(tx *bolt.Tx, _ uint64) error {
		if !has(tx, bucketManifests, key(e.repo, string(e.digest))) {
			return nil
		}
		return mark(tx, bucketLost, key(string(e.digest)))
	}})
}

// findManifest lets index.json name a manifest again whose file somebody has put back.
func (l *Layout) findManifest(ctx context.Context, e entry) error {
	if !l.lost(e.digest) {
		return ctx.Err()
	}
	return l.writer.commit(ctx, change{write: func(tx *bolt.Tx, _ uint64) error {
		return remove(tx, bucketLost, key(string(e.digest)))
	}})
}

// around returns the names that a manifest has in its repository, and which children of it are not there.
func (l *Layout) around(e entry) (references []string, missing []digest.Digest, err error) {
	err = l.db.View(func(tx *bolt.Tx) error {
		for _, tag := range tagsOf(tx, e.repo, e.digest) {
			references = append(references, e.repo+":"+tag)
		}
		for _, child := range e.rec.Children {
			if !isMember(tx, e.repo, child) {
				missing = append(missing, child)
			}
		}
		return nil
	})
	if len(references) == 0 {
		references = []string{e.repo + "@" + string(e.digest)}
	}
	return references, missing, err
}

// holds reports whether a manifest is a member of a repository.
func (l *Layout) holds(repo string, d digest.Digest) (held bool) {
	l.db.View(func(tx *bolt.Tx) error {
		held = has(tx, bucketManifests, key(repo, string(d)))
		return nil
	})
	return held
}

// checkTags follows every tag to its manifest.
func (c *check) checkTags(ctx context.Context) error {
	type tag struct {
		repo, name string
		rec        tagRecord
	}
	tags := pages(ctx, c.layout.db, span{bucket: bucketTags}, func(k, v []byte) (t tag, err error) {
		t.repo, t.name = firstPart(k), lastPart(k)
		return t, decode(k, v, &t.rec)
	})
	for t, err := range tags {
		if err != nil {
			return err
		}
		c.report.Tags++
		d := t.rec.Descriptor.Digest
		if c.layout.holds(t.repo, d) {
			continue
		}
		problem := berth.Problem{Kind: berth.ProblemDangling, Digest: d, References: []string{t.repo + ":" + t.name}, Detail: "the tag points at no manifest of its repository"}
		if problem.Repaired, err = c.dropDangling(ctx, t.repo, t.name, d); err != nil {
			return err
		}
		c.add(problem)
	}
	return nil
}

func (c *check) dropDangling(ctx context.Context, repo, tag string, d digest.Digest) (bool, error) {
	if !c.repair {
		return false, nil
	}
	err := c.layout.writer.commit(ctx, change{write: func(tx *bolt.Tx, gen uint64) error {
		var now tagRecord
		if _, err := get(tx, bucketTags, key(repo, tag), &now); err != nil || now.Descriptor.Digest != d || has(tx, bucketManifests, key(repo, string(d))) {
			return err
		}
		return c.layout.untag(tx, repo, tag, gen)
	}})
	return err == nil, err
}

// checkFiles counts the files of blobs/ that nothing speaks of.
func (c *check) checkFiles(ctx context.Context) error {
	known := &collection{layout: c.layout, needed: newDigestSet(), traces: newDigestSet()}
	if err := known.mark(ctx, nil); err != nil {
		return err
	}
	err := fs.WalkDir(c.layout.dir.Root().FS(), v1.ImageBlobsDir, func(name string, file fs.DirEntry, err error) error {
		if err != nil || file.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		if d := digestOf(name); !known.needed.has(d) && !c.layout.hasRecord(d) {
			c.report.Unknown++
		}
		return ctx.Err()
	})
	if c.report.Unknown > 0 && c.report.Manifests == 0 {
		c.add(berth.Problem{Kind: berth.ProblemIndex, Detail: fmt.Sprintf("no image is known, and %d files lie in blobs/: put back an index.json that names them", c.report.Unknown)})
	}
	return err
}
