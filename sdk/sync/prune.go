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
	sources, kept := map[string]string{}, map[string]bool{}
	for _, i := range s.items {
		sources[i.ref.Repository], kept[i.Target] = i.repository, true
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
				s.gone = append(s.gone, &surveyed{Item: Item{Host: s.to.Registry.Host(), Target: target, Change: Removed}})
			}
		}
	}
	if most := cmp.Or(s.sel.PruneMax, defaultPruneMax); len(s.gone) > most {
		return fmt.Errorf("%w: %d, the first of them %s, and the bound is %d; raise it if that is meant", ErrTooMany, len(s.gone), s.gone[0].Target, most)
	}
	for _, i := range s.gone {
		s.add(i)
	}
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
