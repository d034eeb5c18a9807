package registrytest

import (
	"slices"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/memory"
)

func inMemory(*testing.T) berth.Registry { return memory.New() }

// Who claims to lack what is there is found out.
func TestNoFalseClaims(t *testing.T) {
	for _, l := range allLacks() {
		if l.shows(newSuite(t, Lacks{}, inMemory)) {
			t.Errorf("a registry in memory is said to lack %s", l.name)
		}
	}
}

// However much is lacking, all the rest is demanded.
func TestWhatIsSkipped(t *testing.T) {
	all := Lacks{Races: true, ManifestDigests: true, Schema1: true, MountsFromAny: true, ForeignLayers: true, TagListsWithoutTags: true}
	var skipped []string
	for _, c := range allCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Skipped() {
					skipped = append(skipped, c.name)
				}
			})
			c.run(newSuite(t, all, inMemory))
		})
	}
	want := []string{
		"a mount from any repository needs no upload",
		"a manifest by another digest algorithm",
		"a layer of any type that lies elsewhere need not be there",
		"of many that race for a tag one wins",
		"a signed schema 1 manifest comes out as it went in, under its payload's digest",
		"the last who signs a schema 1 manifest is served",
		"a schema 1 manifest goes with its tags",
		"a schema 1 manifest must be of where it is pushed to",
		"in the library namespace a schema 1 manifest may leave that out",
		"a missing layer of schema 1 is a blob that is unknown",
		"a repository without tags",
	}
	if !slices.Equal(skipped, want) {
		t.Errorf("skipped were %q", skipped)
	}
	for _, l := range allLacks() {
		if !l.in(all) {
			t.Errorf("%s is not among what was lacking", l.name)
		}
	}
}
