package ggcr

import (
	"context"
	"io"
	"io/fs"
	"sync"

	"github.com/berthoci/berth"
)

// lateReader opens a layer when it is first read. Who only looks whether a layer lies in a file of its own does
// not begin to compress it then, or to download it.
type lateReader struct {
	ctx  context.Context
	open func() (io.ReadCloser, error)

	mu      sync.Mutex // guards the fields below: a client of HTTP may close a body while it reads it
	content io.ReadCloser
	err     error
}

func (l *lateReader) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	content, err := l.opened()
	if err != nil {
		return 0, err
	}
	return content.Read(p)
}

func (l *lateReader) opened() (io.ReadCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.content != nil || l.err != nil {
		return l.content, l.err
	}
	content, err := l.open()
	if err != nil {
		l.err = inward(err, berth.ErrBlobUnknown)
		return nil, l.err
	}
	l.content = content
	return content, nil
}

func (l *lateReader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	content := l.content
	l.content, l.err = nil, fs.ErrClosed
	if content == nil {
		return nil
	}
	return content.Close()
}
