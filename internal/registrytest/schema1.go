package registrytest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest/schema1"
)

var schema1Cases = []testCase{
	{"a signed schema 1 manifest comes out as it went in, under its payload's digest", func(s *suite) {
		s.needs(schema1Manifests)
		m := s.signed(s.schema1("app/hello", "v1"))
		want := v1.Descriptor{MediaType: schema1.MediaTypeSigned, Digest: m.Digest(), Size: int64(len(m.Raw()))}
		equal(s, "descriptor", s.push(s.repo, m.Raw(), "v1"), want)
		if m.Digest() == digest.FromBytes(m.Raw()) {
			s.Fatal("payload and file are the same")
		}
		for _, ref := range []string{"v1", string(m.Digest())} {
			got, err := s.repo.FetchManifest(s.ctx, ref, nil)
			s.must(err)
			equal(s, "descriptor", got.Descriptor, want)
			if !bytes.Equal(got.Raw, m.Raw()) {
				s.Errorf("%s: other bytes came out", ref)
			}
			resolved, err := s.repo.Resolve(s.ctx, ref)
			s.must(err)
			equal(s, "resolved", resolved, want)
		}
	}},
	{"the last who signs a schema 1 manifest is served", func(s *suite) {
		s.needs(schema1Manifests)
		unsigned := s.schema1("app/hello", "v1")
		for _, m := range []*schema1.Manifest{unsigned, s.signed(unsigned), s.signed(unsigned), unsigned} {
			equal(s, "digest", s.push(s.repo, m.Raw(), "v1").Digest, unsigned.Digest())
			got, err := s.repo.FetchManifest(s.ctx, "v1", nil)
			s.must(err)
			equal(s, "type", got.Descriptor.MediaType, m.MediaType())
			if !bytes.Equal(got.Raw, m.Raw()) {
				s.Error("other bytes came out")
			}
		}
	}},
	{"a schema 1 manifest goes with its tags", func(s *suite) {
		s.needs(schema1Manifests)
		m := s.signed(s.schema1("app/hello", "v1"))
		s.push(s.repo, m.Raw(), "v1")
		s.must(s.repo.DeleteManifest(s.ctx, m.Digest()))
		for _, ref := range []string{"v1", string(m.Digest())} {
			_, err := s.repo.Resolve(s.ctx, ref)
			s.wantErr(err, berth.ErrManifestUnknown)
		}
		s.push(s.repo, m.Raw())
		_, err := s.repo.Resolve(s.ctx, string(m.Digest()))
		s.must(err)
	}},
	{"a schema 1 manifest must be of where it is pushed to", func(s *suite) {
		s.needs(schema1Manifests)
		m := s.signed(s.schema1("app/hello", "v1"))
		push := func(repo string, opts berth.PushOptions, want error) {
			s.Helper()
			_, err := s.repository(repo).PushManifest(s.ctx, m.Raw(), &opts)
			s.wantErr(err, want)
		}
		push("app/hello", berth.PushOptions{Tags: []string{"v2"}}, berth.ErrTagInvalid)
		push("app/hello", berth.PushOptions{Digest: digest.FromBytes(m.Raw())}, berth.ErrManifestInvalid)
		push("app/other", berth.PushOptions{Tags: []string{"v1"}}, berth.ErrNameInvalid)
		push("app/hello", berth.PushOptions{Digest: m.Digest()}, nil)
	}},
	{"in the library namespace a schema 1 manifest may leave that out", func(s *suite) {
		s.needs(schema1Manifests)
		s.repo = s.repository("library/hello")
		m := s.signed(s.schema1("hello", "v1"))
		s.push(s.repo, m.Raw(), "v1")
	}},
	{"a missing layer of schema 1 is a blob that is unknown", func(s *suite) {
		s.needs(schema1Manifests)
		lone, err := schema1.NewLayer(absent("layer"), []byte(`{"id":"`+absent("id").Encoded()+`"}`))
		s.must(err)
		m, err := schema1.Build(schema1.Target{Ref: berth.Reference{Repository: "app/hello", Tag: "v1"}}, "amd64", []schema1.Layer{lone})
		s.must(err)
		_, err = s.repo.PushManifest(s.ctx, m.Raw(), &berth.PushOptions{Tags: []string{"v1"}})
		s.wantErr(err, berth.ErrBlobUnknown)
		if err != nil && !strings.Contains(err.Error(), string(absent("layer"))) {
			s.Errorf("%q does not name the layer", err)
		}
	}},
	{"a schema 1 manifest that is altered is invalid", func(s *suite) {
		raw := s.signed(s.schema1("app/hello", "v1")).Raw()
		for _, change := range [][2]string{{`"amd64"`, `"arm64"`}, {`"parent\":\"`, `"parent\":\"0`}, {`"signature": "`, `"signature": "AA`}} {
			altered := bytes.Replace(raw, []byte(change[0]), []byte(change[1]), 1)
			if bytes.Equal(altered, raw) {
				s.Fatalf("nothing to alter: %s", change[0])
			}
			_, err := s.repo.PushManifest(s.ctx, altered, &berth.PushOptions{Tags: []string{"v1"}})
			s.wantErr(err, berth.ErrManifestInvalid)
		}
	}},
}

// schema1 makes an unsigned manifest of two layers that are in the suite's repository.
func (s *suite) schema1(name, tag string) *schema1.Manifest {
	s.Helper()
	var layers []schema1.Layer
	for i := range 2 {
		v1JSON := fmt.Sprintf(`{"id":"%064d","created":"2015-01-02T03:04:05Z"}`, i+1)
		if i > 0 {
			v1JSON = fmt.Sprintf(`{"id":"%064d","parent":"%064d"}`, i+1, i)
		}
		layer, err := schema1.NewLayer(s.upload(s.repo, []byte(rand.Text())).Digest, []byte(v1JSON))
		s.must(err)
		layers = append(layers, layer)
	}
	m, err := schema1.Build(schema1.Target{Ref: berth.Reference{Repository: name, Tag: tag}}, "amd64", slices.Clip(layers))
	s.must(err)
	return m
}

// signed signs a manifest with a key of its own.
func (s *suite) signed(m *schema1.Manifest) *schema1.Manifest {
	s.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	s.must(err)
	m, err = m.Sign(key, time.Unix(1_420_000_000, 0))
	s.must(err)
	return m
}
