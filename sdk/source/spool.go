package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// freeSize and maxRatio bound what a compressed archive may become, in bytes and in times its own size: one that
	// is more than both is there to fill the disk.
	freeSize = 4 << 30
	maxRatio = 1000
	// maxWindow bounds the memory that a zstd archive may ask for, in bytes: what zstd --long makes needs no more.
	maxWindow = 128 << 20
)

// compressions are how files begin that some program has compressed.
var compressions = map[string]string{
	"gzip": "\x1f\x8b",
	"zstd": "\x28\xb5\x2f\xfd",
	"xz":   "\xfd7zXZ\x00",
}

// maxMagic is how much of a file tells that, in bytes.
const maxMagic = 6

// compressionOf is the program that has compressed what begins like that, or empty.
func compressionOf(head []byte) string {
	for program, magic := range compressions {
		if bytes.HasPrefix(head, []byte(magic)) {
			return program
		}
	}
	return ""
}

// openArchive opens a tar file. What cannot be read at any offset, because it is compressed or comes through a pipe, is
// read once, into a temporary file.
func openArchive(ctx context.Context, name string) (file *os.File, temporary bool, err error) {
	info, err := os.Stat(name)
	var from *os.File
	switch {
	case err != nil:
	case info.Mode().Type() == fs.ModeNamedPipe:
		from, err = openPipe(ctx, name)
	case info.Mode().IsRegular():
		from, err = os.Open(name)
	case info.IsDir():
		err = fmt.Errorf("%w: it is a directory, which %s: reads", errIrregular, FormLayout)
	default:
		err = errIrregular
	}
	if err != nil {
		return nil, false, err
	}
	if info.Mode().IsRegular() && isPlain(from) {
		return from, false, nil
	}
	defer from.Close()
	defer context.AfterFunc(ctx, func() { from.SetReadDeadline(time.Now()) })() // for a writer who says nothing
	if file, err = spool(ctx, from); err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return file, true, err
}

// isPlain reports whether a file is not compressed, as far as it can be read.
func isPlain(file io.ReaderAt) bool {
	head := make([]byte, maxMagic)
	n, _ := file.ReadAt(head, 0)
	return compressionOf(head[:n]) == ""
}

// spool writes a tar file, which may be compressed, into a temporary one.
func spool(ctx context.Context, from io.Reader) (*os.File, error) {
	in := &counted{Reader: from}
	plain, err := decompress(bufio.NewReaderSize(in, 64<<10))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	temp, err := os.CreateTemp("", "berth-archive-")
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(temporary{temp}, steady{ctx, &unpacking{in: in, Reader: plain}})
	if err != nil {
		return nil, errors.Join(err, discard(temp))
	}
	return temp, nil
}

// temporary tells where there was no room, which is not where the archive lies. The file has other methods to be
// written by, which are not to be found.
type temporary struct{ file *os.File }

func (t temporary) Write(p []byte) (int, error) {
	n, err := t.file.Write(p)
	if err != nil {
		err = fmt.Errorf("unpack it into %s: %w", filepath.Dir(t.file.Name()), sayPath(err))
	}
	return n, err
}

// discard removes a temporary file.
func discard(temp *os.File) error {
	err := errors.Join(temp.Close(), os.Remove(temp.Name()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func decompress(from *bufio.Reader) (io.ReadCloser, error) {
	head, err := from.Peek(maxMagic)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch program := compressionOf(head); program {
	case "":
		return io.NopCloser(from), nil
	case "gzip":
		decoder, err := gzip.NewReader(from)
		if err != nil {
			return nil, fmt.Errorf("%w: %w: %w", ErrArchive, errDamaged, err)
		}
		return decoder, nil
	case "zstd":
		decoder, err := zstd.NewReader(from, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return decoder.IOReadCloser(), nil
	default:
		return nil, fmt.Errorf("%w: it is compressed with %s; decompress it first", ErrArchive, program)
	}
}

var errDamaged = errors.New("it is damaged, or cut short")

// counted counts what is read.
type counted struct {
	io.Reader
	bytes int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes += int64(n)
	return n, err
}

// unpacking is what comes out of a compressed archive, until that is too much.
type unpacking struct {
	io.Reader
	in  *counted
	out int64
}

func (u *unpacking) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if u.out += int64(n); u.out > freeSize && u.out/maxRatio > u.in.bytes {
		return n, fmt.Errorf("%w: it becomes more than %d times as large when it is decompressed; decompress it first if that is meant", ErrArchive, maxRatio)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w: %w", ErrArchive, errDamaged, err)
	}
	return n, err
}
