package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// pageSize is how many entries are read in one transaction. None is open while the caller's loop
// body runs: an open reader stops the index file from growing, and so all writers.
const pageSize = 512

// pageBytes is how many bytes of entries are read in one transaction, or one entry: those of referrers carry
// annotations, of up to the size of a manifest.
const pageBytes = 1 << 20

var errPageFull = errors.New("the page is full")

// span is the entries of a bucket that begin with a prefix and come after a key.
type span struct{ bucket, prefix, after []byte }

// pages yields the entries of a span, page by page. read turns one into a value.
func pages[T any](ctx context.Context, db *database, s span, read func(k, v []byte) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			page, last, more, err := readPage(ctx, db, s, read)
			if err != nil {
				yield(*new(T), err)
				return
			}
			for _, v := range page {
				if !yield(v, nil) {
					return
				}
			}
			if !more {
				return
			}
			s.after = last
		}
	}
}

// readPage reads entries, and tells whether there may be more after the last.
func readPage[T any](ctx context.Context, db *database, s span, read func(k, v []byte) (T, error)) (page []T, last []byte, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, false, err
	}
	size := 0
	err = db.View(func(tx *bolt.Tx) error {
		return scan(tx, s, pageSize, func(k, v []byte) error {
			if size += len(v); size > pageBytes && len(page) > 0 {
				return errPageFull
			}
			entry, err := read(k, v)
			page, last = append(page, entry), append(last[:0], k...)
			return err
		})
	})
	if errors.Is(err, errPageFull) {
		return page, last, true, nil
	}
	return page, last, len(page) == pageSize, err
}

func (r *repository) Tags(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := r.mustExist(); err != nil {
			yield("", err)
			return
		}
		tags := span{bucketTags, prefix(r.name), key(r.name, after)}
		pages(ctx, r.layout.db, tags, func(k, _ []byte) (string, error) { return lastPart(k), nil })(yield)
	}
}

func (r *repository) mustExist() error {
	return r.layout.db.View(func(tx *bolt.Tx) error {
		if !exists(tx, r.name) {
			return fmt.Errorf("%s: %w", r.name, berth.ErrNameUnknown)
		}
		return nil
	})
}

func (r *repository) Referrers(ctx context.Context, subject digest.Digest, opts *berth.ReferrersOptions) iter.Seq2[v1.Descriptor, error] {
	if opts == nil {
		opts = &berth.ReferrersOptions{}
	}
	return func(yield func(v1.Descriptor, error) bool) {
		if err := berth.ValidateDigest(subject); err != nil {
			yield(v1.Descriptor{}, err)
			return
		}
		all := span{bucketReferrers, prefix(r.name, string(subject)), key(r.name, string(subject), string(opts.After))}
		for desc, err := range pages(ctx, r.layout.db, all, readDescriptor) {
			if err == nil && opts.ArtifactType != "" && desc.ArtifactType != opts.ArtifactType {
				continue
			}
			if !yield(desc, err) {
				return
			}
		}
	}
}

func readDescriptor(k, v []byte) (desc v1.Descriptor, err error) {
	return desc, decode(k, v, &desc)
}

// Repositories yields the repositories that hold a manifest. It skips from name to name and does not
// read what they hold.
func (l *Layout) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for {
			names, err := l.repositoriesAfter(ctx, after)
			if err != nil {
				yield("", err)
				return
			}
			for _, name := range names {
				if !yield(name, nil) {
					return
				}
				after = name
			}
			if len(names) < pageSize {
				return
			}
		}
	}
}

func (l *Layout) repositoriesAfter(ctx context.Context, after string) (names []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = l.db.View(func(tx *bolt.Tx) error {
		for len(names) < pageSize {
			next := nextRepository(tx, after)
			if next == "" {
				return nil
			}
			names = append(names, next)
			after = next
		}
		return nil
	})
	return names, err
}

// nextRepository returns the first repository after the given one that holds a manifest, or "".
func nextRepository(tx *bolt.Tx, after string) string {
	from := []byte{}
	after, _, _ = strings.Cut(after, "\x00") // which no name holds, and keys do
	if after != "" {
		from = append([]byte(after), 1) // behind every key that begins with after and a zero byte
	}
	k, _ := tx.Bucket(bucketManifests).Cursor().Seek(from)
	return firstPart(k)
}
