package ocilayout

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// The pages of a bbolt file, as far as they are needed here. A page begins with its number (8 bytes),
// its kind (2), a count of elements (2) and how many more pages belong to it (4). A branch has elements
// of position, key length (4 bytes each) and child (8); a leaf of flags, position, key length and value
// length (4 bytes each). Positions count from the element. The value of a leaf's element that is a bucket
// begins with the bucket's root page and a sequence (8 bytes each); root 0 means that a leaf follows.
const (
	pageHeader   = 16
	pageElement  = 16
	bucketHeader = 16
	kindBranch   = 0x01
	kindLeaf     = 0x02
	kindMeta     = 0x04
	kindFreelist = 0x10
	isBucket     = 0x01
	noFreelist   = math.MaxUint64
	manyFree     = math.MaxUint16 // the count of free pages is in the first of them
	maxLevels    = 64
)

// walk goes through all pages that a meta page leads to, and finds what bbolt would trip over: a page that
// is not what leads to it says, that is reached twice, or whose elements lie outside; keys out of order.
type walk struct {
	file    io.ReaderAt
	meta    meta
	reached []uint64 // a bit for each page
}

// walkPages examines the file that a meta page speaks of.
func walkPages(f io.ReaderAt, m meta) error {
	w := &walk{f, m, make([]uint64, m.high/64+1)}
	if err := w.tree(m.root, maxLevels, &order{}, w.bucket); err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return nil
	}
	return w.freelist()
}

// order is what the keys of one tree must keep to.
type order struct {
	last  []byte // the last key of a leaf
	least []byte // what the branches say of the next
}

func (o *order) check(k []byte) error {
	if o.last != nil && bytes.Compare(k, o.last) <= 0 || bytes.Compare(k, o.least) < 0 {
		return damaged("its keys are out of order")
	}
	return nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errDamaged}, args...)...)
}

// tree walks a page and all below it, and gives each value to visit.
func (w *walk) tree(id uint64, levels int, keys *order, visit func(flags uint32, value []byte) error) error {
	page, err := w.page(id)
	if err != nil {
		return err
	}
	switch kind := binary.NativeEndian.Uint16(page[8:]); {
	case kind == kindLeaf:
		return leaf(page, keys, visit)
	case kind != kindBranch || levels == 0:
		return damaged("page %d is of kind %#x", id, kind)
	}
	if binary.NativeEndian.Uint16(page[10:]) == 0 {
		return damaged("page %d leads nowhere", id)
	}
	return elements(page, func(e []byte) (length int, err error) {
		k, err := part(e, e[0:], e[4:], 0)
		if err == nil {
			err = keys.check(k)
		}
		if err != nil {
			return 0, err
		}
		keys.least = bytes.Clone(k)
		return len(k), w.tree(binary.NativeEndian.Uint64(e[8:]), levels-1, keys, visit)
	})
}

// leaf walks the elements of a leaf.
func leaf(page []byte, keys *order, visit func(flags uint32, value []byte) error) error {
	return elements(page, func(e []byte) (length int, err error) {
		k, err := part(e, e[4:], e[8:], 0)
		if err != nil {
			return 0, err
		}
		value, err := part(e, e[4:], e[12:], len(k))
		if err == nil {
			err = keys.check(k)
		}
		if err != nil {
			return 0, err
		}
		keys.last = bytes.Clone(k)
		return len(k) + len(value), visit(binary.NativeEndian.Uint32(e), value)
	})
}

// elements calls visit with each element of a page, and what follows it. What the elements speak of lies
// behind them, without gaps: visit returns its length.
func elements(page []byte, visit func(e []byte) (length int, err error)) error {
	count := int(binary.NativeEndian.Uint16(page[10:]))
	next := pageHeader + count*pageElement
	if next > len(page) {
		return damaged("a page has %d elements", count)
	}
	branch := binary.NativeEndian.Uint16(page[8:]) == kindBranch
	for i := range count {
		at := pageHeader + i*pageElement
		position := page[at:]
		if !branch {
			position = page[at+4:]
		}
		if uint64(at)+uint64(binary.NativeEndian.Uint32(position)) != uint64(next) {
			return damaged("an element is out of its place")
		}
		length, err := visit(page[at:])
		if err != nil {
			return err
		}
		next += length
	}
	return nil
}

// part is the bytes of an element that two fields of it, a position and a length, speak of.
func part(e, position, length []byte, skip int) ([]byte, error) {
	from := uint64(binary.NativeEndian.Uint32(position)) + uint64(skip)
	to := from + uint64(binary.NativeEndian.Uint32(length))
	if from < pageElement || to > uint64(len(e)) {
		return nil, damaged("an element lies outside its page")
	}
	return e[from:to], nil
}

// bucket walks a bucket of the index, whose values are no buckets.
func (w *walk) bucket(flags uint32, value []byte) error {
	if flags != isBucket || len(value) < bucketHeader {
		return damaged("where a bucket should be there is none")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.tree(root, maxLevels, &order{}, record)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint16(inline[8:]) != kindLeaf {
		return damaged("a small bucket is no leaf")
	}
	return leaf(inline, &order{}, record)
}

// record checks the value of a bucket's element.
func record(flags uint32, value []byte) error {
	if flags != 0 {
		return damaged("a bucket stands where there can be none")
	}
	if len(value) > 0 && value[0] == '{' && !json.Valid(value) {
		return damaged("a record does not parse")
	}
	return nil
}

// freelist checks the list of free pages, none of which may be in use.
func (w *walk) freelist() error {
	page, err := w.page(w.meta.freelist)
	if err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(page[8:]) != kindFreelist {
		return damaged("its list of free pages is none")
	}
	count, free := uint64(binary.NativeEndian.Uint16(page[10:])), page[pageHeader:]
	if count == manyFree {
		count, free = binary.NativeEndian.Uint64(free), free[8:]
	}
	if count > uint64(len(free)/8) {
		return damaged("its list of free pages is too long")
	}
	for i := range count {
		if err := w.reach(binary.NativeEndian.Uint64(free[i*8:])); err != nil {
			return err
		}
	}
	return nil
}

// page reads a page, with those that belong to it.
func (w *walk) page(id uint64) ([]byte, error) {
	if err := w.reach(id); err != nil {
		return nil, err
	}
	page := make([]byte, w.meta.pageSize)
	if err := w.read(page, id); err != nil {
		return nil, err
	}
	more := uint64(binary.NativeEndian.Uint32(page[12:]))
	if binary.NativeEndian.Uint64(page) != id {
		return nil, damaged("page %d is another", id)
	}
	if more == 0 {
		return page, nil
	}
	for next := id + 1; next <= id+more; next++ {
		if err := w.reach(next); err != nil {
			return nil, err
		}
	}
	page = make([]byte, (more+1)*uint64(w.meta.pageSize))
	return page, w.read(page, id)
}

func (w *walk) read(page []byte, id uint64) error {
	_, err := w.file.ReadAt(page, int64(id)*int64(w.meta.pageSize))
	if errors.Is(err, io.EOF) {
		return damaged("page %d is not there", id)
	}
	return err
}

// reach notes that a page is used, which may be so once. The first two are meta pages.
func (w *walk) reach(id uint64) error {
	if id < 2 || id >= w.meta.high {
		return damaged("it leads to page %d of %d", id, w.meta.high)
	}
	word, bit := &w.reached[id/64], uint64(1)<<(id%64)
	if *word&bit != 0 {
		return damaged("page %d is used twice", id)
	}
	*word |= bit
	return nil
}
