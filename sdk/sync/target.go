package sync

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/remote"
)

// ToRepository is a repository of a registry over HTTP as a target. The root gets the tags, in one
// commit where the registry can do that. known may be nil.
func ToRepository(repo *remote.Repository, tags []string, known *Known) Target {
	return &repositoryTarget{repo: repo, tags: tags, known: known}
}

// Known remembers which repository of a registry has a blob, so that it is mounted into others
// rather than sent again. Its zero value is empty; its methods may run at once.
type Known struct {
	mu sync.Mutex // guards the fields below
	in map[blobKey]string
}

// blobKey is what is known: a descriptor may lie about a size.
type blobKey struct {
	digest digest.Digest
	size   int64
}

// maxKnown bounds what is remembered: enough for thousands of images.
const maxKnown = 1 << 18

func (k *Known) remember(desc v1.Descriptor, repository string) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.in == nil {
		k.in = map[blobKey]string{}
	}
	if len(k.in) < maxKnown {
		k.in[blobKey{desc.Digest, desc.Size}] = repository
	}
}

func (k *Known) repositoryOf(desc v1.Descriptor) string {
	if k == nil {
		return ""
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.in[blobKey{desc.Digest, desc.Size}]
}

type repositoryTarget struct {
	repo  *remote.Repository
	tags  []string
	known *Known
}

func (t *repositoryTarget) Has(ctx context.Context, desc v1.Descriptor) (bool, error) {
	if manifest.KindOf(desc.MediaType) != 0 {
		_, err := t.repo.Resolve(ctx, string(desc.Digest))
		return found(err, berth.ErrManifestUnknown)
	}
	stat, err := t.repo.StatBlob(ctx, desc.Digest)
	there, err := found(err, berth.ErrBlobUnknown)
	there = there && stat.Size == desc.Size
	if there {
		t.known.remember(desc, t.repo.Name())
	}
	return there, err
}

// found tells absence from failure. A repository that does not exist yet has nothing. That it may not
// be pulled from is a failure, though some registries say so of what does not exist: a plan must not
// promise what will be refused.
func found(err error, absent error) (bool, error) {
	if errors.Is(err, absent) || errors.Is(err, berth.ErrNameUnknown) {
		return false, nil
	}
	return err == nil, err
}

func (t *repositoryTarget) PutBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (Action, error) {
	if from := t.known.repositoryOf(desc); from != "" && from != t.repo.Name() {
		mounted, err := t.mount(ctx, desc, from)
		if mounted || err != nil {
			return Mounted, err
		}
	}
	if err := t.repo.PushBlob(ctx, desc, open, nil); err != nil {
		return "", err
	}
	t.known.remember(desc, t.repo.Name())
	return Sent, nil
}

func (t *repositoryTarget) mount(ctx context.Context, desc v1.Descriptor, from string) (bool, error) {
	up, err := t.repo.NewUpload(ctx, &berth.UploadOptions{Mount: desc.Digest, From: from})
	if errors.Is(err, berth.ErrMounted) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	up.Cancel(ctx) // a registry that cannot cancel forgets it in time
	return false, nil
}

func (t *repositoryTarget) PutManifest(ctx context.Context, desc v1.Descriptor, raw []byte, root bool) error {
	opts := &berth.PushOptions{MediaType: desc.MediaType, Digest: desc.Digest}
	if root {
		opts.Tags = t.tags
	}
	_, err := t.repo.PushManifest(ctx, raw, opts)
	return err
}
