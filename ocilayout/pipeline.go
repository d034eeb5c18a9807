package ocilayout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

const (
	// chunkSize is the step in which a large body is read, hashed and written.
	chunkSize = 1 << 20
	// chunksEach is how many one upload may have, while others get theirs.
	chunksEach = 4
	// minUploads and maxUploads bound for how many uploads there are as many, and so the memory that all together take:
	// there are for one on each core.
	minUploads, maxUploads = 4, 16
)

// chunks is a bounded stock of buffers that uploads share.
type chunks struct {
	room  chan struct{} // full where all are taken
	idle  chan []byte
	small sync.Pool // of buffers for small bodies
	// ending is held by each read queue that the system is about to forget.
	ending *semaphore.Weighted

	mu   sync.Mutex // guards the field below
	slab []byte     // what no buffer was made of yet; nil: nothing is there
}

func newChunks() *chunks {
	most := chunksEach * min(max(minUploads, runtime.GOMAXPROCS(0)), maxUploads)
	c := &chunks{room: make(chan struct{}, most), idle: make(chan []byte, most), ending: semaphore.NewWeighted(maxUploads)}
	c.small.New = func() any {
		buf := make([]byte, smallUpload)
		return &buf
	}
	return c
}

// get returns a buffer, or nil where all are taken: a client that sends nothing may hold one for long,
// and nobody is to wait for that.
func (c *chunks) get() []byte {
	select {
	case c.room <- struct{}{}:
	default:
		return nil
	}
	select {
	case buf := <-c.idle:
		return buf
	default:
		return c.make()
	}
}

// several returns so many buffers, or fewer where others are taken.
func (c *chunks) several(most int) (bufs [][]byte) {
	for range most {
		if buf := c.get(); buf != nil {
			bufs = append(bufs, buf)
		}
	}
	return bufs
}

func (c *chunks) putAll(bufs [][]byte) {
	for _, buf := range bufs {
		c.put(buf)
	}
}

// forget gives a queue back, when its reads have ended, without making anybody wait for that but close.
func (c *chunks) forget(queue *readQueue) {
	queue.end()
	if !c.ending.TryAcquire(1) { // too many are at it, or all is over
		queue.forget()
		return
	}
	go func() {
		defer c.ending.Release(1)
		queue.forget()
	}()
}

// close waits for the queues that were given back.
func (c *chunks) close() {
	c.ending.Acquire(context.Background(), maxUploads)
}

// make makes a buffer that there was not. There are never more than the slab has.
func (c *chunks) make() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slab == nil {
		c.slab = c.newSlab(cap(c.room) * chunkSize)
	}
	buf := c.slab[:chunkSize:chunkSize]
	c.slab = c.slab[chunkSize:]
	return buf
}

func (c *chunks) put(buf []byte) {
	c.idle <- buf
	<-c.room
}

// chunk is one step of a body. It is hashed and written at the same time, and its buffer is free when
// both are done.
type chunk struct {
	buf  []byte
	data []byte
	open atomic.Int32
}

// stage does one thing with chunks in the order in which they come, in a goroutine of its own. After an
// error it does nothing more with them.
type stage struct {
	stock  *chunks
	queue  chan *chunk
	done   chan struct{}
	failed atomic.Bool
	err    error // to be read when done is closed
}

func startStage(stock *chunks, work func([]byte) error) *stage {
	s := &stage{stock: stock, queue: make(chan *chunk, chunksEach-2), done: make(chan struct{})}
	go s.run(work)
	return s
}

func startHashing(stock *chunks, sum hash.Hash) *stage {
	return startStage(stock, func(data []byte) error {
		_, err := sum.Write(data)
		return err
	})
}

func (s *stage) run(work func([]byte) error) {
	defer close(s.done)
	for c := range s.queue {
		if s.err == nil {
			s.err = work(c.data)
			s.failed.Store(s.err != nil)
		}
		if c.open.Add(-1) == 0 {
			s.stock.put(c.buf)
		}
	}
}

// end waits until all is done.
func (s *stage) end() error {
	close(s.queue)
	<-s.done
	return s.err
}

// feed reads r in chunks, each of which all stages get, while there are buffers for that and none of them has failed.
// It returns io.EOF at the end of r. The chunks end where those of a file do that begins at an offset before: then the
// pages of that file are whole ones.
func (c *chunks) feed(r io.Reader, at int64, stages ...*stage) (n int64, err error) {
	failed := func(s *stage) bool { return s.failed.Load() }
	for err == nil && !slices.ContainsFunc(stages, failed) {
		buf := c.get()
		if buf == nil {
			break
		}
		read, readErr := io.ReadFull(r, buf[:chunkSize-(at+n)%chunkSize])
		one := &chunk{buf: buf, data: buf[:read]}
		one.open.Store(int32(len(stages)))
		for _, s := range stages {
			s.queue <- one
		}
		n += int64(read)
		err = endOf(readErr)
	}
	return n, err
}

// ReadFrom appends all of r. A body that is not small is read, hashed and written at the same time.
func (u *upload) ReadFrom(r io.Reader) (n int64, err error) {
	r = ownEnd{r}
	for _, read := range []func(io.Reader) (int64, error){u.readSmall, u.readChunks, u.readRest} {
		var more int64
		more, err = read(r)
		if n += more; err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// readSmall reads what a small body has. It returns io.EOF if that was all.
func (u *upload) readSmall(r io.Reader) (int64, error) {
	buf := u.repo.layout.chunks.small.Get().(*[]byte)
	defer u.repo.layout.chunks.small.Put(buf)
	read, err := io.ReadFull(r, *buf)
	written, writeErr := u.Write((*buf)[:read])
	return int64(written), cmp.Or(writeErr, endOf(err))
}

// readChunks reads while there are buffers for that. It returns io.EOF at the end of the body.
func (u *upload) readChunks(r io.Reader) (n int64, err error) {
	stock, sum, begin := u.repo.layout.chunks, u.state.hash, u.state.size
	hashing := startHashing(stock, sum)
	writing := startStage(stock, u.writeChunk)
	_, err = stock.feed(r, begin, hashing, writing)
	writeErr := writing.end()
	hashing.end()
	if writeErr != nil {
		u.unsound = true // the hash has seen more than the file has
	}
	return u.state.size - begin, cmp.Or(u.failed(writeErr), err)
}

func (u *upload) writeChunk(data []byte) error {
	written, err := u.writeFile(data)
	u.state.size += int64(written)
	return err
}

// readRest reads with little memory.
func (u *upload) readRest(r io.Reader) (int64, error) {
	buf := u.repo.layout.chunks.small.Get().(*[]byte)
	defer u.repo.layout.chunks.small.Put(buf)
	return io.CopyBuffer(onlyWriter{u}, onlyReader{r}, *buf)
}

// endOf is the error of io.ReadFull from an ownEnd, where that may end anywhere.
func endOf(err error) error {
	if err == io.ErrUnexpectedEOF {
		return io.EOF
	}
	return err
}

// ownEnd tells a body that was cut off, which is the reader's io.ErrUnexpectedEOF, from one that ends before a buffer is full,
// which is that of io.ReadFull.
type ownEnd struct{ io.Reader }

func (r ownEnd) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("the body is cut off: %w", err)
	}
	return n, err
}

// onlyWriter hides ReadFrom, onlyReader hides WriteTo.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
