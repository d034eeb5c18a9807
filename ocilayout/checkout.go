package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth/internal/control"
)

// heldPath is where blobs have a second name while a directory is checked out.
const heldPath = control.Dir + "/held"

// Checkout implements [berth.Checkouter]. A program that removes what index.json does not lead to,
// as a garbage collector does, removes no blob of an image whose manifest is still to be pushed: those
// have a second name meanwhile, and so have all that a client was told of within the grace period.
//
// Pushes and deletes wait until done is called, which must be; reading goes on. What the program took
// out of index.json leaves the layout, and so does what it deleted.
func (l *Layout) Checkout(ctx context.Context) (done func(context.Context) error, err error) {
	held, let, err := l.holdStill(ctx)
	var before absent
	if err == nil {
		if before, err = l.prepareCheckout(held); err != nil {
			err = errors.Join(err, l.restoreHeld())
			let()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("check out %s: %w", l.dir.Root().Name(), err)
	}
	abandoned := context.AfterFunc(l.life, let)
	return func(ctx context.Context) error {
		if !abandoned() {
			return ErrClosed
		}
		defer let()
		return l.endCheckout(ctx, before)
	}, nil
}

// absent is what the index speaks of and is not there.
type absent struct{ manifests, blobs []entry }

// since leaves out what was absent before.
func (a absent) since(before absent) absent {
	return absent{newSince(a.manifests, before.manifests), newSince(a.blobs, before.blobs)}
}

func newSince(now, before []entry) (since []entry) {
	known := map[string]bool{}
	for _, e := range before {
		known[e.repo+"@"+string(e.digest)] = true
	}
	for _, e := range now {
		if !known[e.repo+"@"+string(e.digest)] {
			since = append(since, e)
		}
	}
	return since
}

// holdStill waits for what is being written, and keeps everybody from writing until let is called.
func (l *Layout) holdStill(ctx context.Context) (_ context.Context, let func(), err error) {
	ctx, end, err := l.maintain(ctx)
	if err != nil {
		return nil, nil, err
	}
	// Most of what is to be flushed is flushed while others still may write.
	if err := l.publisher.flush(ctx); err != nil {
		end()
		return nil, nil, err
	}
	resume, err := l.writer.hold(ctx)
	if err != nil {
		end()
		return nil, nil, err
	}
	if err := l.publisher.turn.Acquire(ctx, 1); err != nil {
		resume()
		end()
		return nil, nil, err
	}
	return ctx, sync.OnceFunc(func() {
		l.publisher.turn.Release(1)
		resume()
		end()
	}), nil
}

// prepareCheckout brings the directory up to date, and gives a second name to what index.json does not
// lead to. It returns what is missing already.
func (l *Layout) prepareCheckout(ctx context.Context) (before absent, err error) {
	if err := l.publisher.flushInTurn(ctx); err != nil {
		return before, err
	}
	if err := errors.Join(l.restoreHeld(), l.dir.MkdirAll(heldPath, 0o700)); err != nil {
		return before, err
	}
	if err := l.holdUnnamed(ctx); err != nil {
		return before, err
	}
	return l.absent(ctx)
}

func (l *Layout) holdUnnamed(ctx context.Context) error {
	c := &collection{layout: l, needed: newDigestSet(), traces: newDigestSet(), named: true}
	if err := c.mark(ctx, nil); err != nil {
		return err
	}
	told := time.Now().Add(-l.recent.grace)
	for b, err := range pages(ctx, l.db, span{bucket: bucketBlobs}, readBlobEntry) {
		if err != nil {
			return err
		}
		if b.digest == "" || c.needed.has(b.digest) && !l.recent.touched(b.digest, told) {
			continue
		}
		if err := l.holdBlob(b.digest); err != nil {
			return err
		}
	}
	return nil
}

// holdBlob gives a blob's file a second name.
func (l *Layout) holdBlob(d digest.Digest) error {
	err := l.dir.Root().Link(blobPath(d), heldPath+"/"+strings.Replace(string(d), ":", "-", 1))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// endCheckout takes in what was done to the directory.
func (l *Layout) endCheckout(ctx context.Context, before absent) error {
	l.dir.Refresh()
	if err := l.restoreHeld(); err != nil {
		return err
	}
	l.publisher.exact = true
	defer func() { l.publisher.exact = false }()
	if err := l.publisher.mergeOutside(ctx); err != nil {
		return err
	}
	now, err := l.absent(ctx)
	if err != nil {
		return err
	}
	if err := l.drop(ctx, now.since(before)); err != nil {
		return err
	}
	return l.publisher.flushInTurn(ctx)
}

// restoreHeld gives the blobs that were removed their name back. It runs at each start too: who
// checked out may have been killed.
func (l *Layout) restoreHeld() error {
	entries, err := fs.ReadDir(l.dir.Root().FS(), heldPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		held := heldPath + "/" + e.Name()
		d := digest.Digest(strings.Replace(e.Name(), "-", ":", 1))
		if err := d.Validate(); err != nil {
			continue // not ours
		}
		err := l.dir.MkdirAll(path.Dir(blobPath(d)), 0o755) // which a program may have removed
		if err == nil {
			err = l.dir.MoveNew(held, blobPath(d))
		}
		if errors.Is(err, fs.ErrExist) {
			err = l.dir.Remove(held)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// absent returns the manifests and blobs whose files are gone.
func (l *Layout) absent(ctx context.Context) (now absent, err error) {
	if now.manifests, err = l.missing(ctx, bucketManifests, readManifestEntry); err != nil {
		return now, err
	}
	now.blobs, err = l.missing(ctx, bucketBlobs, readBlobEntry)
	return now, err
}

// drop forgets what was deleted.
func (l *Layout) drop(ctx context.Context, gone absent) error {
	if len(gone.manifests)+len(gone.blobs) == 0 {
		return nil
	}
	return l.writer.commitAlways(ctx, change{write: func(tx *bolt.Tx, gen uint64) error {
		for _, m := range gone.manifests {
			if err := l.expel(tx, m.repo, m.digest, &m.rec, gen); err != nil {
				return err
			}
		}
		for _, b := range gone.blobs {
			if err := forgetBlob(tx, b.digest); err != nil {
				return err
			}
		}
		return nil
	}})
}

// missing returns the entries of a bucket whose files are gone.
func (l *Layout) missing(ctx context.Context, bucket []byte, read func(k, v []byte) (entry, error)) (gone []entry, err error) {
	for e, err := range pages(ctx, l.db, span{bucket: bucket}, read) {
		if err != nil {
			return nil, err
		}
		if e.digest == "" {
			continue
		}
		if _, err := l.dir.Root().Lstat(blobPath(e.digest)); errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, e)
		}
	}
	return gone, nil
}
