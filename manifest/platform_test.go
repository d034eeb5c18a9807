package manifest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

// indexOf lists an image for each platform; one that ends with ! is an attestation by its annotation,
// and an empty one has no platform.
func indexOf(t testing.TB, names ...string) *Document {
	t.Helper()
	doc := &Document{Kind: Index, MediaType: v1.MediaTypeImageIndex}
	for i, name := range names {
		desc := Descriptor(v1.MediaTypeImageManifest, fmt.Appendf(nil, "%d %s", i, name))
		plain, attested := strings.CutSuffix(name, "!")
		if plain != "" {
			p := platformOf(t, plain)
			desc.Platform = &p
		}
		if attested {
			desc.Annotations = map[string]string{annotationReferenceType: "attestation-manifest"}
		}
		doc.Manifests = append(doc.Manifests, desc)
	}
	return doc
}

// platformOf splits a platform and normalises nothing.
func platformOf(t testing.TB, s string) v1.Platform {
	t.Helper()
	parts := strings.Split(s+"//", "/")
	os, version, _ := strings.Cut(strings.TrimSuffix(parts[0], ")"), "(")
	return v1.Platform{OS: os, OSVersion: version, Architecture: parts[1], Variant: parts[2]}
}

// A list: the platform (OS, architecture, variant) is matched.
func TestListPlatformIsMatched(t *testing.T) {
	tests := []struct {
		want, index string
		selected    int
	}{
		{"linux/amd64", "linux/arm64 linux/amd64", 1},
		{"linux/amd64", "linux/amd64 linux/amd64", 0},
		{"linux/amd64", "windows/amd64 darwin/amd64 linux/amd64", 2},
		{"Linux/x86_64", "linux/amd64", 0},
		{"linux/amd64", "Linux/x86-64", 0},
		{"macos/arm64", "linux/arm64 darwin/arm64", 1},
		{"linux/amd64/v1", "linux/amd64", 0},
		{"linux/amd64", "linux/amd64/v1", 0},
		{"linux/amd64", "linux/amd64/v3", -1},
		{"linux/amd64/v3", "linux/amd64 linux/amd64/v2 linux/amd64/v4", 1},
		{"linux/amd64/v3", "linux/386 linux/amd64", 1},
		{"linux/amd64", "linux/386", 0},
		{"linux/386", "linux/amd64", -1},
		{"linux/arm64", "linux/arm/v7 linux/arm64/v8", 1},
		{"linux/arm64/v8", "linux/arm/v7 linux/arm64", 1},
		{"linux/aarch64", "linux/arm64", 0},
		{"linux/arm64", "linux/arm/v5 linux/arm/v7 linux/arm/v6", 1},
		{"linux/arm/v7", "linux/arm/v5 linux/arm/v6", 1},
		{"linux/arm/v7", "linux/arm64 linux/arm/v8", -1},
		{"linux/arm/v7", "linux/arm", 0},
		{"linux/arm", "linux/arm/v6 linux/arm/v7", 1},
		{"linux/armhf", "linux/arm/v6 linux/arm/7", 1},
		{"linux/arm/v6", "linux/arm/v7 linux/arm/v5", 1},
		{"linux/arm/v6", "linux/arm/v7", -1},
		{"linux/riscv64", "linux/amd64", -1},
		{"linux/s390x", "", -1},
		// Half a platform, or none, is not taken for that of this machine.
		{"linux/amd64", "/amd64 linux/", -1},
		// Attestations.
		{"linux/amd64", "linux/amd64! linux/amd64", 1},
		{"unknown/unknown", "unknown/unknown", -1},
		{"linux/amd64", "unknown/unknown! linux/amd64", 1},
		// Windows.
		{"windows/amd64", "linux/amd64 windows(10.0.14393.1)/amd64 windows(10.0.17763.1)/amd64", 1},
		{"windows(10.0.17763.5)/amd64", "windows(10.0.14393.1)/amd64 windows(10.0.17763.1)/amd64", 1},
		{"windows(10.0.17763)/amd64", "windows(10.0.17763.1)/amd64 windows(10.0.17763.9)/amd64", 1},
		{"windows(10.0.17763.1)/amd64", "windows(10.0.17763.9)/amd64 windows/amd64", 0},
		{"windows(10.0.17763.1)/amd64", "windows(10.0.14393.1)/amd64 windows/amd64", 1},
		{"windows(10.0.17763.1)/amd64", "windows(10.0.14393.1)/amd64", -1},
		{"windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64", -1},
		{"windows(10.0.20348.1)/amd64", "windows(10.0.17763.1)/amd64", -1},
		{"windows(10.0.26100.1)/amd64", "windows(10.0.20348.1)/amd64 windows(10.0.25398.1)/amd64 windows(10.0.26200.1)/amd64", 1},
		{"windows(10.0.26100.1)/amd64", "windows(10.0.17763.1)/amd64 windows(10.1.26100.1)/amd64", -1},
		{"windows(ltsc)/amd64", "windows(10.0.17763.1)/amd64 windows(ltsc)/amd64", 1},
		{"windows(10.0)/amd64", "windows(10.0.17763.1)/amd64", -1},
		{"linux(5.4)/amd64", "linux(4.19)/amd64", 0},
	}
	for _, tt := range tests {
		t.Run(tt.want+" of "+tt.index, func(t *testing.T) {
			index := indexOf(t, strings.Fields(tt.index)...)
			got, err := Select(index, platformOf(t, tt.want))
			if tt.selected < 0 {
				if !errors.Is(err, berth.ErrManifestUnknown) {
					t.Fatalf("got %v, %v", got.Platform, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != index.Manifests[tt.selected].Digest {
				t.Errorf("got %+v", *got.Platform)
			}
		})
	}
}

// None → "no supported platform".
func TestNoSupportedPlatform(t *testing.T) {
	many := make([]string, 25)
	for i := range many {
		many[i] = fmt.Sprintf("linux/cpu%d", i)
	}
	tests := []struct {
		index []string
		says  string
	}{
		{[]string{"linux/amd64", "unknown/unknown", "linux/arm64!", "linux/arm64/v8", "linux/amd64", "windows(10.0.17763.1)/amd64", ""},
			"no supported platform: plan9/mips is asked for, the index has linux/amd64, linux/arm64/v8, windows(10.0.17763.1)/amd64"},
		{nil, "the index has none"},
		{[]string{"", "unknown/unknown"}, "the index has none"},
		{many, "linux/cpu19 and 5 more"},
		{[]string{"li\nnux/" + strings.Repeat("x", 500)}, `"li\nnux/xxx`},
	}
	for _, tt := range tests {
		_, err := Select(indexOf(t, tt.index...), v1.Platform{OS: "plan9", Architecture: "mips"})
		if !errors.Is(err, berth.ErrManifestUnknown) || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 500 {
			t.Errorf("%q does not say %q", err, tt.says)
		}
	}
}

func TestSelectNeedsAnIndexAndAPlatform(t *testing.T) {
	for _, tt := range []struct {
		doc      *Document
		platform v1.Platform
	}{
		{&Document{Kind: Image}, v1.Platform{OS: "linux", Architecture: "amd64"}},
		{indexOf(t, "linux/amd64"), v1.Platform{OS: "linux"}},
		{indexOf(t, "linux/amd64"), v1.Platform{Architecture: "amd64"}},
		{indexOf(t, "linux/amd64"), v1.Platform{}},
	} {
		if _, err := Select(tt.doc, tt.platform); !errors.Is(err, berth.ErrUnsupported) {
			t.Errorf("%+v: got %v", tt.platform, err)
		}
	}
}

func TestParsePlatform(t *testing.T) {
	for s, want := range map[string]v1.Platform{
		"linux/amd64":                 {OS: "linux", Architecture: "amd64"},
		"Linux/x86_64":                {OS: "linux", Architecture: "amd64"},
		"linux/arm":                   {OS: "linux", Architecture: "arm", Variant: "v7"},
		"linux/arm64/v8":              {OS: "linux", Architecture: "arm64"},
		"windows(10.0.17763.1)/amd64": {OS: "windows", Architecture: "amd64", OSVersion: "10.0.17763.1"},
	} {
		if got, err := ParsePlatform(s); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "linux", "amd64", "/", "/amd64", "linux/", "linux/amd64/v1/x", "*/amd64", "li nux/amd64", "linux/" + strings.Repeat("x", 200)} {
		if got, err := ParsePlatform(s); !errors.Is(err, berth.ErrUnsupported) || len(err.Error()) > 300 {
			t.Errorf("%q: got %+v, %v", s, got, err)
		}
	}
}

// What is selected is in the index, is for the platform, and does not depend on the order but among
// equals.
func TestSelectFindsWhatIsThere(t *testing.T) {
	names := []string{"linux/amd64", "linux/amd64/v2", "linux/386", "linux/arm64", "linux/arm64/v8", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7",
		"windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64", "windows/amd64", "unknown/unknown", "linux/amd64!", ""}
	rapid.Check(t, func(rt *rapid.T) {
		index := indexOf(t, rapid.SliceOfN(rapid.SampledFrom(names), 0, 8).Draw(rt, "index")...)
		want := platformOf(t, rapid.SampledFrom(names[:11]).Draw(rt, "want"))
		got, err := Select(index, want)
		exact := false
		for _, child := range index.Manifests {
			exact = exact || isImageFor(&child) && formatPlatform(child.Platform) == formatPlatform(&want)
		}
		if err != nil {
			if exact {
				rt.Fatalf("%v, though it is there: %v", formatPlatform(&want), err)
			}
			return
		}
		if isAttestation(&got) || got.Platform.OS != want.OS {
			rt.Fatalf("got %+v for %+v", got.Platform, want)
		}
		if want.OS != windows && exact && got.Platform.Architecture != want.Architecture {
			rt.Fatalf("got %+v, though %+v is there", got.Platform, want)
		}
		shuffled := &Document{Kind: Index, Manifests: rapid.Permutation(index.Manifests).Draw(rt, "shuffled")}
		again, err := Select(shuffled, want)
		if err != nil || want.OS != windows && !equalPlatforms(*again.Platform, *got.Platform) {
			rt.Fatalf("in another order %+v instead of %+v, %v", again.Platform, got.Platform, err)
		}
	})
}

func equalPlatforms(a, b v1.Platform) bool {
	return exactly(a).Match(withoutVersion(b))
}
