package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
)

// bringing is a job on its way.
type bringing struct {
	*hostRun
	job    *job
	repo   *remote.Repository
	source berth.Repository
	doubt  bool // the registry lacks what it was thought to have: everything is looked for

	mu sync.Mutex // guards job.stats
}

// bring brings an image, and sets its tags. Where the registry says that something is missing which was thought to be there,
// nothing is believed any more, and it is brought once more.
func (h *hostRun) bring(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	source, err := berth.ParseReference(j.item.Source)
	if err != nil {
		return err
	}
	from, err := h.from.Repository(source.Repository)
	if err != nil {
		return err
	}
	root, err := h.trees.of(ctx, source.Repository, j.item.Descriptor, j.item.Platforms)
	if err != nil {
		return err
	}
	repo, err := h.repository(j.ref.Repository)
	if err != nil {
		return err
	}
	b := &bringing{hostRun: h, job: j, repo: repo, source: from}
	err = b.all(ctx, root)
	if lacksSomething(err) {
		h.memory.forget(repo.Name())
		b.doubt = true
		err = b.all(ctx, root)
	}
	if len(j.item.Platforms) > 0 && errors.Is(err, berth.ErrManifestBlobUnknown) {
		err = fmt.Errorf("%w; the registry takes no index without all of its images: choose one platform, or all", err)
	}
	return err
}

// sourceError is what is wrong with the source.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// sourceBlob tells what is wrong with the source from what is wrong with the target.
type sourceBlob struct{ berth.Blob }

func (b sourceBlob) Read(p []byte) (int, error) {
	n, err := b.Blob.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &sourceError{err}
	}
	return n, err
}

// openSource opens a blob at the source.
func (b *bringing) openSource(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	content, err := b.source.OpenBlob(ctx, d)
	if err != nil {
		return nil, &sourceError{err}
	}
	return sourceBlob{content}, nil
}

// lacksSomething reports whether a registry has refused a manifest for what it needs. Some say so by 404.
func lacksSomething(err error) bool {
	var source *sourceError
	if errors.As(err, &source) {
		return false
	}
	return errors.Is(err, berth.ErrManifestBlobUnknown) || errors.Is(err, berth.ErrBlobUnknown) ||
		errors.Is(err, berth.ErrManifestUnknown) || errors.Is(err, berth.ErrNameUnknown)
}

func (b *bringing) all(ctx context.Context, root *tree) error {
	if b.job.item.Change == Unchanged {
		return b.referrers(ctx, root)
	}
	if err := b.unmoved(ctx); err != nil {
		return err
	}
	if err := b.below(ctx, root); err != nil {
		return err
	}
	if err := b.referrers(ctx, root); err != nil {
		return err
	}
	return b.setTags(ctx, root)
}

// unmoved makes sure that the tags are what they were, where some time may have passed since the plan was made.
func (b *bringing) unmoved(ctx context.Context) error {
	for i, tag := range b.job.tags {
		if b.trees.fresh {
			break
		}
		now, err := b.repo.Resolve(ctx, tag)
		if _, err := found(err, berth.ErrManifestUnknown); err != nil {
			return err
		}
		if now.Digest != b.job.was[i] && now.Digest != b.job.item.Descriptor.Digest {
			return fmt.Errorf("%s:%s: %w: it is not what it was when the plan was made; make another", b.repo.Name(), tag, berth.ErrPreconditionFailed)
		}
	}
	return nil
}

// below brings what a manifest needs.
func (b *bringing) below(ctx context.Context, t *tree) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, desc := range t.blobs {
		group.Go(func() error { return b.blob(ctx, bare(desc)) })
	}
	for _, child := range t.children {
		group.Go(func() error { return b.manifest(ctx, child, b.doubt) })
	}
	return group.Wait()
}

// referrers brings those of the image, and of its parts, that the plan has found missing.
func (b *bringing) referrers(ctx context.Context, root *tree) error {
	wanted := map[digest.Digest]bool{}
	for _, r := range b.job.item.Referrers {
		wanted[r.Digest] = true
	}
	group, ctx := errgroup.WithContext(ctx)
	root.every(func(t *tree) {
		for _, r := range t.referrers {
			if wanted[r.Descriptor.Digest] {
				group.Go(func() error { return b.manifest(ctx, r, true) })
			}
		}
	})
	return group.Wait()
}

// manifest brings a manifest without a tag, again also where it is remembered.
func (b *bringing) manifest(ctx context.Context, t *tree, again bool) error {
	if !again && b.memory.hasManifest(b.repo.Name(), t.Descriptor.Digest) {
		b.count(t.Descriptor, Existing)
		return nil
	}
	key := fmt.Sprint("manifest ", b.repo.Name(), "@", t.Descriptor.Digest, b.doubt)
	_, _, err := b.once(ctx, key, func(*flight) error {
		if err := b.below(ctx, t); err != nil {
			return err
		}
		opts := &berth.PushOptions{MediaType: t.Descriptor.MediaType, Digest: t.Descriptor.Digest}
		if _, err := b.repo.PushManifest(ctx, t.Raw, opts); err != nil {
			return fmt.Errorf("manifest %s: %w", t.Descriptor.Digest, err)
		}
		b.memory.note(record{Repository: b.repo.Name(), Manifest: t.Descriptor.Digest})
		b.count(t.Descriptor, Sent)
		return nil
	})
	return err
}

// setTags is the last step. It is not cut off when the context ends: whether it was obeyed would not be known then.
func (b *bringing) setTags(ctx context.Context, root *tree) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, done := settling(ctx)
	defer done()
	opts := &berth.PushOptions{MediaType: root.Descriptor.MediaType, Digest: root.Descriptor.Digest, Tags: b.job.tags}
	if _, err := b.repo.PushManifest(ctx, root.Raw, opts); err != nil {
		return fmt.Errorf("manifest %s: %w", root.Descriptor.Digest, err)
	}
	b.count(root.Descriptor, Sent)
	for _, tag := range b.job.tags {
		if b.opts.Verify || !b.repo.Confirms() {
			if err := verify(ctx, b.repo, tag, root.Descriptor); err != nil {
				return err
			}
		}
		b.memory.note(record{Repository: b.repo.Name(), Tag: tag, Manifest: root.Descriptor.Digest})
	}
	if len(b.job.item.Platforms) == 0 { // else not all of it is there
		b.memory.note(record{Repository: b.repo.Name(), Manifest: root.Descriptor.Digest})
	}
	return nil
}

// verify asks the target what it has now: a registry that changed the manifest has not taken it.
func verify(ctx context.Context, repo *remote.Repository, tag string, want v1.Descriptor) error {
	got, err := repo.Resolve(ctx, tag)
	if err != nil {
		return err
	}
	if got.Digest != want.Digest {
		return fmt.Errorf("%s:%s is %s there after the push, not %s: %w", repo.Name(), tag, got.Digest, want.Digest, berth.ErrDigestInvalid)
	}
	return nil
}

// blob sees to it that a repository has a blob.
func (b *bringing) blob(ctx context.Context, desc v1.Descriptor) error {
	if !b.doubt && b.memory.hasBlob(b.repo.Name(), desc) {
		b.count(desc, Existing)
		return nil
	}
	key := fmt.Sprint("blob ", b.repo.Name(), "@", desc.Digest, b.doubt)
	f, mine, err := b.once(ctx, key, func(f *flight) (err error) {
		f.at = b.repo.Name()
		f.action, err = b.bringBlob(ctx, desc, f)
		if err == nil {
			b.memory.noteBlob(b.repo.Name(), desc)
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	case mine:
		b.count(desc, f.action)
	}
	return nil
}

// bringBlob gets a blob to where it is needed by what costs least.
func (b *bringing) bringBlob(ctx context.Context, desc v1.Descriptor, f *flight) (Action, error) {
	planned, known := b.plan(b.repo.Name(), desc)
	if b.doubt || !known || !b.trees.fresh { // what an old plan says may have been so
		if there, err := hasBlob(ctx, b.repo, desc); there || err != nil {
			return Existing, err
		}
	} else if planned.Action == Existing {
		return Existing, nil
	}
	if holder := b.holder(ctx, desc, planned, f); holder != "" || keeps(b.to.Registry, desc) {
		if mounted, err := mount(ctx, b.repo, desc, holder); mounted || err != nil {
			return Mounted, err
		}
	}
	return Sent, b.sendBlob(ctx, desc)
}

// keeps reports whether a registry tells that it has a blob, in whatever repository.
func keeps(registry Destination, desc v1.Descriptor) bool {
	keeper, ok := registry.(Keeper)
	return ok && keeper.Keeps(desc)
}

// plan is how a blob is to come, if that is known.
func (h *hostRun) plan(repository string, desc v1.Descriptor) (Transfer, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, known := h.planned[blobAt{repository, desc.Digest}]
	return t, known
}

// holder is another repository that has a blob, after waiting for the one that gets it just now.
func (b *bringing) holder(ctx context.Context, desc v1.Descriptor, planned Transfer, f *flight) string {
	b.hostRun.mu.Lock()
	first := b.first[desc.Digest]
	if first == nil {
		b.first[desc.Digest] = f
	}
	b.hostRun.mu.Unlock()
	if first == nil || first == f {
		if b.doubt {
			return ""
		}
		if planned.From != "" && planned.From != b.repo.Name() {
			return planned.From
		}
		return b.memory.holder(desc)
	}
	select {
	case <-first.done:
	case <-ctx.Done():
		return ""
	}
	if first.err != nil {
		return ""
	}
	return first.at
}

func (b *bringing) sendBlob(ctx context.Context, desc v1.Descriptor) error {
	name, sent := b.repo.Name(), int64(0)
	opts := &remote.BlobOptions{Upload: b.memory.upload(name, desc.Digest), Sent: func(n int, end int64) {
		sent += int64(n)
		b.tell(Event{Host: b.to.Registry.Host(), Repository: name, Descriptor: desc, Bytes: end})
	}}
	if desc.Size > minResumed {
		opts.Began = func(id string) { b.memory.note(record{Repository: name, Blob: desc.Digest, Upload: id}) }
	}
	err := b.repo.PushBlob(ctx, desc, func() (io.ReadCloser, error) { return b.openSource(ctx, desc.Digest) }, opts)
	b.mu.Lock()
	b.job.stats.Bytes += sent
	b.mu.Unlock()
	return err
}

// minResumed is from how many bytes on an upload is remembered.
const minResumed = 256 << 10

func (b *bringing) count(desc v1.Descriptor, action Action) {
	b.mu.Lock()
	b.job.stats.count(action)
	b.mu.Unlock()
	b.tell(Event{Host: b.to.Registry.Host(), Repository: b.repo.Name(), Descriptor: desc, Action: action, Bytes: desc.Size})
}
