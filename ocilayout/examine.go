package ocilayout

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"

	"github.com/berthoci/berth/internal/durable"
)

// bbolt checks little of the file that it is given, and does part of that in a goroutine of its own,
// where a panic or a fault ends the process. So the file is examined before it is opened.

// The layout of a meta page, as far as it is needed here: a header of 16 bytes, and then, in the
// byte order of the machine, magic, version, page size and flags (4 bytes each), root page and
// sequence, freelist page, high water mark, transaction and checksum (8 bytes each). There are two,
// on the first two pages.
const (
	metaAt       = pageHeader
	metaLength   = 64
	metaMagic    = 0xED0CDAED
	metaVersion  = metaAt + 4
	metaPageSize = metaAt + 8
	metaRoot     = metaAt + 16
	metaFreelist = metaAt + 32
	metaHigh     = metaAt + 40
	metaTxid     = metaAt + 48
	metaChecksum = metaAt + 56
	minPage      = 1 << 10
	maxPage      = 64 << 10
)

// examine decides whether bbolt can be trusted with the file: from its meta pages and its length
// and, unless it was closed well, by walking all of it.
func examine(dir *durable.Dir, size int64, clean bool) error {
	f, err := dir.Root().Open(indexPath)
	if err != nil {
		return err
	}
	defer f.Close()
	best, err := bestMeta(f, size)
	if err != nil || clean {
		return err
	}
	return walkPages(f, best)
}

// bestMeta returns the newer one of the meta pages that are whole, and checks that the file has all pages
// that it speaks of.
func bestMeta(f io.ReaderAt, size int64) (best meta, err error) {
	for _, at := range metaPages() {
		if m, ok := readMeta(f, at); ok && (best.pageSize == 0 || m.txid > best.txid) {
			best = m
		}
	}
	if best.pageSize == 0 {
		return best, fmt.Errorf("%w: it has no valid header", errDamaged)
	}
	if int64(best.high) > size/int64(best.pageSize) {
		return best, fmt.Errorf("%w: it has %d bytes and should have %d pages of %d", errDamaged, size, best.high, best.pageSize)
	}
	return best, nil
}

type meta struct {
	pageSize uint32
	root     uint64
	freelist uint64
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
	if order.Uint32(page[metaAt:]) != metaMagic || order.Uint64(page[metaChecksum:]) != metaSum(page) {
		return meta{}, false
	}
	m := meta{order.Uint32(page[metaPageSize:]), order.Uint64(page[metaRoot:]), order.Uint64(page[metaFreelist:]),
		order.Uint64(page[metaHigh:]), order.Uint64(page[metaTxid:])}
	return m, m.pageSize >= minPage && m.pageSize <= maxPage && (at == 0 || at == int64(m.pageSize))
}

// emptyPages is a file with nothing in it, as bbolt begins one: two meta pages, a list of no free pages, and a
// leaf without elements, which is the root.
func emptyPages(size int) []byte {
	const version, freelist, root = 2, 2, 3
	order, kinds := binary.NativeEndian, []uint16{kindMeta, kindMeta, kindFreelist, kindLeaf}
	data := make([]byte, len(kinds)*size)
	for i, kind := range kinds {
		page := data[i*size:]
		order.PutUint64(page, uint64(i))
		order.PutUint16(page[8:], kind)
		if kind != kindMeta {
			continue
		}
		order.PutUint32(page[metaAt:], metaMagic)
		order.PutUint32(page[metaVersion:], version)
		order.PutUint32(page[metaPageSize:], uint32(size))
		order.PutUint64(page[metaRoot:], root)
		order.PutUint64(page[metaFreelist:], freelist)
		order.PutUint64(page[metaHigh:], uint64(len(kinds)))
		order.PutUint64(page[metaTxid:], uint64(i))
		order.PutUint64(page[metaChecksum:], metaSum(page))
	}
	return data
}

// metaSum is the checksum that belongs into a meta page.
func metaSum(page []byte) uint64 {
	sum := fnv.New64a()
	sum.Write(page[metaAt:metaChecksum])
	return sum.Sum64()
}
