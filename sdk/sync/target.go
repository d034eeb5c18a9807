package sync

import (
	"context"
	"errors"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/remote"
)

// ToRepository is a repository of a registry over HTTP as a target. The root gets the tags, in one
// commit where the registry can do that. What another repository has by memory's account is mounted from there; what is found or
// brought is noted in it. Nil: nothing is known, and nothing is noted.
func ToRepository(repo *remote.Repository, tags []string, memory *Memory) Target {
	if memory == nil {
		memory = &Memory{}
	}
	return &repositoryTarget{repo: repo, tags: tags, memory: memory}
}

type repositoryTarget struct {
	repo   *remote.Repository
	tags   []string
	memory *Memory
}

func (t *repositoryTarget) Has(ctx context.Context, desc v1.Descriptor) (bool, error) {
	if manifest.KindOf(desc.MediaType) != 0 {
		_, err := t.repo.Resolve(ctx, string(desc.Digest))
		return found(err, berth.ErrManifestUnknown)
	}
	there, err := hasBlob(ctx, t.repo, desc)
	if there {
		t.memory.noteBlob(t.repo.Name(), desc)
	}
	return there, err
}

// hasBlob asks whether a repository has a blob. A descriptor may lie about its size.
func hasBlob(ctx context.Context, repo *remote.Repository, desc v1.Descriptor) (bool, error) {
	stat, err := repo.StatBlob(ctx, desc.Digest)
	there, err := found(err, berth.ErrBlobUnknown)
	return there && stat.Size == desc.Size, err
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
	if from := t.memory.holder(desc); from != "" {
		mounted, err := mount(ctx, t.repo, desc, from)
		if mounted || err != nil {
			return Mounted, err
		}
	}
	if err := t.repo.PushBlob(ctx, desc, open, nil); err != nil {
		return "", err
	}
	t.memory.noteBlob(t.repo.Name(), desc)
	return Sent, nil
}

// mount asks for a blob of another repository of the same registry.
func mount(ctx context.Context, repo *remote.Repository, desc v1.Descriptor, from string) (bool, error) {
	if from == repo.Name() {
		return false, nil
	}
	up, err := repo.NewUpload(ctx, &berth.UploadOptions{Mount: desc.Digest, From: from})
	if errors.Is(err, berth.ErrMounted) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	_ = up.Cancel(ctx) // a registry that cannot cancel forgets it in time
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
