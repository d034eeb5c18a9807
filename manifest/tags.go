package manifest

import (
	"fmt"
	"slices"

	"github.com/berthoci/berth"
)

// DefaultTag is the tag that is meant where none is given: "latest" if it is among the tags of the
// repository, else the first of them.
//
// Errors: berth.ErrManifestUnknown where there are no tags. That is what a tag that does not exist
// is, too, so a caller has one case to handle: nothing that was typed is malformed, which
// berth.ErrTagInvalid would say, and the repository exists, which berth.ErrNameUnknown would deny.
func DefaultTag(tags []string) (string, error) {
	const latest = "latest"
	switch {
	case slices.Contains(tags, latest):
		return latest, nil
	case len(tags) == 0:
		return "", fmt.Errorf("%w: the repository has no tags: name a digest, or push one", berth.ErrManifestUnknown)
	}
	return tags[0], nil
}
