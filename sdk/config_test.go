package sdk_test

import (
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
)

func TestManifestAndConfigAreBytesAsTheyAreStored(t *testing.T) {
	for place, s := range shelves(t) {
		signed := s.schema1(t, true, "old")
		s.index(t, v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, "v1")
		spaced := append([]byte(" \n"), imageOf(v1.MediaTypeImageManifest, s.blob(t, v1.MediaTypeImageConfig, ` {"os":"linux"} `))...)
		s.put(t, v1.MediaTypeImageManifest, spaced, "spaced")
		got, err := s.images.Manifest(t.Context(), s.name+":spaced", nil)
		if err != nil || string(got.Raw) != string(spaced) {
			t.Errorf("%s: got %q, %v", place, got.Raw, err)
		}
		config, err := s.images.Config(t.Context(), s.name+":spaced", nil)
		if err != nil || string(config) != ` {"os":"linux"} ` {
			t.Errorf("%s: got %q, %v", place, config, err)
		}
		got, err = s.images.Manifest(t.Context(), s.name+":old", nil)
		if err != nil || string(got.Raw) != string(signed.Raw()) || got.Descriptor.Digest != signed.Digest() {
			t.Errorf("%s: got %q, %v", place, got.Raw, err)
		}
		config, err = s.images.Config(t.Context(), s.name+":v1", &sdk.InspectOptions{Platform: "linux/arm64"})
		if err != nil || string(config) != configOf("arm64") {
			t.Errorf("%s: got %q, %v", place, config, err)
		}
	}
}

func TestConfigOfWhatHasNone(t *testing.T) {
	for place, s := range shelves(t) {
		s.schema1(t, true, "old")
		_, amd64, _ := s.index(t, v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, "v1")
		amd64.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
		s.put(t, v1.MediaTypeImageIndex, indexOf(v1.MediaTypeImageIndex, amd64), "odd")
		for tag, says := range map[string]string{
			"old": "schema 1 has no config",
			"v1":  "choose a platform: linux/amd64, linux/arm64",
			"odd": "name one by its digest",
		} {
			_, err := s.images.Config(t.Context(), s.name+":"+tag, nil)
			wantErr(t, place+", "+tag, err, berth.ErrUnsupported)
			if err == nil || !strings.Contains(err.Error(), s.name+":"+tag+": ") || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v does not say %q", place, err, says)
			}
		}
		_, err := s.images.Config(t.Context(), s.name+":v9", nil)
		wantErr(t, place+", an absent tag", err, berth.ErrManifestUnknown)
	}
}
