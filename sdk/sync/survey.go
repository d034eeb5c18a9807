package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/remote"
)

// survey is a plan for one place in the making.
type survey struct {
	*maker
	to     To
	memory *Memory
	items  []*surveyed
	first  int            // the place of the first of them among those of all surveys
	images [][]*surveyed  // the items, by what they are here and where they go
	gone   []*surveyed    // items that are there alone
	expect func(Transfer) // is told how a blob is to come, as soon as that is known

	repositories map[string]*remote.Repository
	fresh        map[string]bool // there is no such repository there

	mu        sync.Mutex // guards the fields below
	denied    []error
	transfers []Transfer
	decided   map[blobAt]chan struct{} // closed when it is known how a blob comes
	holders   map[digest.Digest]string // who has or gets a blob first
}

// surveyed is an item, and what it came from.
type surveyed struct {
	Item
	chosen
	ref berth.Reference // there
	at  int             // its place among the items
	err error           // why nothing is known of it, though of others it is
}

// blobAt is a blob in a repository.
type blobAt struct {
	repository string
	digest     digest.Digest
}

func newSurvey(m *maker, to To) *survey {
	s := &survey{
		maker: m, to: to, memory: to.Memory, expect: func(Transfer) {},
		repositories: map[string]*remote.Repository{}, fresh: map[string]bool{},
		decided: map[blobAt]chan struct{}{}, holders: map[digest.Digest]string{},
	}
	if s.memory == nil {
		s.memory = &Memory{}
	}
	return s
}

// begin does what comes before any image is looked at.
func (s *survey) begin(ctx context.Context, all []chosen) error {
	if err := s.name(all); err != nil {
		return err
	}
	if err := s.findFresh(ctx); err != nil {
		return err
	}
	return s.prune(ctx)
}

// name says what the tags are called there.
func (s *survey) name(all []chosen) error {
	sources := map[string]string{}
	images := map[string]int{}
	for _, c := range all {
		ref, err := s.target(s.to, c)
		if err != nil {
			return err
		}
		i := &surveyed{Item: Item{Host: s.to.Registry.Host(), Target: ref.String(), From: s.source, Source: c.String(), Descriptor: c.desc}, chosen: c, ref: ref}
		if other := sources[i.Target]; other != "" {
			return fmt.Errorf("%s and %s would both be %s: %w", other, i.Source, i.There(), berth.ErrTagInvalid)
		}
		sources[i.Target] = i.Source
		if s.repositories[ref.Repository] == nil {
			if s.repositories[ref.Repository], err = s.to.Registry.Open(ref.Repository); err != nil {
				return err
			}
		}
		s.add(i)
		key := fmt.Sprint(c.repository, "@", c.desc.Digest, " ", ref.Repository)
		if _, known := images[key]; !known {
			images[key] = len(s.images)
			s.images = append(s.images, nil)
		}
		s.images[images[key]] = append(s.images[images[key]], i)
	}
	return nil
}

func (s *survey) add(i *surveyed) {
	i.at = len(s.items)
	s.items = append(s.items, i)
}

// findFresh finds the repositories that are not there, about whose tags nobody needs to be asked, one by one. One to which
// something was brought before may have blobs, though it has no tags.
func (s *survey) findFresh(ctx context.Context) error {
	tags := map[string]int{}
	for _, i := range s.items {
		tags[i.ref.Repository]++
	}
	group := errgroup.Group{}
	group.SetLimit(looking)
	for name, n := range tags {
		if n > 1 && !s.memory.knows(name) {
			group.Go(func() error { s.findIfFresh(ctx, name); return nil })
		}
	}
	group.Wait()
	return ctx.Err()
}

// findIfFresh asks about one repository. What is wrong with it is told by what comes next.
func (s *survey) findIfFresh(ctx context.Context, name string) {
	for _, err := range s.repositories[name].FirstTags(ctx, 1) {
		s.mu.Lock()
		s.fresh[name] = errors.Is(err, berth.ErrNameUnknown)
		s.mu.Unlock()
		return
	}
}

// look finds out what would be done, many images at once. ready is called when that is known of all tags of an image, from
// several goroutines.
func (s *survey) look(ctx context.Context, ready func([]*surveyed)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(looking)
	for _, tags := range s.images {
		group.Go(func() error {
			err := s.lookAt(ctx, tags)
			if errors.Is(err, berth.ErrDenied) && ctx.Err() == nil { // which says nothing about other repositories
				s.deny(tags, err)
				return nil
			}
			if err == nil {
				ready(tags)
			}
			return err
		})
	}
	err := group.Wait()
	return errors.Join(append(s.denied, err)...)
}

// deny notes why nothing is known of some tags.
func (s *survey) deny(tags []*surveyed, err error) {
	for _, i := range tags {
		i.err = err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = append(s.denied, err)
}

// lookAt finds out what would be done about the tags of one image.
func (s *survey) lookAt(ctx context.Context, tags []*surveyed) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.choosePlatform(ctx, tags); err != nil {
		return refuse(ctx, tags, err)
	}
	group, each := errgroup.WithContext(ctx)
	group.SetLimit(looking)
	for _, i := range tags {
		group.Go(func() error { return s.compare(each, i) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return s.follow(ctx, tags)
}

// refuse says of tags that they cannot be brought, unless the whole is at its end.
func refuse(ctx context.Context, tags []*surveyed, err error) error {
	for _, i := range tags {
		i.Change, i.Reason = Refused, err.Error()
	}
	return ctx.Err()
}

// choosePlatform replaces an index by what is wanted of it.
func (s *survey) choosePlatform(ctx context.Context, tags []*surveyed) error {
	desc := tags[0].chosen.desc
	if len(s.sel.Platforms) == 0 || manifest.KindOf(desc.MediaType) != manifest.Index {
		return nil
	}
	if len(s.sel.Platforms) > 1 || s.sel.Sparse {
		for _, i := range tags {
			i.Platforms = s.sel.Platforms
		}
		return nil
	}
	repo, err := s.from.Repository(tags[0].repository)
	if err != nil {
		return err
	}
	m, err := repo.FetchManifest(ctx, string(desc.Digest), nil)
	if err != nil {
		return err
	}
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	if err != nil {
		return err
	}
	child, err := manifest.Select(doc, s.sel.Platforms[0])
	for _, i := range tags {
		i.replace(v1.Descriptor{MediaType: child.MediaType, Digest: child.Digest, Size: child.Size})
	}
	return err
}

// replace makes another image of it.
func (i *surveyed) replace(by v1.Descriptor) {
	i.Descriptor = by
	if i.ref.Tag == "" {
		i.ref.Digest = by.Digest
		i.Target = i.ref.String()
	}
}

// compare asks what one tag is there. One that never changes, and was brought or found there, is not asked about.
func (s *survey) compare(ctx context.Context, i *surveyed) error {
	fixed := i.tag != "" && anyOf(s.immutable, i.repository, i.tag)
	remembered := s.memory.tag(i.ref.Repository, i.ref.Tag)
	switch {
	case fixed && remembered == i.Descriptor.Digest:
		i.Was = remembered
	case !s.fresh[i.ref.Repository]:
		now, err := s.repositories[i.ref.Repository].Resolve(ctx, i.wanted())
		there, err := found(err, berth.ErrManifestUnknown)
		if err != nil {
			return fmt.Errorf("%s: %w", i.There(), err)
		}
		if there {
			i.Was = now.Digest
		}
		if remembered != "" && remembered != i.Was {
			s.memory.forget(i.ref.Repository) // somebody else has been there
		}
	}
	switch {
	case i.Was == "":
		i.Change = New
	case i.Was == i.Descriptor.Digest:
		i.Change = Unchanged
		if i.ref.Tag != "" && remembered != i.Was { // so that it is noticed when it is gone, and with it what else is known of the repository
			s.memory.note(record{Repository: i.ref.Repository, Tag: i.ref.Tag, Manifest: i.Was})
		}
	case fixed:
		i.Change, i.Reason = Refused, fmt.Sprintf("it never changes, and is %s there", i.Was)
	default:
		i.Change = Moves
	}
	return nil
}

// wanted is what is asked about there: the tag, or the digest of what has none.
func (i *surveyed) wanted() string {
	if i.ref.Tag != "" {
		return i.ref.Tag
	}
	return string(i.Descriptor.Digest)
}

// follow looks for what an image needs. What refers to it comes with a tag that changes, else with the first of them all.
func (s *survey) follow(ctx context.Context, tags []*surveyed) error {
	if err := s.complete(ctx, tags); err != nil {
		return err
	}
	for _, change := range []func(Change) bool{
		func(c Change) bool { return c == New || c == Moves || c == Incomplete },
		func(c Change) bool { return c == Unchanged && s.sel.Referrers },
	} {
		var some []*surveyed
		for _, i := range tags {
			if change(i.Change) {
				some = append(some, i)
			}
		}
		if len(some) > 0 {
			return s.followOne(ctx, some)
		}
	}
	return nil
}

// complete looks whether an index that is there has all of its images there that are wanted: it may have come without some.
func (s *survey) complete(ctx context.Context, tags []*surveyed) error {
	at := slices.IndexFunc(tags, func(i *surveyed) bool { return i.Change == Unchanged })
	if at < 0 || manifest.KindOf(tags[at].Descriptor.MediaType) != manifest.Index {
		return nil
	}
	i, all := tags[at], len(tags[at].Platforms) == 0
	if all && s.memory.hasManifest(i.ref.Repository, i.Descriptor.Digest) {
		return nil
	}
	root, err := s.trees.of(ctx, i.repository, i.Descriptor, i.Platforms)
	if err != nil {
		return refuse(ctx, tags, err)
	}
	there, err := s.hasChildren(ctx, i.ref.Repository, root)
	switch {
	case err != nil:
		return err
	case there && all:
		s.memory.note(record{Repository: i.ref.Repository, Manifest: i.Descriptor.Digest})
	case !there:
		for _, i := range tags {
			if i.Change == Unchanged {
				i.Change = Incomplete
			}
		}
	}
	return nil
}

// hasChildren reports whether all that an index contains is there.
func (s *survey) hasChildren(ctx context.Context, repository string, root *tree) (there bool, err error) {
	there = true
	root.contained(func(t *tree) {
		if there && err == nil && t != root {
			there, err = s.hasManifest(ctx, repository, t.Descriptor.Digest)
		}
	})
	return there, err
}

func (s *survey) followOne(ctx context.Context, tags []*surveyed) error {
	i := tags[0]
	if i.Change == Unchanged {
		if alone, err := s.trees.alone(ctx, i.repository, i.Descriptor); err != nil || alone {
			return err
		}
	}
	root, err := s.trees.of(ctx, i.repository, i.Descriptor, i.Platforms)
	if err != nil {
		return refuse(ctx, tags, err)
	}
	missing, err := s.missing(ctx, i.ref.Repository, root)
	if err != nil {
		return err
	}
	i.Referrers = missing
	return s.blobs(ctx, i, root)
}

// missing are the referrers of an image, and of its parts, that are not there, or not listed there: where registries do not keep
// the list themselves anybody can overwrite it, whatever is remembered, and it may name what is gone.
func (s *survey) missing(ctx context.Context, repository string, root *tree) (all []v1.Descriptor, err error) {
	root.every(func(t *tree) {
		if err != nil || len(t.referrers) == 0 {
			return
		}
		var listed map[digest.Digest]bool
		if listed, err = s.listed(ctx, repository, t.Descriptor.Digest); err != nil {
			return
		}
		for _, r := range t.referrers {
			there := listed[r.Descriptor.Digest]
			if there && err == nil {
				there, err = s.hasManifest(ctx, repository, r.Descriptor.Digest)
			}
			if !there {
				all = append(all, r.Descriptor)
			}
		}
	})
	return all, err
}

// hasManifest asks whether a repository has a manifest, unless that is remembered.
func (s *survey) hasManifest(ctx context.Context, repository string, d digest.Digest) (bool, error) {
	if s.memory.hasManifest(repository, d) {
		return true, nil
	}
	_, err := s.repositories[repository].Resolve(ctx, string(d))
	there, err := found(err, berth.ErrManifestUnknown)
	if there {
		s.memory.note(record{Repository: repository, Manifest: d})
	}
	return there, err
}

// listed are the referrers that a registry lists.
func (s *survey) listed(ctx context.Context, repository string, subject digest.Digest) (map[digest.Digest]bool, error) {
	all := map[digest.Digest]bool{}
	if s.fresh[repository] {
		return all, nil
	}
	for desc, err := range s.repositories[repository].Referrers(ctx, subject, nil) {
		if _, err := found(err, berth.ErrManifestUnknown); err != nil {
			return nil, err
		}
		all[desc.Digest] = true
	}
	return all, nil
}
