package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk/sync"
)

// minImport is from how many bytes on a blob is taken from its file: smaller ones are sent in as little time.
const minImport = 64 << 10

// layoutTarget is a repository of the layout as the target of a copy. What another repository has is taken from there, and
// what lies in files of this machine from these, by who serves the layout.
type layoutTarget struct {
	sync.Target
	session    *host.Session
	repository string
	link       bool
}

func (t *layoutTarget) PutBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (sync.Action, error) {
	if desc.Size < minImport {
		return t.Target.PutBlob(ctx, desc, open)
	}
	action, err := t.importFrom(ctx, desc, berth.LocalFile{Size: desc.Size}) // before the source is asked, which may be far away
	if errors.Is(err, berth.ErrUnsupported) {
		action, err = t.take(ctx, desc, open)
	}
	if errors.Is(err, berth.ErrUnsupported) {
		return t.Target.PutBlob(ctx, desc, open)
	}
	return action, err
}

func (t *layoutTarget) importFrom(ctx context.Context, desc v1.Descriptor, file berth.LocalFile) (sync.Action, error) {
	method, err := t.session.Import(ctx, t.repository, desc.Digest, file)
	return sync.Action(method), err
}

// take keeps the file open meanwhile, so that its numbers are not given to another one.
//
// Errors: berth.ErrUnsupported for what has to be sent.
func (t *layoutTarget) take(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (sync.Action, error) {
	content, err := open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	file, ok := locate(content)
	if !ok {
		return "", berth.ErrUnsupported
	}
	file.Link = file.Link || t.link
	action, err := t.importFrom(ctx, desc, file)
	if err != nil {
		return "", fmt.Errorf("take it from its file: %w", err)
	}
	return action, nil
}
