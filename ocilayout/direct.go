package ocilayout

import (
	"context"
	"hash"
	"os"
	"time"
	"unsafe"

	"github.com/berthoci/berth/internal/durable"
)

const (
	// directAfter is how much of an upload has arrived when the rest is written past the system's memory:
	// of a large blob a copy there is seldom worth what it costs to make, and what it pushes out.
	directAfter = 8 << 20
	// directTrial is after how many bytes the disk must have shown that it can be written to one piece after the other: a
	// slower one than directRate, in bytes a second, is written to through the system's memory. It is long enough that a
	// disk which only hesitates, or has several uploads at once, is not taken for a slow one: what memory costs is more.
	directTrial = 64 << 20
	directRate  = 200 << 20
	// aheadAfter is from how many bytes on a file is read ahead by a queue: for a smaller one it is not worth what it
	// takes to give the queue back, which a layout that is closed waits for.
	aheadAfter = 128 << 20
)

// direct is how an upload writes past the system's memory.
type direct struct {
	file    *os.File // nil: it does not
	refused bool
	bytes   int64
	took    time.Duration
}

// put writes p behind what has arrived.
func (u *upload) put(p []byte) (n int, err error) {
	if !u.goesDirect(p) {
		return u.writer.Write(p)
	}
	start := time.Now()
	n, err = u.repo.layout.dir.WriteAt(u.direct.file, u.path, p, u.state.size)
	u.direct.took += time.Since(start)
	u.direct.bytes += int64(n)
	if _, seekErr := u.file.Seek(u.state.size+int64(n), 0); err == nil {
		err = seekErr
	}
	return n, err
}

// goesDirect reports whether p can be written past the system's memory, and should.
func (u *upload) goesDirect(p []byte) bool {
	d := &u.direct
	if len(p) == 0 || d.refused || u.state.size < directAfter || !areUnits(p, u.state.size) {
		return false
	}
	if d.file == nil {
		var err error
		d.file, err = u.repo.layout.dir.OpenDirect(u.path, os.O_WRONLY)
		d.refused = err != nil
	}
	if d.bytes >= directTrial && float64(d.bytes) < directRate*d.took.Seconds() {
		d.end()
	}
	return !d.refused
}

// end goes on through the system's memory.
func (d *direct) end() {
	if d.file != nil {
		d.file.Close()
	}
	d.file, d.refused = nil, true
}

// areUnits reports whether p may be written or read at an offset of a file past the system's memory.
func areUnits(p []byte, at int64) bool {
	unit := at | int64(len(p)) | int64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))
	return unit%durable.DirectUnit == 0
}

// directReader reads a file that nobody changes past the system's memory, where that can be done: what was cloned is not
// in there, and to bring it there, a few pages ahead, takes longer than to hash it.
type directReader struct {
	file   *os.File
	direct *os.File // nil: it cannot be done
	at     int64
	units  int64 // how much of the file can be read so
}

// newDirectReader reads the upload's file. The caller closes it, and the file too.
func (u *upload) newDirectReader(size int64) *directReader {
	r := &directReader{file: u.file, units: size - size%durable.DirectUnit}
	if size >= directAfter {
		r.direct, _ = u.repo.layout.dir.OpenDirect(u.path, os.O_RDONLY)
	}
	return r
}

func (r *directReader) Read(p []byte) (n int, err error) {
	if left := r.units - r.at; r.direct != nil && left > 0 && areUnits(p, r.at) {
		n, err = r.direct.ReadAt(p[:min(int64(len(p)), left)], r.at)
	}
	if n == 0 { // also where a file system takes this offset or this memory not
		n, err = r.file.ReadAt(p, r.at)
	}
	r.at += int64(n)
	if n > 0 {
		err = nil // the next call has it again
	}
	return n, err
}

// hashAhead hashes a file while more of it is being read, as far as that goes. What it leaves is there to be read.
func (r *directReader) hashAhead(ctx context.Context, stock *chunks, sum hash.Hash) {
	if r.direct == nil {
		return
	}
	bufs := stock.several(chunksEach)
	defer stock.putAll(bufs)
	queue, err := newReadQueue(r.direct, bufs)
	if err != nil {
		return
	}
	defer stock.forget(queue)
	begin := func(i int) {
		if at := int64(i) * chunkSize; at < r.units {
			queue.begin(i%len(bufs), at, min(chunkSize, r.units-at))
		}
	}
	for i := range bufs {
		begin(i)
	}
	for i := 0; r.at == int64(i)*chunkSize && r.at < r.units && ctx.Err() == nil; i++ {
		read := queue.wait(i % len(bufs))
		sum.Write(read)
		r.at += int64(len(read))
		begin(i + len(bufs))
	}
}

func (r *directReader) Close() error {
	if r.direct == nil {
		return nil
	}
	return r.direct.Close()
}
