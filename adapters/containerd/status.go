package containerd

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
)

// take gives the ingest of a ref to one writer.
func (s *Store) take(ref string) (*ingest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.ingests[ref]
	if in == nil {
		in = &ingest{repo: s.repo}
		s.ingests[ref] = in
	}
	if in.held {
		return nil, fmt.Errorf("ref %q: another writer has it: %w", ref, errdefs.ErrUnavailable)
	}
	in.held = true
	return in, nil
}

// release lets the next writer have an ingest. One that has nothing to go on with is forgotten. It is called with
// the ingest's mu held.
func (s *Store) release(ref string, in *ingest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in.held = false
	if s.ingests[ref] == in && (in.over || in.id == "") {
		delete(s.ingests, ref)
	}
}

// Status tells how far the writing under a ref is.
//
// Errors: errdefs.ErrNotFound.
func (s *Store) Status(_ context.Context, ref string) (content.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if status, ok := s.statusOf(ref); ok {
		return status, nil
	}
	return content.Status{}, unknownRef(ref)
}

// statusOf is called with mu held.
func (s *Store) statusOf(ref string) (content.Status, bool) {
	in := s.ingests[ref]
	if in == nil || in.status.Load() == nil {
		return content.Status{}, false
	}
	status := *in.status.Load()
	status.Ref = ref
	return status, true
}

func unknownRef(ref string) error {
	return fmt.Errorf("ref %q: nothing was written under it: %w", ref, errdefs.ErrNotFound)
}

// ListStatuses tells how far all writing is that has a ref which matches one of the filters, in the order of the
// refs. They have the form of containerd's, on the field "ref"; none is all.
//
// Errors: errdefs.ErrInvalidArgument for what is no filter.
func (s *Store) ListStatuses(_ context.Context, filter ...string) ([]content.Status, error) {
	wanted, err := filters.ParseAll(filter...)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []content.Status
	for _, ref := range slices.Sorted(maps.Keys(s.ingests)) {
		if status, ok := s.statusOf(ref); ok && wanted.Match(refField(ref)) {
			all = append(all, status)
		}
	}
	return all, nil
}

// refField is a ref as a filter sees it.
func refField(ref string) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		return ref, len(path) == 1 && path[0] == "ref"
	})
}

// Abort ends the writing under a ref, and discards what was written. A Writer that has it fails from then on.
//
// Errors: errdefs.ErrNotFound.
func (s *Store) Abort(ctx context.Context, ref string) error {
	s.mu.Lock()
	in := s.ingests[ref]
	delete(s.ingests, ref)
	s.mu.Unlock()
	if in == nil {
		return unknownRef(ref)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.over = true
	if err := in.discard(ctx); err != nil {
		return fmt.Errorf("ref %q: %w", ref, outward(err))
	}
	return nil
}
