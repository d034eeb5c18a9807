package remote_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
	"github.com/berthoci/berth/sdk/remote"
)

// Row 25: where a registry takes no notice of conditions, nothing is overwritten or removed that is not where the caller
// believes it to be.
func TestCase25ConditionsThatARegistryIgnores(t *testing.T) {
	other := []byte(`{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[],"annotations":{"a":"b"}}`)
	elsewhere := digest.FromString("elsewhere")
	for _, ignores := range []bool{true, false} {
		s := newStage(t, hostile.Options{IgnoreConditions: ignores})
		s.PutManifest("x", "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
		repo := s.open(t, "x")
		for name, opts := range map[string]berth.PushOptions{
			"it is to be new":             {Tags: []string{"v1"}, IfNoneMatch: true},
			"it is to be elsewhere":       {Tags: []string{"v1"}, IfMatch: elsewhere},
			"one of two is to be new":     {Tags: []string{"v2", "v1"}, IfNoneMatch: true},
			"what is not there is to be":  {Tags: []string{"v2"}, IfMatch: emptyDigest},
			"it is to be there, and new":  {Tags: []string{"v1"}, IfMatch: emptyDigest, IfNoneMatch: true},
			"it is not there, and is not": {Tags: []string{"v2"}, IfMatch: emptyDigest, IfNoneMatch: true},
		} {
			if _, err := repo.PushManifest(t.Context(), other, &opts); !errors.Is(err, berth.ErrPreconditionFailed) {
				t.Errorf("ignored: %v, %s: %v", ignores, name, err)
			}
		}
		if err := repo.Untag(t.Context(), "v1", &berth.UntagOptions{IfMatch: elsewhere}); !errors.Is(err, berth.ErrPreconditionFailed) {
			t.Errorf("ignored: %v, untag: %v", ignores, err)
		}
		if got := s.Tags("x"); !slices.Equal(got, []string{"v1"}) || string(s.Manifest("x", "v1")) != emptyIndex {
			t.Errorf("ignored: %v: there are %q", ignores, got)
		}
		for name, err := range map[string]error{
			"a new one": pushIf(t, repo, other, berth.PushOptions{Tags: []string{"v3", "v4"}, IfNoneMatch: true}),
			"a move":    pushIf(t, repo, other, berth.PushOptions{Tags: []string{"v1"}, IfMatch: emptyDigest}),
			"a removal": repo.Untag(t.Context(), "v1", &berth.UntagOptions{IfMatch: digest.FromBytes(other)}),
		} {
			if err != nil {
				t.Errorf("ignored: %v, %s: %v", ignores, name, err)
			}
		}
		if got := s.Tags("x"); !slices.Equal(got, []string{"v3", "v4"}) {
			t.Errorf("ignored: %v: there are %q in the end", ignores, got)
		}
	}
}

func pushIf(t *testing.T, repo *remote.Repository, raw []byte, opts berth.PushOptions) error {
	_, err := repo.PushManifest(t.Context(), raw, &opts)
	return err
}

// Row 26: the distribution registry lists what lies below a repository before its neighbours.
func TestCase26ACatalogInAnOrderOfItsOwn(t *testing.T) {
	all := []string{"a", "a/b", "a-b", "a.b", "a0", "a0"}
	srv := func(w http.ResponseWriter, r *http.Request) {
		first := slices.Index(all, r.URL.Query().Get("last")) + 1
		if first+2 < len(all) {
			w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?n=2&last=%s>; rel="next"`, all[first+1]))
		}
		fmt.Fprintf(w, `{"repositories":["%s"]}`, strings.Join(all[first:first+2], `","`))
	}
	registry := registryOf(t, srv)
	want := []string{"a", "a-b", "a.b", "a/b", "a0"}
	for i, after := range append([]string{""}, want...) {
		var got []string
		for name, err := range registry.Repositories(t.Context(), after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, name)
		}
		if !slices.Equal(got, want[i:]) {
			t.Errorf("after %q: got %q, want %q", after, got, want[i:])
		}
	}
	for range registry.Repositories(t.Context(), "") {
		break // which ends it
	}
}

// Row 17: of an upload that has no byte, or one, a registry says the same.
func TestCase17AnUploadOfOneByte(t *testing.T) {
	for size := range 3 {
		s := newStage(t, hostile.Options{})
		repo := s.open(t, "x")
		begun, err := repo.NewUpload(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := begun.Write([]byte("layer")[:size]); err != nil {
			t.Fatal(err)
		}
		up, err := repo.ResumeUpload(t.Context(), begun.ID())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []byte("layer")[size:] {
			if _, err := up.Write([]byte{b}); err != nil {
				t.Fatalf("after %d bytes: %v", size, err)
			}
		}
		desc, err := up.Commit(t.Context(), digest.FromString("layer"))
		if err != nil || desc.Size != 5 || string(s.Blob("x", desc.Digest)) != "layer" {
			t.Errorf("after %d bytes: %+v, %v", size, desc, err)
		}
	}
}

// Row 17: a connection that breaks after the first byte.
func TestCase17AChunkOfWhichOneByteArrives(t *testing.T) {
	s := newStage(t, hostile.Options{Faults: []*hostile.Fault{{On: hostile.On("PATCH", ""), Times: 1, Cut: true, After: 1}}})
	up, err := s.open(t, "x").NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := up.Write([]byte("layer")); err != nil || n != 5 {
		t.Fatal(n, err)
	}
	if desc, err := up.Commit(t.Context(), digest.FromString("layer")); err != nil || desc.Size != 5 {
		t.Errorf("got %+v, %v", desc, err)
	}
}

// Row 22: the distribution registry tells in the detail alone what is missing.
func TestCase22AChildThatOnlyTheDetailNames(t *testing.T) {
	child, layer := digest.FromString("child"), digest.FromString("layer")
	for detail, names := range map[string]string{
		fmt.Sprintf(`"%s"`, layer):                string(layer),
		fmt.Sprintf(`{"digest":"%s"}`, layer):     string(layer),
		fmt.Sprintf(`"localhost:5000 %s"`, layer): string(layer),
		fmt.Sprintf(`"%s"`, child):                "",
		`"sha256:short"`:                          "",
		`{"name":"x"}`:                            "",
	} {
		body := fmt.Sprintf(`{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"unknown: %s","detail":%s}]}`, child, detail)
		_, err := against(t, answer(400, body)).PushManifest(t.Context(), []byte(emptyIndex), nil)
		says := "MANIFEST_BLOB_UNKNOWN: unknown: " + string(child)
		if names != "" {
			says += ": " + names
		}
		if !errors.Is(err, berth.ErrManifestBlobUnknown) || !strings.HasSuffix(err.Error(), says) {
			t.Errorf("%s: got %v, want %s", detail, err, says)
		}
	}
}
