package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"

	"github.com/berthoci/berth"
)

// whole is content in memory.
type whole struct{ *bytes.Reader }

func (whole) Close() error { return nil }

// newReaderAt reads a blob at any place, as its file can if it lies in one.
func newReaderAt(blob berth.Blob) content.ReaderAt {
	size := blob.Descriptor().Size
	if at, ok := blob.(io.ReaderAt); ok {
		return file{at, blob, size}
	}
	return &seeker{blob: blob, size: size}
}

type file struct {
	io.ReaderAt
	io.Closer
	size int64
}

func (f file) Size() int64 { return f.size }

// seeker moves through a blob that has one place at a time.
type seeker struct {
	size int64

	mu     sync.Mutex // guards the fields below
	blob   berth.Blob
	offset int64 // where blob is
}

func (s *seeker) Size() int64 { return s.size }

func (s *seeker) ReadAt(p []byte, offset int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case offset < 0:
		return 0, fmt.Errorf("%s: cannot read at %d: %w", s.name(), offset, errdefs.ErrInvalidArgument)
	case offset >= s.size:
		return 0, io.EOF
	}
	n, err := s.readAt(p[:min(int64(len(p)), s.size-offset)], offset)
	switch {
	case errors.Is(err, berth.ErrDigestInvalid):
		return n, both{err, errdefs.ErrDataLoss}
	case err == nil && n < len(p):
		return n, io.EOF
	}
	return n, outward(err)
}

// readAt fills p, all of which is before the end.
func (s *seeker) readAt(p []byte, offset int64) (int, error) {
	if err := s.move(offset); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(s.blob, p)
	s.offset += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("%s: it ended at %d of %d bytes: %w", s.name(), s.offset, s.size, io.ErrUnexpectedEOF)
	case err == nil && s.offset == s.size:
		err = s.end()
	}
	return n, err
}

func (s *seeker) move(offset int64) error {
	if offset == s.offset {
		return nil
	}
	_, err := s.blob.Seek(offset, io.SeekStart)
	if err == nil {
		s.offset = offset
	}
	return err
}

// end asks for the byte after the last: where a blob is verified that is what tells the outcome.
func (s *seeker) end() error {
	n, err := s.blob.Read(make([]byte, 1))
	s.offset += int64(n)
	switch {
	case n > 0:
		return fmt.Errorf("%s: %w: more than its %d bytes came", s.name(), berth.ErrDigestInvalid, s.size)
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

func (s *seeker) name() string { return string(s.blob.Descriptor().Digest) }

func (s *seeker) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blob.Close()
}
