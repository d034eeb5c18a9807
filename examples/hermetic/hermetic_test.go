package hermetic_test

import (
	"net/http"
	"testing"

	"github.com/berthoci/berth/examples/hermetic"
	"github.com/berthoci/berth/sdk/berthtest"
)

func TestReleaseOutlastsABusyRegistry(t *testing.T) {
	registry := berthtest.New(t)
	candidate := registry.PushImage("team/app:rc1", &berthtest.Image{Platforms: []string{"linux/amd64", "linux/arm64"}})
	registry.Fail(berthtest.On("PUT *"), 1, http.StatusServiceUnavailable)

	if err := hermetic.Release(t.Context(), registry.URL(), "team/app", "rc1", "v1"); err != nil {
		t.Fatal(err)
	}
	if got, err := registry.Resolve(t.Context(), "team/app:v1"); err != nil || got.Digest != candidate.Digest {
		t.Errorf("v1 is %v, %v; want %v", got, err, candidate)
	}
	if n := registry.Count(berthtest.On("PUT *")); n != 2 {
		t.Errorf("it has pushed %d times", n)
	}
}
