package sync

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// blobs plans how those of an image come, and returns when that is known of all of them. Of an image that is there only those
// of what refers to it are needed.
func (s *survey) blobs(ctx context.Context, i *surveyed, root *tree) error {
	wanted := map[digest.Digest]bool{}
	for _, r := range i.Referrers {
		wanted[r.Digest] = true
	}
	var all []v1.Descriptor
	root.every(func(t *tree) {
		if i.Change != Unchanged || wanted[t.Descriptor.Digest] {
			all = append(all, t.blobs...)
		}
	})
	group, ctx := errgroup.WithContext(ctx)
	for _, desc := range all {
		decided, mine := s.claim(i.ref.Repository, desc)
		group.Go(func() error {
			if mine {
				defer close(decided)
				return s.blob(ctx, i.ref.Repository, desc)
			}
			select {
			case <-decided:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}
	return group.Wait()
}

// claim says what is closed when it is known how a blob comes, and whether nobody has looked for it yet.
func (s *survey) claim(repository string, desc v1.Descriptor) (decided chan struct{}, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := blobAt{repository, desc.Digest}
	if decided = s.decided[key]; decided != nil {
		return decided, false
	}
	s.decided[key] = make(chan struct{})
	return s.decided[key], true
}

// blob plans how one blob comes to a repository.
func (s *survey) blob(ctx context.Context, repository string, desc v1.Descriptor) error {
	t := Transfer{Host: s.to.Registry.Host(), Repository: repository, Descriptor: bare(desc), Action: Sent}
	holder := ""
	there := s.memory.hasBlob(repository, desc)
	if !there {
		holder = s.holder(repository, desc)
	}
	if !there && holder == "" && !s.fresh[repository] {
		var err error
		if there, err = hasBlob(ctx, s.repositories[repository], desc); err != nil {
			return fmt.Errorf("%s/%s@%s: %w", t.Host, repository, desc.Digest, err)
		}
		if there {
			s.memory.noteBlob(repository, desc)
		}
	}
	switch {
	case there:
		t.Action = Existing
	case holder != "":
		t.Action, t.From = Mounted, holder
	case keeps(s.to.Registry, desc):
		t.Action = Mounted
	}
	s.expect(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transfers = append(s.transfers, t)
	return nil
}

// bare is what a blob is known by.
func bare(desc v1.Descriptor) v1.Descriptor {
	return v1.Descriptor{MediaType: blobType(desc), Digest: desc.Digest, Size: desc.Size}
}

// holder is another repository that has a blob or gets it, and takes the blob for this one if there is none.
func (s *survey) holder(repository string, desc v1.Descriptor) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	holder := s.holders[desc.Digest]
	if holder == "" {
		holder = s.memory.holder(desc)
	}
	if holder == "" {
		s.holders[desc.Digest] = repository
	}
	if holder == repository {
		return ""
	}
	return holder
}
