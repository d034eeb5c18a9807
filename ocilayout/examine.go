package ocilayout

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"

	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth/internal/durable"
)

// bbolt checks little of the file that it is given, and does part of that in a goroutine of its own,
// where a panic or a fault ends the process. So the file is examined before it is opened to be
// written.

// The layout of a meta page, as far as it is needed here: a header of 16 bytes, and then, in the
// byte order of the machine, magic, version, page size and flags (4 bytes each), root page and
// sequence, freelist page, high water mark, transaction and checksum (8 bytes each). There are two,
// on the first two pages.
const (
	metaAt       = 16
	metaLength   = 64
	metaMagic    = 0xED0CDAED
	metaPageSize = metaAt + 8
	metaHigh     = metaAt + 40
	metaChecksum = metaAt + 56
	minPage      = 1 << 10
	maxPage      = 64 << 10
)

// examine decides whether bbolt can be trusted with the file: from its meta pages and its length
// and, if that is not enough, by walking all of it.
func examine(dir *durable.Dir, size int64, clean bool) error {
	if err := examineMeta(dir, size); err != nil {
		return err
	}
	if clean {
		return nil
	}
	db, err := openGuarded(dir, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return walkBucket(b) })
	})
}

// walkBucket reads all pages of a bucket.
func walkBucket(b *bolt.Bucket) error {
	var last []byte
	return b.ForEach(func(k, v []byte) error {
		if v == nil {
			return fmt.Errorf("%w: a bucket stands where there can be none", errDamaged)
		}
		if last != nil && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("%w: its keys are out of order", errDamaged)
		}
		last = append(last[:0], k...)
		return nil
	})
}

// examineMeta checks that one of the two meta pages is whole, and that the file has all pages that
// it speaks of.
func examineMeta(dir *durable.Dir, size int64) error {
	f, err := dir.Root().Open(indexPath)
	if err != nil {
		return err
	}
	defer f.Close()
	var best meta
	for _, at := range metaPages() {
		if m, ok := readMeta(f, at); ok && (best.pageSize == 0 || m.txid > best.txid) {
			best = m
		}
	}
	if best.pageSize == 0 {
		return fmt.Errorf("%w: it has no valid header", errDamaged)
	}
	if int64(best.high) > size/int64(best.pageSize) {
		return fmt.Errorf("%w: it has %d bytes and should have %d pages of %d", errDamaged, size, best.high, best.pageSize)
	}
	return nil
}

type meta struct {
	pageSize uint32
	high     uint64
	txid     uint64
}

// metaPages are the places where a meta page may begin: the second one's depends on the page size,
// which the first one may no longer tell.
func metaPages() []int64 {
	places := []int64{0}
	for size := int64(minPage); size <= maxPage; size *= 2 {
		places = append(places, size)
	}
	return places
}

func readMeta(f io.ReaderAt, at int64) (meta, bool) {
	page := make([]byte, metaAt+metaLength)
	if _, err := f.ReadAt(page, at); err != nil {
		return meta{}, false
	}
	order := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(page[metaAt:metaChecksum])
	if order.Uint32(page[metaAt:]) != metaMagic || order.Uint64(page[metaChecksum:]) != sum.Sum64() {
		return meta{}, false
	}
	m := meta{order.Uint32(page[metaPageSize:]), order.Uint64(page[metaHigh:]), order.Uint64(page[metaHigh+8:])}
	return m, m.pageSize >= minPage && m.pageSize <= maxPage && (at == 0 || at == int64(m.pageSize))
}
