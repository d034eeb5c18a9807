package sync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	gosync "sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/sync"
	"github.com/berthoci/berth/server"
)

// store is images in memory, as a source.
type store map[digest.Digest]string

func (s store) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	content, ok := s[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: %w", desc.Digest, berth.ErrBlobUnknown)
	}
	return io.NopCloser(bytes.NewReader([]byte(content))), nil
}

func (s store) add(mediaType, content string) v1.Descriptor {
	desc := manifest.Descriptor(mediaType, []byte(content))
	s[desc.Digest] = content
	return desc
}

func (s store) layer(content string) v1.Descriptor {
	return s.add(v1.MediaTypeImageLayer, content)
}

// image adds an image of these layers. Images of the same layers are the same.
func (s store) image(layers ...v1.Descriptor) v1.Descriptor {
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: s.add(v1.MediaTypeImageConfig, `{"os":"linux"}`), Layers: layers}
	m.SchemaVersion = 2
	return s.encode(m.MediaType, m)
}

func (s store) index(children ...v1.Descriptor) v1.Descriptor {
	x := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: children}
	x.SchemaVersion = 2
	return s.encode(x.MediaType, x)
}

func (s store) encode(mediaType string, v any) v1.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // the values are the tests' own
	}
	return s.add(mediaType, string(data))
}

// platforms is an index of two images that share a layer.
func (s store) platforms() (root, amd64, arm64 v1.Descriptor) {
	base := s.layer("base")
	amd64, arm64 = s.image(base, s.layer("for amd64")), s.image(base, s.layer("for arm64"))
	amd64.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	return s.index(amd64, arm64), amd64, arm64
}

// recorder is a target in memory that remembers what it was asked, in order. It refuses what no
// registry would take.
type recorder struct {
	// before, if set, is called before each call counts; its error is the call's.
	before func(call string) error

	mu    gosync.Mutex // guards the fields below
	calls []string
	has   map[string]bool
	root  digest.Digest
}

// place is where a target keeps something: blobs and manifests apart, as registries do.
func place(desc v1.Descriptor) string {
	if manifest.KindOf(desc.MediaType) != 0 {
		return "manifest " + string(desc.Digest)
	}
	return "blob " + string(desc.Digest)
}

func newRecorder(has ...v1.Descriptor) *recorder {
	r := &recorder{has: map[string]bool{}}
	for _, desc := range has {
		r.has[place(desc)] = true
	}
	return r
}

func (r *recorder) call(what string, desc v1.Descriptor) error {
	if r.before != nil {
		if err := r.before(what + " " + string(desc.Digest)); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, what+" "+string(desc.Digest))
	return nil
}

func (r *recorder) Has(_ context.Context, desc v1.Descriptor) (bool, error) {
	err := r.call("has", desc)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has[place(desc)], err
}

func (r *recorder) PutBlob(_ context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (sync.Action, error) {
	if err := r.call("blob", desc); err != nil {
		return "", err
	}
	content, err := open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	data, err := io.ReadAll(content)
	if err == nil {
		err = manifest.Verify(desc, data)
	}
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.has[place(desc)] = true
	return sync.Sent, nil
}

func (r *recorder) PutManifest(_ context.Context, desc v1.Descriptor, raw []byte, root bool) error {
	if err := r.call("manifest", desc); err != nil {
		return err
	}
	doc, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, child := range doc.Required() {
		if doc.Kind == manifest.Image {
			child.MediaType = ""
		}
		if !r.has[place(child)] {
			return fmt.Errorf("%s came before its child %s: %w", desc.Digest, child.Digest, berth.ErrManifestBlobUnknown)
		}
	}
	r.has[place(desc)] = true
	if root {
		r.root = desc.Digest
	}
	return nil
}

// count is how often a call was made about a descriptor.
func (r *recorder) count(what string, desc v1.Descriptor) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, call := range r.calls {
		if call == what+" "+string(desc.Digest) {
			n++
		}
	}
	return n
}

func (r *recorder) position(what string, desc v1.Descriptor) int {
	return slices.Index(r.calls, what+" "+string(desc.Digest))
}

// local is an empty layout.
func local(tb testing.TB) berth.Registry {
	tb.Helper()
	layout, err := ocilayout.Open(tb.Context(), tb.TempDir(), nil)
	must(tb, err)
	tb.Cleanup(func() { must(tb, layout.Close()) })
	return layout
}

// served is a registry behind HTTP, and the requests that it has answered.
type served struct {
	*remote.Registry
	layout berth.Registry

	mu       gosync.Mutex // guards the fields below
	requests []string
	refuse   func(r *http.Request) bool
}

func serve(tb testing.TB) *served { return serveWith(tb, nil) }

// serveSparse takes indexes whose children are missing.
func serveSparse(tb testing.TB) *served { return serveWith(tb, &server.Options{AllowMissing: true}) }

func serveWith(tb testing.TB, opts *server.Options) *served {
	tb.Helper()
	s := &served{layout: local(tb)}
	handler := server.New(s.layout, opts)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.note(r) {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	tb.Cleanup(srv.Close)
	var err error
	s.Registry, err = remote.New(srv.Listener.Addr().String(), &remote.Options{Patience: -1})
	must(tb, err)
	return s
}

// refuseFrom has requests fail from now on, though some may still be under way that nobody waits for.
func (s *served) refuseFrom(which func(r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = which
}

// note remembers a request, and reports whether it is to fail.
func (s *served) note(r *http.Request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	return s.refuse != nil && s.refuse(r)
}

// sent forgets the requests, and returns those that brought something.
func (s *served) sent() (writes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r[:3] != "GET" && r[:4] != "HEAD" {
			writes = append(writes, r)
		}
	}
	s.requests = nil
	return writes
}

func (s *served) open(tb testing.TB, name string) *remote.Repository {
	tb.Helper()
	repo, err := s.Open(name)
	must(tb, err)
	return repo
}

// push brings an image of a store into a registry.
func (s store) push(tb testing.TB, to berth.Registry, name string, root v1.Descriptor, tags ...string) {
	tb.Helper()
	repo, err := to.Repository(name)
	must(tb, err)
	_, err = sync.Copy(tb.Context(), s, contract{repo, tags}, root, nil)
	must(tb, err)
}

// contract is any repository as a target.
type contract struct {
	berth.Repository
	tags []string
}

func (c contract) Has(context.Context, v1.Descriptor) (bool, error) { return false, nil }

func (c contract) PutBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (sync.Action, error) {
	content, err := open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	up, err := c.NewUpload(ctx, nil)
	if err != nil {
		return "", err
	}
	defer up.Close()
	if _, err := io.Copy(up, content); err != nil {
		return "", err
	}
	_, err = up.Commit(ctx, desc.Digest)
	return sync.Sent, err
}

func (c contract) PutManifest(ctx context.Context, desc v1.Descriptor, raw []byte, root bool) error {
	opts := &berth.PushOptions{MediaType: desc.MediaType}
	if root {
		opts.Tags = c.tags
	}
	_, err := c.PushManifest(ctx, raw, opts)
	return err
}

// tagsOf are the tags of a repository; none where there is no such repository.
func tagsOf(tb testing.TB, registry berth.Registry, name string) (tags []string) {
	tb.Helper()
	repo, err := registry.Repository(name)
	must(tb, err)
	for tag, err := range repo.Tags(tb.Context(), "") {
		if errors.Is(err, berth.ErrNameUnknown) {
			return nil
		}
		must(tb, err)
		tags = append(tags, tag)
	}
	return tags
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// childrenThere counts the children of an index that a repository has.
func childrenThere(tb testing.TB, repo berth.Repository, index digest.Digest) (n int) {
	tb.Helper()
	m, err := repo.FetchManifest(tb.Context(), string(index), nil)
	must(tb, err)
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	must(tb, err)
	for _, child := range doc.Manifests {
		if _, err := repo.Resolve(tb.Context(), string(child.Digest)); err == nil {
			n++
		}
	}
	return n
}

// referrer adds an artifact that refers to a manifest.
func (s store) referrer(subject v1.Descriptor, kind string) v1.Descriptor {
	subject = v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, ArtifactType: "x/y", Config: s.add(v1.MediaTypeEmptyJSON, "{}"), Layers: []v1.Descriptor{s.layer(kind)}, Subject: &subject}
	m.SchemaVersion = 2
	return s.encode(m.MediaType, m)
}
