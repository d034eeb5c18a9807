package sdk_test

import (
	"errors"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
)

func TestImagesWithoutALayoutNeedAHost(t *testing.T) {
	images := sdk.NewImages(nil)
	if _, err := images.Resolve(t.Context(), "app/hello:v1"); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("resolve: got %v", err)
	}
	for _, err := range images.Tags(t.Context(), "app/hello") {
		if !errors.Is(err, berth.ErrUnsupported) {
			t.Errorf("tags: got %v", err)
		}
	}
	if _, err := images.FetchReference(t.Context(), "app/hello:v1"); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("fetch: got %v", err)
	}
}
