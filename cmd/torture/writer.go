package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
)

const (
	// maxImages is how many manifests a writer keeps; before the next one it deletes its oldest.
	maxImages = 24
	// ownTags is how many tags a writer moves around in each repository.
	ownTags = 16
)

var (
	repositories = []string{"app/one", "app/two/deep", ocilayout.DefaultRepository}
	sharedTags   = []string{"latest", "edge"}
)

// writer is one of the writers of a child. Manifests and most tags are its own, so that it knows
// what is there; the shared tags are fought for.
type writer struct {
	n      int
	load   load
	begin  time.Time // of all writers' work
	layout *ocilayout.Layout
	tell   *teller
	random *rand.Rand
	shared []content
	left   *atomic.Int64
	images State // its own, oldest first
	broken bool  // it was refused something, and knows no longer what is there
}

// adopt takes over what this writer has in the layout from earlier rounds.
func (w *writer) adopt(state State) {
	for _, op := range state {
		if op.Writer == w.n {
			w.images = append(w.images, op)
		}
	}
}

// run works until it is told to stop, and finishes what it has begun.
func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil && !w.broken {
		w.step(context.WithoutCancel(ctx))
		time.Sleep(w.pause())
	}
}

// pause is how long the writer waits before its next step.
func (w *writer) pause() time.Duration {
	if w.load.pace <= 0 {
		return 0
	}
	if now := time.Since(w.begin) % (workTime + w.load.rest); now > workTime {
		return workTime + w.load.rest - now
	}
	return time.Duration(w.random.Int64N(int64(w.load.pace)))
}

// step does one thing of many, pushes being the most frequent.
func (w *writer) step(ctx context.Context) {
	if len(w.images) >= maxImages {
		w.delete(ctx, w.deletable()[0])
		return
	}
	n := w.random.IntN(100)
	for _, a := range actions {
		if n -= a.share; n < 0 {
			a.do(w, ctx)
			return
		}
	}
}

// actions are what a writer does, and how often in a hundred times.
var actions = []struct {
	share int
	do    func(*writer, context.Context)
}{
	{52, (*writer).pushImage},
	{10, (*writer).pushReferrer},
	{10, (*writer).pushIndex},
	{10, (*writer).retag},
	{8, (*writer).untag},
	{2, (*writer).untagShared},
	{6, (*writer).deleteAny},
	{2, (*writer).flush},
}

// do runs one operation between its lines. A writer that was refused something ends.
func (w *writer) do(op Op, f func() error) bool {
	op.Writer = w.n
	return w.tell.tell(op, func() error {
		err := f()
		if err != nil && !errors.Is(err, errNothing) {
			w.broken = true
		}
		return err
	})
}

func (w *writer) repository(name string) berth.Repository {
	repo, err := w.layout.Repository(name)
	if err != nil {
		panic(err) // the names are constants
	}
	return repo
}

func pick[T any](random *rand.Rand, all []T) T { return all[random.IntN(len(all))] }

// name is one that no other image has.
func (w *writer) name() string {
	return fmt.Sprintf("round %d writer %d number %d", w.load.round, w.n, w.random.Uint64())
}

// newTags picks tags for a push: none seldom, several sometimes, a shared one sometimes.
func (w *writer) newTags() (tags []string) {
	for range min(w.random.IntN(5), 3) {
		tags = append(tags, fmt.Sprintf("w%d-%d", w.n, w.random.IntN(ownTags)))
	}
	if w.random.IntN(6) == 0 {
		tags = append(tags, pick(w.random, sharedTags))
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

func (w *writer) pushImage(ctx context.Context) { w.pushWith(ctx, pick(w.random, repositories), nil) }

// pushReferrer pushes an image that refers to an earlier one.
func (w *writer) pushReferrer(ctx context.Context) {
	if len(w.images) == 0 {
		return
	}
	of := pick(w.random, w.images)
	if subject, ok := w.describe(ctx, of); ok {
		w.pushWith(ctx, of.Repo, &subject)
	}
}

func (w *writer) pushWith(ctx context.Context, repo string, subject *v1.Descriptor) {
	config := newConfig(w.name())
	layers := w.layers()
	for _, blob := range append([]content{config}, layers...) {
		if !w.store(ctx, repo, blob) {
			return
		}
	}
	op := Op{Kind: Push, Repo: repo, Tags: w.newTags()}
	if subject != nil {
		op.Subject = subject.Digest
	}
	w.push(ctx, op, newManifest(config, layers, subject))
}

// layers picks one to three layers, new ones while the budget lasts.
func (w *writer) layers() (layers []content) {
	for range 1 + w.random.IntN(maxLayers) {
		layer := newLayer(w.random)
		if w.random.IntN(3) == 0 || w.left.Add(-layer.desc.Size) < 0 {
			layer = pick(w.random, w.shared)
		}
		layers = append(layers, layer)
	}
	return layers
}

// push pushes a manifest, new or known.
func (w *writer) push(ctx context.Context, op Op, raw []byte) {
	op.Digest = manifest.Descriptor("", raw).Digest
	if w.do(op, func() error {
		_, err := w.repository(op.Repo).PushManifest(ctx, raw, &berth.PushOptions{Tags: op.Tags})
		return err
	}) {
		w.remember(op)
	}
}

// remember notes what an answered push or removal of tags has changed.
func (w *writer) remember(op Op) {
	known := false
	for i, image := range w.images {
		if image.Repo != op.Repo {
			continue
		}
		tags := slices.DeleteFunc(slices.Clone(image.Tags), func(tag string) bool { return slices.Contains(op.Tags, tag) })
		if image.Digest == op.Digest {
			known, tags = true, append(tags, op.Tags...)
		}
		w.images[i].Tags = tags
	}
	if op.Kind == Push && !known {
		op.Writer = w.n
		w.images = append(w.images, op)
	}
}
