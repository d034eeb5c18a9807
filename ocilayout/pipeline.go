package ocilayout

import (
	"errors"
	"hash"
	"io"
	"slices"
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
	room chan struct{}
	idle sync.Pool
}

func newChunks() *chunks { return &chunks{room: make(chan struct{}, maxChunks)} }

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
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	n, err := u.readSmall(r)
	if err == nil {
		var more int64
		more, err = u.readLarge(r)
		n += more
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// readSmall reads into memory, until there is too much for that or the body ends.
func (u *upload) readSmall(r io.Reader) (n int64, err error) {
	for u.file == nil && len(u.small) < smallUpload && err == nil {
		u.small = slices.Grow(u.small, 512)
		var read int
		read, err = r.Read(u.small[len(u.small):min(cap(u.small), smallUpload)])
		u.state.hash.Write(u.small[len(u.small) : len(u.small)+read])
		u.small = u.small[:len(u.small)+read]
		u.state.size += int64(read)
		n += int64(read)
	}
	return n, err
}

// readLarge reads until the body ends, chunk by chunk while there are buffers for that.
func (u *upload) readLarge(r io.Reader) (n int64, err error) {
	if err := u.ready(); err != nil {
		return 0, err
	}
	stock := u.repo.layout.chunks
	h := startHasher(stock, u.state.hash)
	for err == nil {
		buf := stock.get()
		if buf == nil {
			break
		}
		read, readErr := io.ReadFull(r, buf)
		written, writeErr := u.step(&chunk{buf: buf, data: buf[:read]}, h)
		n += int64(written)
		err = errors.Join(writeErr, readErr)
	}
	h.end()
	if err == nil {
		more, err := io.CopyBuffer(onlyWriter{u}, onlyReader{r}, make([]byte, smallUpload))
		return n + more, err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
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
