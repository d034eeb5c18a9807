package ocilayout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth/internal/durable"
)

const (
	// maxUnflushedBytes and maxUnflushedFiles are how much may wait for a flush in process mode
	// before who would add to it waits too: what a disk writes in about a second.
	maxUnflushedBytes = 256 << 20
	maxUnflushedFiles = 16 << 10
	// flushOneByOne is up to how many files are flushed each by itself. More are flushed with the
	// whole file system, in one call: that may be more than ours, but takes one round of the disk.
	flushOneByOne = 32
)

// unflushed is what lies in blobs/ and may not be on disk yet.
type unflushed struct {
	flushing sync.Mutex // one flush at a time

	mu     sync.Mutex // guards the fields below
	batch  batch
	over   chan struct{} // closed when a flush is over
	failed error         // how it ended
}

// batch is what one flush takes.
type batch struct {
	files map[string]bool
	bytes int64
	all   bool // also what an earlier process left, which is not known by name
	lost  bool // a flush has failed: the system may have dropped what it could not write
}

func newUnflushed(all bool) *unflushed {
	return &unflushed{batch: batch{files: map[string]bool{}, all: all}, over: make(chan struct{})}
}

// add notes a file before anything vouches for it.
func (u *unflushed) add(name string, size int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.batch.files[name] {
		u.batch.files[name] = true
		u.batch.bytes += size
	}
}

// full returns a channel to wait on, or nil where there is room.
func (u *unflushed) full() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.batch.bytes < maxUnflushedBytes && len(u.batch.files) < maxUnflushedFiles {
		return nil
	}
	return u.over
}

// take empties the account for a flush; give puts back what could not be flushed.
func (u *unflushed) take() batch {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.batch
	u.batch = batch{files: map[string]bool{}}
	return b
}

func (u *unflushed) give(b batch) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.Copy(u.batch.files, b.files)
	u.batch.bytes += b.bytes
	u.batch.all = u.batch.all || b.all
	u.batch.lost = u.batch.lost || b.lost
}

// end tells those who wait for room how a flush ended.
func (u *unflushed) end(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failed = err
	close(u.over)
	u.over = make(chan struct{})
}

func (u *unflushed) lastError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failed
}

// throttle waits while more is unflushed than a flush can carry. It fails where that cannot be flushed.
func (l *Layout) throttle(ctx context.Context) error {
	full := l.unflushed.full()
	if full == nil {
		return nil
	}
	l.publisher.hurry()
	select {
	case <-full:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.life.Done():
		return ErrClosed
	}
	if l.unflushed.full() == nil {
		return nil
	}
	return l.unflushed.lastError()
}

// flushBlobs puts all blobs on disk that were stored before the call, also those that another call has
// begun with.
func (l *Layout) flushBlobs() error {
	l.unflushed.flushing.Lock()
	defer l.unflushed.flushing.Unlock()
	b := l.unflushed.take()
	if len(b.files) == 0 && !b.all {
		return nil
	}
	err := l.flushBatch(b)
	if err != nil {
		b.lost = true
		l.unflushed.give(b)
	}
	l.unflushed.end(err)
	return err
}

func (l *Layout) flushBatch(b batch) error {
	if b.lost {
		return l.rewriteBatch(b)
	}
	if b.all || len(b.files) > flushOneByOne {
		err := l.dir.SyncAll()
		if !errors.Is(err, durable.ErrNoSyncAll) {
			return err
		}
	}
	if b.all {
		return l.flushEverything(b)
	}
	return l.flushFiles(slices.Collect(maps.Keys(b.files)))
}

// flushFiles flushes files and the directories that they are in.
func (l *Layout) flushFiles(names []string) error {
	folders := map[string]bool{}
	for _, name := range names {
		if err := l.dir.SyncPath(name); err != nil {
			return err
		}
		folders[path.Dir(name)] = true
	}
	for folder := range folders {
		if err := l.dir.SyncDir(folder); err != nil {
			return err
		}
	}
	return nil
}

// flushEverything flushes each file of the layout, where the system has no call for all. It notes in the
// batch which one failed.
func (l *Layout) flushEverything(b batch) error {
	return fs.WalkDir(l.dir.Root().FS(), v1.ImageBlobsDir, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return l.dir.SyncDir(name)
		case entry.Type().IsRegular():
			err = l.dir.SyncPath(name)
			if err != nil {
				b.files[name] = true
			}
			return err
		}
		return nil
	})
}

// rewriteBatch writes files anew that could not be flushed. Flushing them again would succeed and mean
// nothing: the system reports a write that failed once, and takes the bytes for written from then on.
func (l *Layout) rewriteBatch(b batch) error {
	for name := range b.files {
		if err := l.rewrite(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write %s once more: %w", l.path(name), err)
		}
	}
	if b.all {
		return l.flushEverything(b)
	}
	return nil
}

// rewrite replaces a blob's file by a copy that is flushed, while its bytes are still in memory. One whose
// bytes are gone already is put aside, if they were vouched for: it is unknown until it is pushed again.
// What came from outside is only flushed where it is not what its name says.
func (l *Layout) rewrite(name string) error {
	in, err := l.openRegular(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	temp := ingestPath + "/" + durable.TempPrefix + rand.Text()
	out, err := l.dir.Create(temp, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	verifier := digestOf(name).Verifier()
	if _, err = io.Copy(io.MultiWriter(l.dir.Writer(out, temp), verifier), in); err == nil {
		err = l.dir.SyncFile(out, temp)
	}
	if err == nil && verifier.Verified() {
		return l.dir.Rename(temp, name)
	}
	l.dir.Root().Remove(temp)
	if err != nil {
		return err
	}
	if !l.vouched(digestOf(name)) {
		return l.dir.SyncFile(in, name)
	}
	l.log.Error("a blob could not be written to disk, and its bytes are lost: push it again", "digest", digestOf(name))
	return l.quarantine(name)
}

// vouched reports whether the index says that a blob's bytes were hashed here.
func (l *Layout) vouched(d digest.Digest) (vouched bool) {
	l.db.View(func(tx *bolt.Tx) error {
		var rec blobRecord
		found, err := get(tx, bucketBlobs, key(string(d)), &rec)
		vouched = found && !rec.Unverified
		return err
	})
	return vouched
}

// settle puts on disk all that the layout holds, and the index with it.
func (l *Layout) settle() error {
	if err := l.flushBlobs(); err != nil {
		return err
	}
	return l.dir.Step(durable.OpSync, indexPath, l.db.bolt.Sync)
}
