package ocilayout

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// Referrers whose annotations fill several pages are listed all the same, each once and in order.
func TestReferrersThatFillPages(t *testing.T) {
	r := repo(t, open(t, t.TempDir()), "app/hello")
	subject := digest.FromString("subject")
	var want []digest.Digest
	for i, size := range []int{10, pageBytes / 2, pageBytes / 2, 2 * pageBytes, 3 * pageBytes, 10, 10} {
		raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[],"subject":{"mediaType":%q,"digest":%q,"size":7},"annotations":{"a":"%d%s"}}`,
			v1.MediaTypeImageIndex, v1.MediaTypeImageIndex, subject, i, strings.Repeat("x", size))
		desc, err := r.PushManifest(t.Context(), []byte(raw), &berth.PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, desc.Digest)
	}
	slices.Sort(want)
	var got []digest.Digest
	for desc, err := range r.Referrers(t.Context(), subject, nil) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, desc.Digest)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
