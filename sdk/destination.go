package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	gosync "sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
)

// asTarget is a place as the target of a copy.
func asTarget(to source.Destination) sync.Target {
	if target, ok := to.(sync.Target); ok {
		return target
	}
	return destination{to}
}

type destination struct{ to source.Destination }

func (d destination) Has(ctx context.Context, desc v1.Descriptor) (bool, error) {
	return d.to.Has(ctx, desc)
}

func (d destination) PutBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (sync.Action, error) {
	content, err := open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	file, local := locate(content)
	if into, ok := d.to.(source.Importer); ok && local {
		method, err := into.PutFile(ctx, desc, file)
		if !errors.Is(err, berth.ErrUnsupported) {
			return sync.Action(method), err
		}
	}
	action := sync.Sent
	if local {
		action = sync.Copied
	}
	return action, d.to.Put(ctx, desc, content)
}

func (d destination) PutManifest(ctx context.Context, desc v1.Descriptor, raw []byte, _ bool) error {
	return d.to.Put(ctx, desc, bytes.NewReader(raw))
}

// locate is where content lies that is open, if it lies in a file of this machine.
func locate(content io.Reader) (berth.LocalFile, bool) {
	located, ok := content.(berth.Located)
	if !ok {
		return berth.LocalFile{}, false
	}
	return located.LocalFile()
}

// destination is a tag of a remote registry as a place.
func (m *Images) destination(ref string) (source.Destination, error) {
	found, err := m.locate(ref)
	if err != nil {
		return nil, err
	}
	if found.ref.Digest != "" {
		return nil, fmt.Errorf("%s: %w: what goes there gets a tag; leave out the digest", ref, berth.ErrTagInvalid)
	}
	return &tagged{location: found, Target: sync.ToRepository(found.repo, nil, nil)}, nil
}

// tagged is a tag of a registry, which is set to the manifest that was put last. Copies go to it as to any repository,
// which can begin a blob anew where a connection has lost some of it.
type tagged struct {
	location
	sync.Target

	mu   gosync.Mutex // guards the field below
	last berth.Manifest
}

func (t *tagged) PutManifest(ctx context.Context, desc v1.Descriptor, raw []byte, root bool) error {
	if err := t.Target.PutManifest(ctx, desc, raw, root); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = berth.Manifest{Descriptor: desc, Raw: raw}
	return nil
}

func (t *tagged) Put(ctx context.Context, desc v1.Descriptor, content io.Reader) error {
	if manifest.KindOf(desc.MediaType) == 0 {
		return t.putOnce(ctx, desc, content)
	}
	raw, err := io.ReadAll(io.LimitReader(content, berth.MaxManifestSize+1))
	if err == nil {
		err = manifest.Verify(desc, raw)
	}
	if err == nil {
		err = t.PutManifest(ctx, desc, raw, false)
	}
	return t.wrap(err)
}

var errReadOnce = errors.New("its bytes cannot be read again, to send them again")

// putOnce sends content that cannot be read again.
func (t *tagged) putOnce(ctx context.Context, desc v1.Descriptor, content io.Reader) error {
	opened := false
	_, err := t.PutBlob(ctx, desc, func() (io.ReadCloser, error) {
		if opened {
			return nil, errReadOnce
		}
		opened = true
		return io.NopCloser(content), nil
	})
	return t.wrap(err)
}

// Commit sets the tag.
func (t *tagged) Commit(ctx context.Context, root v1.Descriptor) error {
	t.mu.Lock()
	last := t.last
	t.mu.Unlock()
	if last.Descriptor.Digest != root.Digest {
		got, err := t.repo.FetchManifest(ctx, string(root.Digest), nil)
		if err != nil {
			return t.wrap(err)
		}
		last = got
	}
	_, err := t.repo.PushManifest(ctx, last.Raw, &berth.PushOptions{MediaType: last.Descriptor.MediaType, Tags: []string{t.location.target}})
	return t.wrap(err)
}

func (t *tagged) Close() error { return nil }
