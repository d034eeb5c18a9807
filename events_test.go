package berth_test

import (
	"encoding/json"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// An event as JSON has what it says, and nothing of what it does not.
func TestEventsAsJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		event berth.Event
		want  string
	}{
		{berth.Event{Position: "x-1", Kind: berth.EventBookmark}, `{"position":"x-1","kind":"bookmark"}`},
		{berth.Event{Position: "x-2", Kind: berth.EventPush, Time: at, Repository: "app", Tags: []string{"v1"},
			Descriptor: v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: "sha256:ab", Size: 7}},
			`{"position":"x-2","kind":"push","time":"2026-01-02T03:04:05Z","repository":"app","descriptor":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:ab","size":7},"tags":["v1"]}`},
		{berth.Event{Position: "x-3", Kind: berth.EventGC, Time: at, GC: &berth.GCSummary{Blobs: 2, Bytes: 9}},
			`{"position":"x-3","kind":"gc","time":"2026-01-02T03:04:05Z","gc":{"blobs":2,"bytes":9}}`},
	} {
		if got, err := json.Marshal(tt.event); err != nil || string(got) != tt.want {
			t.Errorf("got %s, %v, want %s", got, err, tt.want)
		}
	}
}
