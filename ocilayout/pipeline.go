package ocilayout

import (
	"cmp"
	"errors"
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

const (
	// chunkSize is the step in which a large body is read, hashed and written.
	chunkSize = 1 << 20
	// maxChunks bounds the memory that all uploads together take for that.
	maxChunks = 16
	// chunksEach is how many one upload may have, while others get theirs.
	chunksEach = 4
)

// chunks is a bounded stock of buffers that uploads share.
type chunks struct {
	room  chan struct{}
	idle  sync.Pool
	small sync.Pool // of buffers for small bodies
}

func newChunks() *chunks {
	c := &chunks{room: make(chan struct{}, maxChunks)}
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
	if buf, ok := c.idle.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, chunkSize)
}

func (c *chunks) put(buf []byte) {
	c.idle.Put(&buf)
	<-c.room
}

// chunk is one step of a body. It is hashed and written at the same time, and its buffer is free when
// both is done.
type chunk struct {
	buf  []byte
	data []byte
	open atomic.Int32
}

// hasher hashes chunks in the order in which they come, in a goroutine of its own.
type hasher struct {
	stock *chunks
	queue chan *chunk
	done  chan struct{}
}

func startHasher(stock *chunks, sum hash.Hash) *hasher {
	h := &hasher{stock: stock, queue: make(chan *chunk, chunksEach-2), done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for c := range h.queue {
			sum.Write(c.data)
			h.release(c)
		}
	}()
	return h
}

func (h *hasher) release(c *chunk) {
	if c.open.Add(-1) == 0 {
		h.stock.put(c.buf)
	}
}

// end waits until all is hashed.
func (h *hasher) end() {
	close(h.queue)
	<-h.done
}

// ReadFrom appends all of r. A body that is not small is hashed on another core than it is read and
// written on.
func (u *upload) ReadFrom(r io.Reader) (n int64, err error) {
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
	stock := u.repo.layout.chunks
	h := startHasher(stock, u.state.hash)
	defer h.end()
	for err == nil {
		buf := stock.get()
		if buf == nil {
			return n, nil
		}
		// The file is written in whole chunks, which its pages in memory then are too.
		data := buf[:chunkSize-u.state.size%chunkSize]
		read, readErr := io.ReadFull(r, data)
		written, writeErr := u.step(&chunk{buf: buf, data: buf[:read]}, h)
		n += int64(written)
		err = cmp.Or(writeErr, endOf(readErr))
	}
	return n, err
}

// readRest reads with little memory.
func (u *upload) readRest(r io.Reader) (int64, error) {
	buf := u.repo.layout.chunks.small.Get().(*[]byte)
	defer u.repo.layout.chunks.small.Put(buf)
	return io.CopyBuffer(onlyWriter{u}, onlyReader{r}, *buf)
}

// endOf is the error of a reading that may end anywhere.
func endOf(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// step hashes and writes one chunk.
func (u *upload) step(c *chunk, h *hasher) (int, error) {
	c.open.Store(2)
	h.queue <- c
	written, err := u.writeFile(c.data)
	h.release(c)
	u.state.size += int64(written)
	if err != nil {
		u.unsound = true // the hash has seen more than the file has
	}
	return written, u.failed(err)
}

// onlyWriter hides ReadFrom, onlyReader hides WriteTo.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
