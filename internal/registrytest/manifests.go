package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

var manifestCases = []testCase{
	{"a manifest comes out as it went in", func(s *suite) {
		raw := append(encode(s.image(s.repo)), "\n  "...)
		desc := s.push(s.repo, raw, "v1")
		want := manifest.Descriptor(v1.MediaTypeImageManifest, raw)
		equal(s, "descriptor", desc, want)
		for _, ref := range []string{"v1", string(desc.Digest)} {
			m, err := s.repo.FetchManifest(s.ctx, ref, nil)
			s.must(err)
			equal(s, "descriptor", m.Descriptor, want)
			if !bytes.Equal(m.Raw, raw) {
				s.Errorf("%s: other bytes came out", ref)
			}
			got, err := s.repo.Resolve(s.ctx, ref)
			s.must(err)
			equal(s, "resolved", got, want)
		}
	}},
	{"of a manifest beyond a bound there is the descriptor alone", func(s *suite) {
		raw := encode(s.image(s.repo))
		desc := s.push(s.repo, raw, "v1")
		for bound, want := range map[int64]int{0: len(raw), desc.Size: len(raw), desc.Size - 1: 0} {
			m, err := s.repo.FetchManifest(s.ctx, "v1", &berth.FetchOptions{MaxSize: bound})
			s.must(err)
			equal(s, "descriptor", m.Descriptor.Digest, desc.Digest)
			equal(s, "bytes", len(m.Raw), want)
		}
	}},
	{"docker's types are kept", func(s *suite) {
		m := s.image(s.repo)
		m.MediaType = manifest.MediaTypeDockerManifest
		m.Config.MediaType = "application/vnd.docker.container.image.v1+json"
		child := s.push(s.repo, encode(m))
		list := index(child)
		list.MediaType = manifest.MediaTypeDockerManifestList
		s.push(s.repo, encode(list), "list")
		got, err := s.repo.Resolve(s.ctx, "list")
		s.must(err)
		equal(s, "type", got.MediaType, manifest.MediaTypeDockerManifestList)
	}},
	{"a manifest by another digest algorithm", func(s *suite) {
		s.needs(manifestDigests)
		raw := encode(s.image(s.repo))
		d := digest.SHA512.FromBytes(raw)
		_, err := s.repo.PushManifest(s.ctx, raw, &berth.PushOptions{Digest: d})
		s.must(err)
		m, err := s.repo.FetchManifest(s.ctx, string(d), nil)
		s.must(err)
		equal(s, "digest", m.Descriptor.Digest, d)
	}},
	{"a digest that does not match", func(s *suite) {
		_, err := s.repo.PushManifest(s.ctx, encode(s.image(s.repo)), &berth.PushOptions{Digest: absent("manifest")})
		s.wantErr(err, berth.ErrDigestInvalid)
	}},
	{"an absent manifest is unknown", func(s *suite) {
		for _, ref := range []string{"absent", string(absent("manifest"))} {
			_, err := s.repo.Resolve(s.ctx, ref)
			s.wantErr(err, berth.ErrManifestUnknown)
			_, err = s.repo.FetchManifest(s.ctx, ref, nil)
			s.wantErr(err, berth.ErrManifestUnknown)
		}
		s.wantErr(s.repo.DeleteManifest(s.ctx, absent("manifest")), berth.ErrManifestUnknown)
		s.wantErr(s.repo.Untag(s.ctx, "absent", nil), berth.ErrManifestUnknown)
	}},
	{"every missing child is named", func(s *suite) {
		m := s.image(s.repo)
		m.Config.Digest = absent("config")
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: absent("layer"), Size: 1})
		_, err := s.repo.PushManifest(s.ctx, encode(m), &berth.PushOptions{Tags: []string{"v1"}})
		s.wantErr(err, berth.ErrManifestBlobUnknown)
		for _, d := range []digest.Digest{absent("config"), absent("layer")} {
			if err != nil && !bytes.Contains([]byte(err.Error()), []byte(d)) {
				s.Errorf("%q does not name %s", err, d)
			}
		}
		_, err = s.repo.Resolve(s.ctx, "v1")
		s.wantErr(err, berth.ErrManifestUnknown)
		_, err = s.repo.PushManifest(s.ctx, encode(index(v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: absent("child"), Size: 1})), nil)
		s.wantErr(err, berth.ErrManifestBlobUnknown)
	}},
	{"another repository's blobs do not count", func(s *suite) {
		raw := encode(s.image(s.repo))
		_, err := s.repository("app/other").PushManifest(s.ctx, raw, nil)
		s.wantErr(err, berth.ErrManifestBlobUnknown)
	}},
	{"a foreign layer need not be there", func(s *suite) { s.push(s.repo, encode(s.foreign(nondistributable)), "v1") }},
	{"a layer of any type that lies elsewhere need not be there", func(s *suite) {
		s.needs(foreignLayers)
		s.push(s.repo, encode(s.foreign(v1.MediaTypeImageLayer)), "v1")
	}},
	{"several tags in one push", func(s *suite) {
		tags := []string{"1", "1.2", "1.2.3", "latest"}
		desc := s.push(s.repo, encode(s.image(s.repo)), tags...)
		for _, tag := range tags {
			got, err := s.repo.Resolve(s.ctx, tag)
			s.must(err)
			equal(s, tag, got.Digest, desc.Digest)
		}
	}},
	{"a bad tag among good ones sets none", func(s *suite) {
		_, err := s.repo.PushManifest(s.ctx, encode(s.image(s.repo)), &berth.PushOptions{Tags: []string{"good", "not good"}})
		s.wantErr(err, berth.ErrTagInvalid)
		_, err = s.repo.Resolve(s.ctx, "good")
		s.wantErr(err, berth.ErrManifestUnknown)
	}},
	{"a tag moves", func(s *suite) {
		first := s.push(s.repo, encode(s.image(s.repo)), "v1")
		second := s.push(s.repo, encode(s.image(s.repo)), "v1")
		got, err := s.repo.Resolve(s.ctx, "v1")
		s.must(err)
		equal(s, "tag", got.Digest, second.Digest)
		_, err = s.repo.Resolve(s.ctx, string(first.Digest))
		s.must(err)
	}},
	{"a tag moves only from where the caller believes it is", func(s *suite) {
		first, second := encode(s.image(s.repo)), encode(s.image(s.repo))
		fresh := &berth.PushOptions{Tags: []string{"v1"}, IfNoneMatch: true}
		desc, err := s.repo.PushManifest(s.ctx, first, fresh)
		s.must(err)
		_, err = s.repo.PushManifest(s.ctx, second, fresh)
		s.wantErr(err, berth.ErrPreconditionFailed)
		_, err = s.repo.PushManifest(s.ctx, second, &berth.PushOptions{Tags: []string{"v1"}, IfMatch: absent("now")})
		s.wantErr(err, berth.ErrPreconditionFailed)
		_, err = s.repo.PushManifest(s.ctx, second, &berth.PushOptions{Tags: []string{"v1"}, IfMatch: desc.Digest})
		s.must(err)
	}},
	{"of many that race for a tag one wins", func(s *suite) {
		s.needs(races)
		equal(s, "winners", s.race(s.images(8), "race"), 1)
	}},
	{"untag leaves the manifest", func(s *suite) {
		desc := s.push(s.repo, encode(s.image(s.repo)), "v1", "v2")
		s.must(s.repo.Untag(s.ctx, "v1", nil))
		_, err := s.repo.Resolve(s.ctx, "v1")
		s.wantErr(err, berth.ErrManifestUnknown)
		_, err = s.repo.Resolve(s.ctx, string(desc.Digest))
		s.must(err)
		s.wantErr(s.repo.Untag(s.ctx, "v2", &berth.UntagOptions{IfMatch: absent("now")}), berth.ErrPreconditionFailed)
		s.must(s.repo.Untag(s.ctx, "v2", &berth.UntagOptions{IfMatch: desc.Digest}))
	}},
	{"deleting a manifest takes its tags along", func(s *suite) {
		desc := s.push(s.repo, encode(s.image(s.repo)), "v1", "v2")
		s.push(s.repo, encode(s.image(s.repo)), "other")
		s.must(s.repo.DeleteManifest(s.ctx, desc.Digest))
		for _, ref := range []string{"v1", "v2", string(desc.Digest)} {
			_, err := s.repo.Resolve(s.ctx, ref)
			s.wantErr(err, berth.ErrManifestUnknown)
		}
		tags, err := collect(s.repo.Tags(s.ctx, ""))
		s.must(err)
		equal(s, "tags", tags, []string{"other"})
	}},
	{"what is no manifest is invalid", func(s *suite) {
		for _, raw := range []string{"", "null", "{}", "<html>", `{"schemaVersion":1}`} {
			_, err := s.repo.PushManifest(s.ctx, []byte(raw), &berth.PushOptions{MediaType: v1.MediaTypeImageManifest})
			s.wantErr(err, berth.ErrManifestInvalid)
		}
	}},
}

var listCases = []testCase{
	{"tags are listed in byte order", func(s *suite) {
		raw := encode(s.image(s.repo))
		want := []string{"0", "A", "Z", "_", "a", "a-b", "a.b", "ab"}
		shuffled := slices.Clone(want)
		slices.Reverse(shuffled)
		s.push(s.repo, raw, shuffled...)
		for i, after := range append([]string{""}, want...) {
			tags, err := collect(s.repo.Tags(s.ctx, after))
			s.must(err)
			equal(s, "after "+after, tags, want[i:])
		}
	}},
	{"a long list has every tag once", func(s *suite) {
		raw := encode(s.image(s.repo))
		var want []string
		for i := range 1300 {
			want = append(want, fmt.Sprintf("t%05d", i))
		}
		for chunk := range slices.Chunk(want, 200) {
			s.push(s.repo, raw, chunk...)
		}
		tags, err := collect(s.repo.Tags(s.ctx, ""))
		s.must(err)
		if !slices.Equal(tags, want) {
			s.Errorf("got %d tags, want %d in order", len(tags), len(want))
		}
	}},
	{"tags of a repository that holds nothing", func(s *suite) {
		_, err := collect(s.repository("app/absent").Tags(s.ctx, ""))
		s.wantErr(err, berth.ErrNameUnknown)
	}},
	{"a repository without tags", func(s *suite) {
		s.needs(tagListsWithoutTags)
		s.push(s.repo, encode(s.image(s.repo)))
		tags, err := collect(s.repo.Tags(s.ctx, ""))
		s.must(err)
		equal(s, "tags", len(tags), 0)
	}},
	{"the list may change while it is read", func(s *suite) {
		raw := encode(s.image(s.repo))
		s.push(s.repo, raw, "a", "b", "c")
		for tag, err := range s.repo.Tags(s.ctx, "") {
			s.must(err)
			s.must(s.repo.Untag(s.ctx, tag, nil))
			s.push(s.repo, raw, "z-"+tag)
			break
		}
		tags, err := collect(s.repo.Tags(s.ctx, ""))
		s.must(err)
		equal(s, "tags", tags, []string{"b", "c", "z-a"})
	}},
	{"repositories are listed in byte order", func(s *suite) {
		want := []string{"a", "a-b", "a/b", "a0", "b/c/d"}
		for _, name := range []string{"b/c/d", "a0", "a/b", "a", "a-b"} {
			s.push(s.repository(name), encode(index()))
		}
		s.upload(s.repository("a1"), []byte("a blob makes no repository"))
		for i, after := range append([]string{""}, want...) {
			names, err := collect(s.reg.Repositories(s.ctx, after))
			s.must(err)
			equal(s, "after "+after, names, want[i:])
		}
	}},
	{"referrers are listed by subject and type", referrersCase},
	{"a subject may come later or never", func(s *suite) {
		subject := encode(s.image(s.repo))
		m := s.image(s.repo)
		desc := manifest.Descriptor(v1.MediaTypeImageManifest, subject)
		m.Subject = &desc
		referrer := s.push(s.repo, encode(m))
		for range 2 {
			got, err := collect(s.repo.Referrers(s.ctx, desc.Digest, nil))
			s.must(err)
			equal(s, "referrers", len(got), 1)
			equal(s, "referrer", got[0].Digest, referrer.Digest)
			s.push(s.repo, subject)
		}
		s.must(s.repo.DeleteManifest(s.ctx, referrer.Digest))
		got, err := collect(s.repo.Referrers(s.ctx, desc.Digest, nil))
		s.must(err)
		equal(s, "referrers", len(got), 0)
	}},
}

// nondistributable is the type that says of a layer that it lies elsewhere. It is out of use, and yet there.
const nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar"

// foreign is an image with a layer of that type which is not there.
func (s *suite) foreign(mediaType string) v1.Manifest {
	s.Helper()
	m := s.image(s.repo)
	m.Layers = append(m.Layers, v1.Descriptor{MediaType: mediaType, Digest: absent("foreign"), Size: 1, URLs: []string{"https://example.com/layer"}})
	return m
}

// race has all of the manifests pushed at once under a tag that is to be new, and returns how many were.
func (s *suite) race(raws [][]byte, tag string) int {
	var wins atomic.Int32
	var wg sync.WaitGroup
	for _, raw := range raws {
		wg.Go(func() {
			_, err := s.repo.PushManifest(s.ctx, raw, &berth.PushOptions{Tags: []string{tag}, IfNoneMatch: true})
			switch {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, berth.ErrPreconditionFailed):
				s.Errorf("a loser got %v", err)
			}
		})
	}
	wg.Wait()
	return int(wins.Load())
}

func referrersCase(s *suite) {
	subject := s.push(s.repo, encode(s.image(s.repo)), "v1")
	byType := map[string]digest.Digest{}
	for _, kind := range []string{"a/sbom", "a/signature", ""} {
		m := s.image(s.repo)
		m.Subject, m.ArtifactType = &subject, kind
		m.Annotations = map[string]string{"kind": kind}
		byType[kind] = s.push(s.repo, encode(m)).Digest
	}
	all, err := collect(s.repo.Referrers(s.ctx, subject.Digest, nil))
	s.must(err)
	equal(s, "referrers", len(all), 3)
	if !slices.IsSortedFunc(all, func(a, b v1.Descriptor) int { return bytes.Compare([]byte(a.Digest), []byte(b.Digest)) }) {
		s.Error("referrers are not in the order of their digests")
	}
	for _, desc := range all {
		kind := desc.Annotations["kind"]
		equal(s, "digest", desc.Digest, byType[kind])
		if kind == "" {
			kind = v1.MediaTypeImageConfig
		}
		equal(s, "artifact type", desc.ArtifactType, kind)
	}
	filtered, err := collect(s.repo.Referrers(s.ctx, subject.Digest, &berth.ReferrersOptions{ArtifactType: "a/sbom"}))
	s.must(err)
	equal(s, "filtered", len(filtered), 1)
	equal(s, "filtered", filtered[0].Digest, byType["a/sbom"])
	rest, err := collect(s.repo.Referrers(s.ctx, subject.Digest, &berth.ReferrersOptions{After: all[0].Digest}))
	s.must(err)
	equal(s, "after the first", len(rest), 2)
}
