package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/remote"
)

// ErrTooMany is the error for more tags that would be removed than may be.
var ErrTooMany = errors.New("too many tags would be removed")

// survey is a plan for one place in the making.
type survey struct {
	*maker
	to     To
	memory *Memory
	items  []surveyed

	repositories map[string]*remote.Repository
	fresh        map[string]bool // there is no such repository there

	mu        sync.Mutex // guards the fields below
	transfers []Transfer
	planned   map[blobAt]bool
	holders   map[digest.Digest]string // who has or gets a blob first
}

// surveyed is an item, and what it came from.
type surveyed struct {
	*Item
	chosen
	ref berth.Reference // there
}

// blobAt is a blob in a repository.
type blobAt struct {
	repository string
	digest     digest.Digest
}

func newSurvey(m *maker, to To) *survey {
	s := &survey{
		maker: m, to: to, memory: to.Memory,
		repositories: map[string]*remote.Repository{}, fresh: map[string]bool{},
		planned: map[blobAt]bool{}, holders: map[digest.Digest]string{},
	}
	if s.memory == nil {
		s.memory = &Memory{}
	}
	return s
}

// name says what the tags are called there.
func (s *survey) name(all []chosen) error {
	sources := map[string]string{}
	for _, c := range all {
		ref, err := s.target(s.to, c)
		if err != nil {
			return err
		}
		target, source := ref.Repository+":"+ref.Tag, c.repository+":"+c.tag
		if other := sources[target]; other != "" {
			return fmt.Errorf("%s and %s would both be %s/%s: %w", other, source, s.to.Registry.Host(), target, berth.ErrTagInvalid)
		}
		sources[target] = source
		if s.repositories[ref.Repository] == nil {
			if s.repositories[ref.Repository], err = s.to.Registry.Open(ref.Repository); err != nil {
				return err
			}
		}
		item := &Item{Host: s.to.Registry.Host(), Target: target, Source: source, Descriptor: c.desc}
		s.items = append(s.items, surveyed{item, c, ref})
	}
	return nil
}

// compare asks what the tags are there.
func (s *survey) compare(ctx context.Context) error {
	if err := s.findFresh(ctx); err != nil {
		return err
	}
	return s.each(ctx, func(ctx context.Context, i surveyed) error {
		if err := s.choosePlatform(ctx, i); err != nil {
			i.Change, i.Reason = Refused, err.Error()
			return nil
		}
		return s.compareOne(ctx, i)
	})
}

// each does something for all items, many at once.
func (s *survey) each(ctx context.Context, do func(context.Context, surveyed) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(looking)
	for _, i := range s.items {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// findFresh finds the repositories that are not there, about whose tags nobody needs to be asked, one by one. One to which
// something was brought before may have blobs, though it has no tags.
func (s *survey) findFresh(ctx context.Context) error {
	tags := map[string]int{}
	for _, i := range s.items {
		tags[i.ref.Repository]++
	}
	for name, n := range tags {
		if n == 1 || s.memory.knows(name) {
			continue
		}
		for _, err := range s.repositories[name].FirstTags(ctx, 1) {
			s.fresh[name] = errors.Is(err, berth.ErrNameUnknown)
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// choosePlatform replaces an index by what is wanted of it.
func (s *survey) choosePlatform(ctx context.Context, i surveyed) error {
	if len(s.sel.Platforms) == 0 || manifest.KindOf(i.Descriptor.MediaType) != manifest.Index {
		return nil
	}
	if len(s.sel.Platforms) > 1 || s.sel.Sparse {
		i.Platforms = s.sel.Platforms
		return nil
	}
	repo, err := s.from.Repository(i.repository)
	if err != nil {
		return err
	}
	m, err := repo.FetchManifest(ctx, string(i.Descriptor.Digest), nil)
	if err != nil {
		return err
	}
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	if err != nil {
		return err
	}
	child, err := manifest.Select(doc, s.sel.Platforms[0])
	i.Descriptor = v1.Descriptor{MediaType: child.MediaType, Digest: child.Digest, Size: child.Size}
	return err
}

// compareOne asks what one tag is there. One that never changes, and was brought, is not asked about.
func (s *survey) compareOne(ctx context.Context, i surveyed) error {
	fixed := anyOf(s.immutable, i.repository, i.tag)
	remembered := s.memory.tag(i.ref.Repository, i.ref.Tag)
	switch {
	case fixed && remembered == i.Descriptor.Digest:
		i.Was = remembered
	case !s.fresh[i.ref.Repository]:
		there, err := s.repositories[i.ref.Repository].Resolve(ctx, i.ref.Tag)
		if _, err := found(err, berth.ErrManifestUnknown); err != nil {
			return fmt.Errorf("%s/%s: %w", i.Host, i.Target, err)
		}
		i.Was = there.Digest
		if remembered != "" && remembered != i.Was {
			s.memory.forget(i.ref.Repository) // somebody else has been there
		}
	}
	switch {
	case i.Was == "":
		i.Change = New
	case i.Was == i.Descriptor.Digest:
		i.Change = Unchanged
	case fixed:
		i.Change, i.Reason = Refused, fmt.Sprintf("it never changes, and is %s there", i.Was)
	default:
		i.Change = Moves
	}
	return nil
}

// follow looks for what the items need.
func (s *survey) follow(ctx context.Context) error {
	return s.each(ctx, func(ctx context.Context, i surveyed) error {
		if i.Change == Refused || i.Change == Unchanged && !s.sel.Referrers {
			return nil
		}
		if i.Change == Unchanged {
			if alone, err := s.alone(ctx, i); err != nil || alone {
				return err
			}
		}
		root, err := s.trees.of(ctx, i.repository, i.Descriptor, i.Platforms)
		if err != nil && ctx.Err() == nil {
			i.Change, i.Reason = Refused, err.Error()
			return nil
		}
		if err != nil {
			return err
		}
		if i.Referrers, err = s.missing(ctx, i.ref.Repository, root); err != nil {
			return err
		}
		return s.blobs(ctx, i, root)
	})
}

// alone reports whether nothing is to be done for an image that is there. Tags of one image ask once.
func (s *survey) alone(ctx context.Context, i surveyed) (bool, error) {
	if !s.claim("image in "+i.ref.Repository, i.Descriptor) {
		return true, nil
	}
	return s.trees.alone(ctx, i.repository, i.Descriptor)
}

// missing are the referrers of an image that are not there.
func (s *survey) missing(ctx context.Context, repository string, root *tree) (all []v1.Descriptor, err error) {
	root.every(func(t *tree) {
		for _, r := range t.referrers {
			if err != nil || s.memory.hasManifest(repository, r.Descriptor.Digest) {
				continue
			}
			there := false
			if !s.fresh[repository] {
				_, err = s.repositories[repository].Resolve(ctx, string(r.Descriptor.Digest))
				there, err = found(err, berth.ErrManifestUnknown)
			}
			if there {
				s.memory.note(record{Repository: repository, Manifest: r.Descriptor.Digest})
			} else if err == nil {
				all = append(all, r.Descriptor)
			}
		}
	})
	return all, err
}

// blobs plans how those of an image come. Of an image that is there only those of what refers to it are needed.
func (s *survey) blobs(ctx context.Context, i surveyed, root *tree) error {
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
		if s.claim(i.ref.Repository, desc) {
			group.Go(func() error { return s.blob(ctx, i.ref.Repository, desc) })
		}
	}
	return group.Wait()
}

// claim reports whether nobody has looked for a blob yet.
func (s *survey) claim(repository string, desc v1.Descriptor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := blobAt{repository, desc.Digest}
	if s.planned[key] {
		return false
	}
	s.planned[key] = true
	return true
}

// blob plans how one blob comes to a repository.
func (s *survey) blob(ctx context.Context, repository string, desc v1.Descriptor) error {
	t := Transfer{Host: s.to.Registry.Host(), Repository: repository, Descriptor: bare(desc), Action: Sent}
	if s.memory.hasBlob(repository, desc) {
		t.Action = Existing
		s.add(t)
		return nil
	}
	if holder := s.holder(repository, desc); holder != "" {
		t.Action, t.From = Mounted, holder
		s.add(t)
		return nil
	}
	if !s.fresh[repository] {
		there, err := hasBlob(ctx, s.repositories[repository], desc)
		if err != nil {
			return fmt.Errorf("%s/%s@%s: %w", t.Host, repository, desc.Digest, err)
		}
		if there {
			t.Action = Existing
			s.memory.noteBlob(repository, desc)
		}
	}
	s.add(t)
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

func (s *survey) add(t Transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transfers = append(s.transfers, t)
}

const defaultPruneMax = 10

// prune finds the tags that are there, and would have been brought if they were here.
func (s *survey) prune(ctx context.Context) error {
	if !s.sel.Prune {
		return nil
	}
	sources, kept := map[string]string{}, map[string]bool{}
	for _, i := range s.items {
		sources[i.ref.Repository], kept[i.Target] = i.repository, true
	}
	var gone []surveyed
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		for tag, err := range s.repositories[name].Tags(ctx, "") {
			if errors.Is(err, berth.ErrNameUnknown) {
				break
			}
			if err != nil {
				return err
			}
			target := name + ":" + tag
			if kept[target] || !s.wouldBe(sources[name], target) {
				continue
			}
			gone = append(gone, surveyed{Item: &Item{Host: s.to.Registry.Host(), Target: target, Change: Removed}})
		}
	}
	if most := cmp.Or(s.sel.PruneMax, defaultPruneMax); len(gone) > most {
		return fmt.Errorf("%w: %d, the first of them %s, and the bound is %d; raise it if that is meant", ErrTooMany, len(gone), gone[0].Target, most)
	}
	s.items = append(s.items, gone...)
	return nil
}

// wouldBe reports whether a tag there is what the selection would make of one here.
func (s *survey) wouldBe(repository, target string) bool {
	if s.to.Prefix != "" {
		target = strings.TrimPrefix(target, path.Clean(s.to.Prefix)+"/")
	}
	tag, ok := s.rename.origin(target, repository)
	return ok && selected(s.patterns, repository, tag)
}
