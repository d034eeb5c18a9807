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

	"github.com/berthoci/berth"
)

// ErrTooMany is the error for more tags that would be removed than may be.
var ErrTooMany = errors.New("too many tags would be removed")

const defaultPruneMax = 10

// prune finds the tags that are there, and would have been brought if they were here.
func (s *survey) prune(ctx context.Context) error {
	if !s.sel.Prune {
		return nil
	}
	sources, kept := map[string][]string{}, map[string]bool{}
	for _, i := range s.items {
		kept[i.Target] = true
		if name := i.ref.Repository; !slices.Contains(sources[name], i.repository) {
			sources[name] = append(sources[name], i.repository)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		for tag, err := range s.repositories[name].Tags(ctx, "") {
			if errors.Is(err, berth.ErrNameUnknown) {
				break
			}
			if err != nil {
				return err
			}
			target := name + ":" + tag
			if !kept[target] && s.wouldBe(sources[name], target) {
				s.gone = append(s.gone, &surveyed{
					Item: Item{Host: s.to.Registry.Host(), Target: target, Change: Removed}, ref: berth.Reference{Repository: name, Tag: tag},
				})
			}
		}
	}
	if most := cmp.Or(s.sel.PruneMax, defaultPruneMax); len(s.gone) > max(most, 0) {
		return fmt.Errorf("%s: %w: %d, and the bound is %d: %s; raise it if that is meant", s.to.Registry.Host(), ErrTooMany, len(s.gone), max(most, 0), s.someGone())
	}
	for _, i := range s.gone {
		now, err := s.repositories[i.ref.Repository].Resolve(ctx, i.ref.Tag)
		if _, err := found(err, berth.ErrManifestUnknown); err != nil {
			return fmt.Errorf("%s: %w", i.There(), err)
		}
		i.Was = now.Digest
		s.add(i)
	}
	return nil
}

// someGone names the first of what would be removed.
func (s *survey) someGone() string {
	const most = 20
	var names []string
	for _, i := range s.gone[:min(len(s.gone), most)] {
		names = append(names, i.Target)
	}
	if len(s.gone) > most {
		names = append(names, "…")
	}
	return strings.Join(names, " ")
}

// wouldBe reports whether a tag there is what the selection would make of one of some repositories here, and may be removed: tags
// that list what refers to an image, or are what belongs to one, are made by others too, and what never changes stays.
func (s *survey) wouldBe(repositories []string, target string) bool {
	if s.to.Prefix != "" {
		target = strings.TrimPrefix(target, path.Clean(s.to.Prefix)+"/")
	}
	for _, repository := range repositories {
		tag, ok := s.rename.origin(target, repository)
		if ok && selected(s.patterns, repository, tag) && !belongs(tag) && !anyOf(s.immutable, repository, tag) {
			return true
		}
	}
	return false
}

// belongs reports whether a tag is about another image.
func belongs(tag string) bool {
	of, kind, ok := strings.Cut(tag, ".")
	return holdsReferrers(tag) || ok && slices.Contains(companionKinds(), kind) && holdsReferrers(of)
}
