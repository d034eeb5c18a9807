package ocilayout

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest/schema1"
)

// signedManifest makes a manifest of schema 1, with its one layer in the repository.
func signedManifest(t *testing.T, r berth.Repository, tag string) *schema1.Manifest {
	t.Helper()
	layer, err := schema1.NewLayer(uploadBlob(t, r, "layer").Digest, fmt.Appendf(nil, `{"id":"%064d"}`, 1))
	if err != nil {
		t.Fatal(err)
	}
	to := schema1.Target{Ref: berth.Reference{Repository: r.Name(), Tag: tag}}
	m, err := schema1.Build(to, "amd64", []schema1.Layer{layer})
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = m.Sign(key, time.Unix(1_420_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	return m
}

func pushSigned(t *testing.T, r berth.Repository, m *schema1.Manifest, tags ...string) {
	t.Helper()
	if _, err := r.PushManifest(t.Context(), m.Raw(), &berth.PushOptions{Tags: tags}); err != nil {
		t.Fatal(err)
	}
}

func wantServed(t *testing.T, l *Layout, ref string, m *schema1.Manifest) {
	t.Helper()
	got, err := repo(t, l, "app/hello").FetchManifest(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Descriptor.Digest != m.Digest() || got.Descriptor.MediaType != schema1.MediaTypeSigned || !bytes.Equal(got.Raw, m.Raw()) {
		t.Errorf("%s: got %v of %d bytes", ref, got.Descriptor, len(got.Raw))
	}
}

// The payload is what the digest names, so any program finds the manifest in the directory.
func TestAPayloadIsABlobOfItsDigest(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	m := signedManifest(t, repo(t, l, "app/hello"), "v1")
	pushSigned(t, repo(t, l, "app/hello"), m, "v1")
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries := readIndex(t, dir).Manifests
	if len(entries) != 1 {
		t.Fatalf("%d entries", len(entries))
	}
	want := v1.Descriptor{MediaType: schema1.MediaType, Digest: m.Digest(), Size: int64(len(m.Payload()))}
	if e := entries[0]; e.MediaType != want.MediaType || e.Digest != want.Digest || e.Size != want.Size ||
		e.Annotations[annotationSigned] != string(digest.FromBytes(m.Raw())) {
		t.Errorf("got entry %+v", e)
	}
	for d, content := range map[digest.Digest][]byte{m.Digest(): m.Payload(), digest.FromBytes(m.Raw()): m.Raw()} {
		if got, err := os.ReadFile(filepath.Join(dir, blobPath(d))); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", d, len(got), err)
		}
	}
}

// What index.json says is enough to serve the signatures again, of a tag and of what has none.
func TestSignaturesOutliveTheIndex(t *testing.T) {
	for _, tags := range [][]string{{"v1"}, nil} {
		dir := t.TempDir()
		l, err := Open(t.Context(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := signedManifest(t, repo(t, l, "app/hello"), "v1")
		pushSigned(t, repo(t, l, "app/hello"), m, tags...)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openWith(t, dir, &Options{Rebuild: true})
		wantServed(t, l, string(m.Digest()), m)
		if len(tags) > 0 {
			wantServed(t, l, "v1", m)
		}
		if report, err := l.Fsck(t.Context(), nil); err != nil || len(report.Problems) > 0 || report.Sparse > 0 {
			t.Errorf("got %+v, %v", report, err)
		}
	}
}

// An annotation that names another file, or none, leaves the payload, which needs no signature.
func TestASignedFileThatIsAnothers(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := repo(t, l, "app/hello")
	m, other := signedManifest(t, r, "v1"), signedManifest(t, r, "v2")
	pushSigned(t, r, m, "v1")
	pushSigned(t, r, other)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []digest.Digest{digest.FromBytes(other.Raw()), digest.FromString("absent"), "none"} {
		edit(t, dir, func(index *v1.Index) {
			index.Manifests = index.Manifests[:1]
			index.Manifests[0].Annotations[annotationSigned] = string(file)
		})
		l, err := Open(t.Context(), dir, &Options{Rebuild: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := repo(t, l, "app/hello").FetchManifest(t.Context(), "v1", nil)
		if err != nil || got.Descriptor.MediaType != schema1.MediaType || !bytes.Equal(got.Raw, m.Payload()) {
			t.Errorf("%s: got %v, %v", file, got.Descriptor, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSignaturesAreCollectedWithTheirManifest(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	m := signedManifest(t, r, "v1")
	pushSigned(t, r, m, "v1")
	pushImage(t, r, "another")
	signed := digest.FromBytes(m.Raw())
	if err := r.DeleteBlob(t.Context(), signed); err != nil {
		t.Fatal(err)
	}
	collect(t, l, berth.GCOptions{Grace: -1})
	wantServed(t, l, "v1", m)
	wantFile(t, dir, signed, true)
	if err := r.DeleteManifest(t.Context(), m.Digest()); err != nil {
		t.Fatal(err)
	}
	collect(t, l, berth.GCOptions{Grace: -1})
	wantFile(t, dir, signed, false)
	wantFile(t, dir, m.Digest(), false)
}
