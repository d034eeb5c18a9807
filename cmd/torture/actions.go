package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// describe asks for the descriptor of a manifest that this writer has, which must be there.
func (w *writer) describe(ctx context.Context, of Op) (v1.Descriptor, bool) {
	var desc v1.Descriptor
	ok := w.ask(of, func(repo berth.Repository) (err error) {
		desc, err = repo.Resolve(ctx, string(of.Digest))
		return err
	})
	return desc, ok
}

// ask reads; only a failure is told.
func (w *writer) ask(of Op, read func(berth.Repository) error) bool {
	err := read(w.repository(of.Repo))
	if err != nil && !w.broken {
		w.do(Op{Kind: Read, Repo: of.Repo, Digest: of.Digest}, func() error { return err })
	}
	return err == nil
}

// pushIndex lists one or two manifests of a repository, which may be lists themselves.
func (w *writer) pushIndex(ctx context.Context) {
	repo := pick(w.random, repositories)
	op := Op{Kind: Push, Repo: repo, Tags: w.newTags()}
	var children []v1.Descriptor
	for _, i := range w.random.Perm(len(w.images)) {
		child := w.images[i]
		if child.Repo != repo || len(children) == 2 {
			continue
		}
		desc, ok := w.describe(ctx, child)
		if !ok {
			return
		}
		children = append(children, desc)
		op.Manifests = append(op.Manifests, child.Digest)
	}
	if len(children) > 0 {
		w.push(ctx, op, newIndex(w.name(), children))
	}
}

// retag pushes an earlier manifest again, under other tags.
func (w *writer) retag(ctx context.Context) {
	if len(w.images) == 0 {
		return
	}
	op := pick(w.random, w.images)
	op.Tags = w.newTags()
	var m berth.Manifest
	if w.ask(op, func(repo berth.Repository) (err error) {
		m, err = repo.FetchManifest(ctx, string(op.Digest), nil)
		return err
	}) {
		w.push(ctx, op, m.Raw)
	}
}

// untag removes one of the writer's own tags.
func (w *writer) untag(ctx context.Context) {
	tagged := slices.DeleteFunc(slices.Clone(w.images), func(op Op) bool { return ownTag(op) == "" })
	if len(tagged) == 0 {
		return
	}
	op := pick(w.random, tagged)
	tag := ownTag(op)
	if w.do(Op{Kind: Untag, Repo: op.Repo, Tags: []string{tag}}, func() error {
		return w.repository(op.Repo).Untag(ctx, tag, nil)
	}) {
		w.remember(Op{Repo: op.Repo, Tags: []string{tag}})
	}
}

// ownTag returns a tag of a manifest that no other writer moves, or "".
func ownTag(op Op) string {
	for _, tag := range op.Tags {
		if !slices.Contains(sharedTags, tag) {
			return tag
		}
	}
	return ""
}

// untagShared removes a tag that others may be moving or have removed.
func (w *writer) untagShared(ctx context.Context) {
	repo, tag := pick(w.random, repositories), pick(w.random, sharedTags)
	w.do(Op{Kind: Untag, Repo: repo, Tags: []string{tag}}, func() error {
		err := w.repository(repo).Untag(ctx, tag, nil)
		if errors.Is(err, berth.ErrManifestUnknown) {
			return errNothing
		}
		return err
	})
}

func (w *writer) deleteAny(ctx context.Context) {
	if len(w.images) > 0 {
		w.delete(ctx, pick(w.random, w.deletable()))
	}
}

// deletable are the manifests that no list has: a list is deleted before what it lists.
func (w *writer) deletable() State {
	listed := map[digest.Digest]bool{}
	for _, op := range w.images {
		for _, child := range op.Manifests {
			listed[child] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(w.images), func(op Op) bool { return listed[op.Digest] })
}

func (w *writer) delete(ctx context.Context, op Op) {
	if w.do(Op{Kind: Delete, Repo: op.Repo, Digest: op.Digest}, func() error {
		return w.repository(op.Repo).DeleteManifest(ctx, op.Digest)
	}) {
		w.images = slices.DeleteFunc(w.images, func(known Op) bool { return known.Repo == op.Repo && known.Digest == op.Digest })
	}
}

func (w *writer) flush(ctx context.Context) {
	if w.load.flush {
		w.do(Op{Kind: Flush}, func() error { return w.layout.Flush(ctx) })
	}
}

// cutTag splits "repository:tag", and cutManifest "repository@digest".
func cutTag(name string) (repo, tag string, ok bool) { return strings.Cut(name, ":") }

func cutManifest(name string) (repo string, d digest.Digest) {
	repo, encoded, _ := strings.Cut(name, "@")
	return repo, digest.Digest(encoded)
}
