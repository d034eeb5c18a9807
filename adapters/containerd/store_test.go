package containerd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/containerd"
	"github.com/berthoci/berth/sdk/remote"
)

var (
	errNotFound error = errdefs.ErrNotFound
	nothing           = digest.FromString("nothing")
)

func TestWhatAStoreHas(t *testing.T) {
	registry := open(t)
	pushed, err := registry.Push(t.Context(), single(t, "one"), "app/has:v1", nil)
	must(t, err)
	store := containerd.NewStore(repository(t, registry, "app/has"))
	for d, raw := range contents(t, store, pushed.Descriptor) {
		info, err := store.Info(t.Context(), d)
		want := content.Info{Digest: d, Size: int64(len(raw))}
		if err != nil || info.Digest != want.Digest || info.Size != want.Size || info.Labels != nil || !info.CreatedAt.IsZero() {
			t.Errorf("of %s it says %+v, want %+v: %v", d, info, want, err)
		}
		if there, err := content.Exists(t.Context(), store, ocispec.Descriptor{Digest: d}); !there || err != nil {
			t.Errorf("%s exists: %v, %v", d, there, err)
		}
		// A media type that is wrong is no reason not to find it.
		for _, mediaType := range []string{"", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer} {
			got, err := content.ReadBlob(t.Context(), store, ocispec.Descriptor{MediaType: mediaType, Digest: d})
			if string(got) != raw || err != nil {
				t.Errorf("%s as %q has %d bytes, want %d: %v", d, mediaType, len(got), len(raw), err)
			}
		}
	}
}

func TestWhatAStoreLacks(t *testing.T) {
	store, _ := newStore(t)
	_, err := store.Info(t.Context(), nothing)
	wants(t, "info of nothing", err, errdefs.ErrNotFound, berth.ErrBlobUnknown)
	_, err = store.ReaderAt(t.Context(), ocispec.Descriptor{Digest: nothing})
	wants(t, "a reader of nothing", err, errdefs.ErrNotFound)
	_, err = store.ReaderAt(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: nothing})
	wants(t, "a reader of no manifest", err, errdefs.ErrNotFound)
	wants(t, "to delete nothing", store.Delete(t.Context(), nothing), errdefs.ErrNotFound)
	if there, err := content.Exists(t.Context(), store, ocispec.Descriptor{Digest: nothing}); there || err != nil {
		t.Errorf("nothing exists: %v, %v", there, err)
	}
	for what, err := range map[string]error{
		"info":   func() error { _, err := store.Info(t.Context(), "what"); return err }(),
		"reader": func() error { _, err := store.ReaderAt(t.Context(), ocispec.Descriptor{}); return err }(),
		"delete": store.Delete(t.Context(), "what"),
		"writer": func() error {
			_, err := store.Writer(t.Context(), content.WithRef("r"), content.WithDescriptor(ocispec.Descriptor{Digest: "what"}))
			return err
		}(),
	} {
		wants(t, what+" of what is no digest", err, errdefs.ErrInvalidArgument, berth.ErrDigestInvalid)
	}
}

func TestWhatARepositoryCannotDo(t *testing.T) {
	store, _ := newStore(t)
	d := writeBlob(t, store, "content")
	_, err := store.Update(t.Context(), content.Info{Digest: d, Labels: map[string]string{"a": "b"}}, "labels.a")
	wants(t, "to set a label", err, errdefs.ErrNotImplemented)
	wants(t, "to walk", store.Walk(t.Context(), func(content.Info) error { return nil }), errdefs.ErrNotImplemented)
}

func TestDeleteTakesAwayWhatThereIs(t *testing.T) {
	registry := open(t)
	pushed, err := registry.Push(t.Context(), single(t, "one"), "app/deleted:v1,v2", nil)
	must(t, err)
	store := containerd.NewStore(repository(t, registry, "app/deleted"))
	must(t, content.WriteBlob(t.Context(), store, "another", strings.NewReader("blob"), ocispec.Descriptor{Digest: digest.FromString("blob"), Size: 4}))
	for d := range contents(t, store, pushed.Descriptor) {
		must(t, store.Delete(t.Context(), d))
		_, err := store.Info(t.Context(), d)
		wants(t, "what was deleted", err, errdefs.ErrNotFound)
		wants(t, "to delete again", store.Delete(t.Context(), d), errdefs.ErrNotFound)
	}
	if _, err := registry.Resolve(t.Context(), "app/deleted:v2"); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("a tag of what was deleted: %v", err)
	}
	if got := readBlob(t, store, digest.FromString("blob")); got != "blob" {
		t.Errorf("what was not deleted is %q", got)
	}
}

// What is a blob and a manifest is gone when it was deleted.
func TestDeleteOfBoth(t *testing.T) {
	registry := open(t)
	from := files(t)
	root := fill(t, from, single(t, "one"))
	store := containerd.NewStore(repository(t, registry, "app/both"))
	for d, raw := range contents(t, from, root) {
		if got := writeBlob(t, store, raw); got != d {
			t.Fatalf("%s was written as %s", d, got)
		}
	}
	_, err := registry.Push(t.Context(), containerd.Source(store, root), "app/both:v1", nil)
	must(t, err)
	must(t, store.Delete(t.Context(), root.Digest))
	_, err = store.Info(t.Context(), root.Digest)
	wants(t, "what was deleted", err, errdefs.ErrNotFound)
}

func TestReferrersAreThoseOfTheRepository(t *testing.T) {
	registry := open(t)
	pushed, err := registry.Push(t.Context(), single(t, "one"), "app/signed:v1", nil)
	must(t, err)
	repo := repository(t, registry, "app/signed")
	store := containerd.NewStore(repo)
	config := writeBlob(t, store, "{}")
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"text/signature","config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeEmptyJSON, config, pushed.Descriptor.MediaType, pushed.Descriptor.Digest, pushed.Descriptor.Size)
	signature, err := repo.PushManifest(t.Context(), []byte(raw), nil)
	must(t, err)
	found, err := store.Referrers(t.Context(), pushed.Descriptor)
	must(t, err)
	if len(found) != 1 || found[0].Digest != signature.Digest || found[0].ArtifactType != "text/signature" {
		t.Errorf("the referrers are %v, want %s", found, signature.Digest)
	}
}

func TestReadingAtAnyPlace(t *testing.T) {
	store, _ := newStore(t)
	text := strings.Repeat("0123456789", 10_000)
	at, err := store.ReaderAt(t.Context(), ocispec.Descriptor{Digest: writeBlob(t, store, text)})
	must(t, err)
	defer at.Close()
	if at.Size() != int64(len(text)) {
		t.Errorf("it has %d bytes, want %d", at.Size(), len(text))
	}
	var group sync.WaitGroup
	for _, offset := range []int{0, 5, 99_990, 50_000, 7, 99_999} {
		group.Go(func() {
			p := make([]byte, min(10, len(text)-offset))
			if n, err := at.ReadAt(p, int64(offset)); n != len(p) || err != nil || string(p) != text[offset:offset+n] {
				t.Errorf("at %d there is %q: %v", offset, p[:n], err)
			}
		})
	}
	group.Wait()
	p := make([]byte, 10)
	if n, err := at.ReadAt(p, 99_995); n != 5 || !errors.Is(err, io.EOF) || string(p[:n]) != "56789" {
		t.Errorf("beyond the end there is %q: %v", p[:n], err)
	}
	if n, err := at.ReadAt(p, 100_000); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the end there is %q: %v", p[:n], err)
	}
	if _, err := at.ReadAt(p, -1); err == nil {
		t.Error("before the start there is something")
	}
	if all, err := io.ReadAll(content.NewReader(at)); string(all) != text || err != nil {
		t.Errorf("all of it has %d bytes, want %d: %v", len(all), len(text), err)
	}
}

// damaged is a repository that gives other bytes than it has.
type damaged struct {
	berth.Repository
	change func([]byte) []byte
}

type changedBlob struct {
	berth.Blob
	place *bytes.Reader
}

func (c changedBlob) Read(p []byte) (int, error)                 { return c.place.Read(p) }
func (c changedBlob) Seek(offset int64, from int) (int64, error) { return c.place.Seek(offset, from) }

func (d damaged) OpenBlob(ctx context.Context, of digest.Digest) (berth.Blob, error) {
	blob, err := d.Repository.OpenBlob(ctx, of)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(blob)
	return changedBlob{blob, bytes.NewReader(d.change(raw))}, err
}

func TestAnEndThatComesTooEarlyOrTooLate(t *testing.T) {
	store, repo := newStore(t)
	d := writeBlob(t, store, "content")
	shorter := containerd.NewStore(damaged{repo, func(raw []byte) []byte { return raw[:3] }})
	at, err := shorter.ReaderAt(t.Context(), ocispec.Descriptor{Digest: d})
	must(t, err)
	if _, err := io.ReadAll(content.NewReader(at)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("bytes that are missing: %v", err)
	}
	if _, err := at.ReadAt(make([]byte, 2), 4); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("bytes that are missing, from there on: %v", err)
	}
	longer := containerd.NewStore(damaged{repo, func(raw []byte) []byte { return append(raw, 'x') }})
	at, err = longer.ReaderAt(t.Context(), ocispec.Descriptor{Digest: d})
	must(t, err)
	_, err = io.ReadAll(content.NewReader(at))
	wants(t, "bytes too many", err, errdefs.ErrDataLoss, berth.ErrDigestInvalid)
}

// liar is a registry that serves other bytes under a digest.
type liar struct{ http.RoundTripper }

func (l liar) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil && req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/sha256:") {
		raw, readErr := io.ReadAll(resp.Body)
		resp.Body.Close()
		resp.Body, err = io.NopCloser(bytes.NewReader(bytes.ToUpper(raw))), readErr
	}
	return resp, err
}

func TestWhatARemoteRegistrySendsIsVerified(t *testing.T) {
	registry := open(t)
	d := writeBlob(t, containerd.NewStore(repository(t, registry, "app/lies")), "content")
	lying := remoteOf(t, registry.Endpoint().Host, registry.Endpoint().Password, func(rt http.RoundTripper) http.RoundTripper { return liar{rt} })
	at, err := containerd.NewStore(repository(t, lying, "app/lies")).ReaderAt(t.Context(), ocispec.Descriptor{Digest: d})
	must(t, err)
	_, err = io.ReadAll(content.NewReader(at))
	wants(t, "other bytes", err, errdefs.ErrDataLoss, berth.ErrDigestInvalid)
	must(t, at.Close())
}

// bearer gives requests a token.
type bearer struct {
	token string
	http.RoundTripper
}

func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(req)
}

// remoteOf is a registry that is spoken to by another transport.
func remoteOf(tb testing.TB, host, token string, wrap func(http.RoundTripper) http.RoundTripper) *remote.Registry {
	tb.Helper()
	transport := &http.Transport{ResponseHeaderTimeout: time.Minute}
	tb.Cleanup(transport.CloseIdleConnections)
	registry, err := remote.New(host, &remote.Options{Transport: wrap(bearer{token, transport})})
	must(tb, err)
	return registry
}
