package containerd_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/containerd"
)

// watched is a repository whose uploads are known, and fail where that is asked for.
type watched struct {
	berth.Repository
	// fail, if set, is asked before each chunk: how many of its bytes arrive, and what the writer is told.
	fail func(p []byte) (arrive int, err error)
	// refuse, if set, is what a commit ends with.
	refuse error
	// full, if set, is what an upload begins with.
	full error

	mu sync.Mutex // guards the fields below
	// ids are the uploads that there were, and how many chunks each has. Some registries put that into the ID that
	// they give away, and know no other.
	ids map[string]int
}

func (w *watched) note(up berth.Upload, err error) (berth.Upload, error) {
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ids == nil {
		w.ids = map[string]int{}
	}
	w.ids[up.ID()] += 0
	return &watchedUpload{up, w}, nil
}

func (w *watched) NewUpload(ctx context.Context, opts *berth.UploadOptions) (berth.Upload, error) {
	if w.full != nil {
		return nil, w.full
	}
	return w.note(w.Repository.NewUpload(ctx, opts))
}

func (w *watched) ResumeUpload(ctx context.Context, id string) (berth.Upload, error) {
	known, chunks, _ := strings.Cut(id, "/")
	w.mu.Lock()
	current := strconv.Itoa(w.ids[known])
	w.mu.Unlock()
	if chunks != current {
		return nil, fmt.Errorf("%s: %w: it is at %s", id, berth.ErrUploadUnknown, current)
	}
	return w.note(w.Repository.ResumeUpload(ctx, known))
}

// lose makes the registry forget all uploads that there were.
func (w *watched) lose(tb testing.TB) {
	tb.Helper()
	for _, id := range w.left(tb) {
		up, err := w.Repository.ResumeUpload(tb.Context(), id)
		must(tb, err)
		must(tb, up.Cancel(tb.Context()))
	}
}

// left are the uploads that the registry still has.
func (w *watched) left(tb testing.TB) (ids []string) {
	tb.Helper()
	for id := range w.ids {
		up, err := w.Repository.ResumeUpload(tb.Context(), id)
		if errors.Is(err, berth.ErrUploadUnknown) {
			continue
		}
		must(tb, err)
		must(tb, up.Close())
		ids = append(ids, id)
	}
	return ids
}

type watchedUpload struct {
	berth.Upload
	in *watched
}

func (u *watchedUpload) ID() string {
	u.in.mu.Lock()
	defer u.in.mu.Unlock()
	return u.Upload.ID() + "/" + strconv.Itoa(u.in.ids[u.Upload.ID()])
}

func (u *watchedUpload) Write(p []byte) (int, error) {
	u.in.mu.Lock()
	u.in.ids[u.Upload.ID()]++
	u.in.mu.Unlock()
	if u.in.fail == nil {
		return u.Upload.Write(p)
	}
	arrive, err := u.in.fail(p)
	if err == nil {
		return u.Upload.Write(p)
	}
	if _, err := u.Upload.Write(p[:arrive]); err != nil {
		return 0, err
	}
	return 0, err
}

func (u *watchedUpload) Commit(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	desc, err := u.Upload.Commit(ctx, d)
	if u.in.refuse != nil {
		err = u.in.refuse
	}
	return desc, err
}

// newWatched is a repository of a new layout, and its store.
func newWatched(tb testing.TB) (*containerd.Store, *watched) {
	tb.Helper()
	_, repo := newStore(tb)
	w := &watched{Repository: repo}
	return containerd.NewStore(w), w
}
