// Package registrytest is the conformance suite for the contract of package berth: what any
// implementation must do, whether it is a directory, a registry over HTTP, or a live plugin.
//
//	func TestContract(t *testing.T) {
//		registrytest.Run(t, func(t *testing.T) berth.Registry { return open(t) })
//	}
package registrytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// New makes an empty registry for one test and arranges its end with t.Cleanup.
type New func(t *testing.T) berth.Registry

// Run runs the suite. Each case gets a registry of its own.
func Run(t *testing.T, open New) { RunLacking(t, Lacks{}, open) }

// RunLacking is Run for an implementation that cannot do all of it.
func RunLacking(t *testing.T, lacks Lacks, open New) {
	for _, c := range allCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(newSuite(t, lacks, open))
		})
	}
	for _, l := range allLacks() {
		if !l.in(lacks) {
			continue
		}
		t.Run("it lacks "+l.name, func(t *testing.T) {
			t.Parallel()
			if !l.shows(newSuite(t, lacks, open)) {
				t.Error("it does not: have the suite demand it")
			}
		})
	}
}

func allCases() []testCase {
	return slices.Concat(blobCases, uploadCases, manifestCases, schema1Cases, listCases)
}

type testCase struct {
	name string
	run  func(*suite)
}

// suite is one case's registry and the helpers that all cases share.
type suite struct {
	*testing.T
	ctx   context.Context
	reg   berth.Registry
	repo  berth.Repository
	lacks Lacks
}

func newSuite(t *testing.T, lacks Lacks, open New) *suite {
	t.Helper()
	s := &suite{T: t, ctx: t.Context(), reg: open(t), lacks: lacks}
	s.repo = s.repository("app/hello")
	return s
}

func (s *suite) repository(name string) berth.Repository {
	s.Helper()
	repo, err := s.reg.Repository(name)
	s.must(err)
	return repo
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// wantErr also tells the error, so that it is looked through for secrets.
func (s *suite) wantErr(err, want error) {
	s.Helper()
	s.Logf("error: %v", err)
	if !errors.Is(err, want) {
		s.Errorf("got error %v, want %v", err, want)
	}
}

// upload pushes content into the repository and returns its descriptor.
func (s *suite) upload(repo berth.Repository, content []byte) v1.Descriptor {
	s.Helper()
	return s.uploadAs(repo, digest.SHA256, content)
}

func (s *suite) uploadAs(repo berth.Repository, algorithm digest.Algorithm, content []byte) v1.Descriptor {
	s.Helper()
	up, err := repo.NewUpload(s.ctx, &berth.UploadOptions{Algorithm: algorithm})
	s.must(err)
	defer up.Close()
	_, err = io.Copy(up, bytes.NewReader(content))
	s.must(err)
	desc, err := up.Commit(s.ctx, algorithm.FromBytes(content))
	s.must(err)
	return desc
}

func (s *suite) read(repo berth.Repository, d digest.Digest) []byte {
	s.Helper()
	blob, err := repo.OpenBlob(s.ctx, d)
	s.must(err)
	defer blob.Close()
	content, err := io.ReadAll(blob)
	s.must(err)
	return content
}

// push stores a manifest under tags.
func (s *suite) push(repo berth.Repository, raw []byte, tags ...string) v1.Descriptor {
	s.Helper()
	desc, err := repo.PushManifest(s.ctx, raw, &berth.PushOptions{Tags: tags})
	s.must(err)
	return desc
}

// image uploads a config and a layer and returns the manifest that names them, not yet pushed.
func (s *suite) image(repo berth.Repository) v1.Manifest {
	s.Helper()
	config := s.upload(repo, []byte(`{"architecture":"amd64","os":"linux","nonce":"`+rand.Text()+`"}`))
	layer := s.upload(repo, []byte(rand.Text()))
	config.MediaType, layer.MediaType = v1.MediaTypeImageConfig, v1.MediaTypeImageLayer
	return v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    config,
		Layers:    []v1.Descriptor{layer},
	}
}

// images is n manifests of image.
func (s *suite) images(n int) (raws [][]byte) {
	s.Helper()
	for range n {
		raws = append(raws, encode(s.image(s.repo)))
	}
	return raws
}

func index(children ...v1.Descriptor) v1.Index {
	if children == nil {
		children = []v1.Descriptor{}
	}
	return v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: children}
}

func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

func random(n int) []byte {
	content := make([]byte, n)
	rand.Read(content)
	return content
}

// collect drains a sequence, up to its first error.
func collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for v, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
	return all, nil
}

func absent(text string) digest.Digest { return digest.FromString("absent " + text) }

func equal[T any](s *suite, what string, got, want T) {
	s.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%s: got %v, want %v", what, got, want)
	}
}
