package schema1

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// gzipped tells of every blob that it is one.
func gzipped(d digest.Digest) (Blob, error) {
	return Blob{DiffID: digest.FromString("diff of " + string(d)), Size: 7}, nil
}

// modern is a manifest of three layers, of which the second is throwaway.
func modern(t *testing.T) *Manifest {
	return parse(t, manifestOf(
		v1JSON(v1ID(0), "", `,"created":"2015-01-01T00:00:00Z","container_config":{"Cmd":["ADD","<x>"]}`),
		v1JSON(v1ID(1), v1ID(0), `,"created":"2015-01-02T00:00:00Z","author":"A","comment":"C","throwaway":true`),
		v1JSON(v1ID(2), v1ID(1), `,"created":"2015-01-03T00:00:00Z","os":"linux","architecture":"arm","container":"c","docker_version":"1.8","Size":3,`+
			`"config":{"Env":["A=<b>"],"Labels":{"l":"1"}},"container_config":{"Cmd":["RUN"]}`),
	))
}

func TestConvertSynthesisesAModernConfig(t *testing.T) {
	image, err := modern(t).Convert(gzipped, nil)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		v1.Image
		History []v1.History `json:"history"`
	}
	if err := json.Unmarshal(image.Config, &config); err != nil {
		t.Fatal(err)
	}
	h := config.History
	if len(h) != 3 || h[0].CreatedBy != "ADD <x>" || !h[1].EmptyLayer || h[1].Author != "A" || h[1].Comment != "C" || h[2].CreatedBy != "RUN" {
		t.Errorf("history %+v", h)
	}
	if h[0].EmptyLayer || h[2].EmptyLayer || h[0].Created.Day() != 1 || h[2].Created.Day() != 3 {
		t.Errorf("history %+v", h)
	}
	first, _ := gzipped(blobSum(0))
	last, _ := gzipped(blobSum(2))
	if d := config.RootFS.DiffIDs; config.RootFS.Type != "layers" || len(d) != 2 || d[0] != first.DiffID || d[1] != last.DiffID {
		t.Errorf("rootfs %+v", config.RootFS)
	}
	if config.OS != "linux" || config.Architecture != "arm" || config.Config.Env[0] != "A=<b>" || config.Config.Labels["l"] != "1" {
		t.Errorf("config %+v", config.Image)
	}
	if !strings.Contains(string(image.Config), `"A=<b>"`) {
		t.Error("the config's strings were escaped")
	}
}

func TestConvertDropsWhatTiesToSchema1(t *testing.T) {
	for mediaType, kept := range map[string]string{
		"":                        "architecture config container container_config created docker_version history os rootfs",
		v1.MediaTypeImageManifest: "architecture config created history os rootfs",
	} {
		image, err := modern(t).Convert(gzipped, &ConvertOptions{MediaType: mediaType})
		if err != nil {
			t.Fatal(err)
		}
		var config object
		if err := json.Unmarshal(image.Config, &config); err != nil {
			t.Fatal(err)
		}
		if err := only(image.Config, strings.Fields(kept)...); err != nil || len(config) != len(strings.Fields(kept)) {
			t.Errorf("%q: %d members, %v", mediaType, len(config), err)
		}
	}
}

func TestConvertMakesAManifest(t *testing.T) {
	plain := func(d digest.Digest) (Blob, error) { return Blob{DiffID: d, Size: 7}, nil }
	tests := []struct {
		mediaType, want, config, layer string
		blobs                          func(digest.Digest) (Blob, error)
	}{
		{"", manifest.MediaTypeDockerManifest, dockerConfig, dockerLayerGzip, gzipped},
		{"", manifest.MediaTypeDockerManifest, dockerConfig, dockerLayer, plain},
		{v1.MediaTypeImageManifest, v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, v1.MediaTypeImageLayerGzip, gzipped},
		{v1.MediaTypeImageManifest, v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, v1.MediaTypeImageLayer, plain},
	}
	for _, tt := range tests {
		image, err := modern(t).Convert(tt.blobs, &ConvertOptions{MediaType: tt.mediaType})
		if err != nil {
			t.Fatal(err)
		}
		doc, err := manifest.Parse(image.MediaType, image.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		if doc.MediaType != tt.want || doc.Config.MediaType != tt.config || manifest.Verify(*doc.Config, image.Config) != nil {
			t.Errorf("%s with the config %+v", doc.MediaType, doc.Config)
		}
		if len(doc.Layers) != 2 || doc.Layers[0].MediaType != tt.layer || doc.Layers[0].Digest != blobSum(0) || doc.Layers[1].Digest != blobSum(2) || doc.Layers[1].Size != 7 {
			t.Errorf("layers %+v", doc.Layers)
		}
	}
}

func TestConvertFillsInThePlatform(t *testing.T) {
	for raw, want := range map[string]string{
		small():                             "linux/amd64",
		with(`"architecture":"amd64",`, ``): "linux/amd64",
		with(`"amd64"`, `"s390x"`):          "linux/s390x",
		manifestOf(v1JSON(v1ID(0), "", `,"os":"plan9","architecture":"arm"`)): "plan9/arm",
	} {
		image, err := parse(t, raw).Convert(gzipped, nil)
		if err != nil {
			t.Fatal(err)
		}
		var config v1.Image
		if err := json.Unmarshal(image.Config, &config); err != nil || config.OS+"/"+config.Architecture != want {
			t.Errorf("got %s/%s, %v, want %s", config.OS, config.Architecture, err, want)
		}
	}
}

func TestConvertOfThrowawayLayersAlone(t *testing.T) {
	m := parse(t, manifestOf(v1JSON(v1ID(0), "", `,"throwaway":true`)))
	image, err := m.Convert(func(digest.Digest) (Blob, error) { return Blob{}, errors.New("asked") }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(image.Manifest), `"layers":[]`) || !strings.Contains(string(image.Config), `"diff_ids":[]`) {
		t.Errorf("got %s and %s", image.Manifest, image.Config)
	}
}

func TestConvertOnAWindowsBase(t *testing.T) {
	base := baseLayerID("windowsservercore")
	named := `,"os":"windows","rootfs":{"type":"layers+base","base_layer":"windowsservercore"}`
	tests := []struct {
		name, parent, top string
		opts              ConvertOptions
		want              error
	}{
		{"named by the caller", base, `,"os":"windows"`, ConvertOptions{BaseLayer: "windowsservercore"}, nil},
		{"named by its rootfs", base, named, ConvertOptions{}, nil},
		{"not named", base, `,"os":"windows"`, ConvertOptions{}, berth.ErrManifestInvalid},
		{"named by a rootfs of another type", base, strings.Replace(named, "+base", "", 1), ConvertOptions{}, berth.ErrManifestInvalid},
		{"named by a rootfs that is none", base, `,"os":"windows","rootfs":7`, ConvertOptions{}, berth.ErrManifestInvalid},
		{"another name", base, named, ConvertOptions{BaseLayer: "nanoserver"}, berth.ErrManifestInvalid},
		{"another parent", v1ID(9), named, ConvertOptions{}, berth.ErrManifestInvalid},
		{"for OCI", base, named, ConvertOptions{MediaType: v1.MediaTypeImageManifest}, berth.ErrUnsupported},
		{"on linux", base, `,"os":"linux"`, ConvertOptions{BaseLayer: "windowsservercore"}, berth.ErrManifestInvalid},
		{"no parent, for OCI", "", named, ConvertOptions{MediaType: v1.MediaTypeImageManifest}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := parse(t, manifestOf(v1JSON(v1ID(0), tt.parent, ""), v1JSON(v1ID(1), v1ID(0), tt.top)))
			image, err := m.Convert(gzipped, &tt.opts)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err == nil && tt.parent != "" && !strings.Contains(string(image.Config), `"base_layer":"windowsservercore"`) {
				t.Errorf("config %s", image.Config)
			}
		})
	}
}

func TestConvertRefuses(t *testing.T) {
	gone := errors.New("gone")
	answer := func(b Blob, err error) func(digest.Digest) (Blob, error) {
		return func(digest.Digest) (Blob, error) { return b, err }
	}
	diff := digest.FromString("diff")
	tests := []struct {
		name  string
		raw   string
		blobs func(digest.Digest) (Blob, error)
		opts  *ConvertOptions
		want  error
	}{
		{"a broken chain", manifestOf(v1JSON(v1ID(0), "", ""), v1JSON(v1ID(1), "", "")), gzipped, nil, berth.ErrManifestInvalid},
		{"an index", small(), gzipped, &ConvertOptions{MediaType: v1.MediaTypeImageIndex}, berth.ErrUnsupported},
		{"schema 1", small(), gzipped, &ConvertOptions{MediaType: MediaType}, berth.ErrUnsupported},
		{"a blob that is gone", small(), answer(Blob{}, gone), nil, gone},
		{"no diff id", small(), answer(Blob{Size: 7}, nil), nil, berth.ErrDigestInvalid},
		{"a negative size", small(), answer(Blob{DiffID: diff, Size: -1}, nil), nil, berth.ErrSizeInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(t, tt.raw).Convert(tt.blobs, tt.opts)
			wantError(t, err, tt.want, "")
		})
	}
}
