package registrytest

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// Lacks says what of the contract an implementation cannot do, because what it speaks to does not offer it. The zero value lacks
// nothing.
//
// A case that is about what is lacking is skipped, and says so. In its place there is one which fails where that is not lacking at
// all: so no claim outlives its reason, and nothing can be skipped that works.
type Lacks struct {
	// Races: of several that set a tag at once under a condition, more than one may win.
	Races bool
	// ManifestDigests: the digest of a manifest is its sha256 digest, and no other.
	ManifestDigests bool
	// Schema1: manifests of schema 1 are refused.
	Schema1 bool
	// MountsFromAny: a blob is only mounted from a repository that is named.
	MountsFromAny bool
	// ForeignLayers: a layer that lies elsewhere has to be there as well, unless its type says that it lies elsewhere.
	ForeignLayers bool
	// TagListsWithoutTags: a repository that has manifests and no tag is unknown to who lists its tags.
	TagListsWithoutTags bool
}

// lack is one field of Lacks.
type lack struct {
	name string
	in   func(Lacks) bool
	// shows reports whether it is lacking indeed.
	shows func(*suite) bool
}

var (
	races = &lack{"races for a tag", func(l Lacks) bool { return l.Races }, func(s *suite) bool {
		raws := s.images(8)
		for round := range 50 { // for it may be that one comes after the other
			if s.race(raws, fmt.Sprint("race-", round)) > 1 {
				return true
			}
		}
		return false
	}}
	manifestDigests = &lack{"manifests by other digests than sha256", func(l Lacks) bool { return l.ManifestDigests }, func(s *suite) bool {
		raw := encode(s.image(s.repo))
		_, err := s.repo.PushManifest(s.ctx, raw, &berth.PushOptions{Digest: digest.SHA512.FromBytes(raw)})
		return err != nil
	}}
	schema1Manifests = &lack{"manifests of schema 1", func(l Lacks) bool { return l.Schema1 }, func(s *suite) bool {
		m := s.signed(s.schema1("app/hello", "v1"))
		_, err := s.repo.PushManifest(s.ctx, m.Raw(), &berth.PushOptions{Tags: []string{"v1"}})
		return err != nil
	}}
	mountsFromAny = &lack{"mounts from any repository", func(l Lacks) bool { return l.MountsFromAny }, func(s *suite) bool {
		desc := s.upload(s.repo, []byte("to be mounted"))
		up, err := s.repository("into/x").NewUpload(s.ctx, &berth.UploadOptions{Mount: desc.Digest})
		if err == nil {
			s.must(up.Cancel(s.ctx))
		}
		return err == nil
	}}
	foreignLayers = &lack{"layers of any type that lie elsewhere", func(l Lacks) bool { return l.ForeignLayers }, func(s *suite) bool {
		_, err := s.repo.PushManifest(s.ctx, encode(s.foreign(v1.MediaTypeImageLayer)), nil)
		return errors.Is(err, berth.ErrManifestBlobUnknown)
	}}
	tagListsWithoutTags = &lack{"lists of no tags", func(l Lacks) bool { return l.TagListsWithoutTags }, func(s *suite) bool {
		s.push(s.repo, encode(s.image(s.repo)))
		_, err := collect(s.repo.Tags(s.ctx, ""))
		return errors.Is(err, berth.ErrNameUnknown)
	}}
)

func allLacks() []*lack {
	return []*lack{races, manifestDigests, schema1Manifests, mountsFromAny, foreignLayers, tagListsWithoutTags}
}

// needs ends a case that is about what is lacking.
func (s *suite) needs(l *lack) {
	s.Helper()
	if l.in(s.lacks) {
		s.Skip("it lacks " + l.name)
	}
}
