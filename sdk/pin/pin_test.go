package pin

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// hexOf returns a digest that is recognised by its one repeated character.
func hexOf(c string) digest.Digest { return digest.Digest("sha256:" + strings.Repeat(c, 64)) }

// expand lets test files say <a> for the digest of 64 times a.
func expand(s string) string {
	for _, c := range strings.Split("0123456789abcdef", "") {
		s = strings.ReplaceAll(s, "<"+c+">", string(hexOf(c)))
	}
	s = strings.ReplaceAll(s, "INDEX", v1.MediaTypeImageIndex)
	return strings.ReplaceAll(s, "IMAGE", v1.MediaTypeImageManifest)
}

func mustParse(t testing.TB, data string) *File {
	t.Helper()
	f, err := Parse("berth.lock", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func image(reference string, c string) Pin {
	return Pin{Reference: reference, Digest: hexOf(c), MediaType: v1.MediaTypeImageManifest, Size: 7}
}

func index(reference string, c string, platforms ...string) Pin {
	p := Pin{Reference: reference, Digest: hexOf(c), MediaType: v1.MediaTypeImageIndex, Size: 9}
	for _, platform := range platforms {
		name, child, _ := strings.Cut(platform, "=")
		p.addPlatform(name, hexOf(child))
	}
	return p
}

func TestValidate(t *testing.T) {
	good := index("a:v1", "1", "linux/amd64=2", "linux/arm64/v8=3", "windows(10.0.20348.2227)/amd64=4", "darwin(macOS 14.3)/arm64=5")
	if err := good.validate(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		spoil func(*Pin)
		want  string
	}{
		{"no digest", func(p *Pin) { p.Digest = "" }, `"" is no digest`},
		{"short digest", func(p *Pin) { p.Digest = "sha256:12" }, `"sha256:12" is no digest`},
		{"unknown algorithm", func(p *Pin) { p.Digest = "md5:00" }, `"md5:00" is no digest`},
		{"no media type", func(p *Pin) { p.MediaType = "" }, `"" is no media type`},
		{"parameters", func(p *Pin) { p.MediaType += "; charset=utf-8" }, `"application/vnd.oci.image.index.v1+json; charset=utf-8" is no media type`},
		{"no size", func(p *Pin) { p.Size = 0 }, "0 is no size"},
		{"negative", func(p *Pin) { p.Size = -1 }, "-1 is no size"},
		{"too large", func(p *Pin) { p.Size = 4<<20 + 1 }, "4194305 is no size"},
		{"platforms of an image", func(p *Pin) { p.MediaType = v1.MediaTypeImageManifest }, "only an index has platforms"},
		{"os alone", func(p *Pin) { p.addPlatform("linux", hexOf("1")) }, `"linux" is no platform`},
		{"four parts", func(p *Pin) { p.addPlatform("a/b/c/d", hexOf("1")) }, `"a/b/c/d" is no platform`},
		{"platform with a comment sign", func(p *Pin) { p.addPlatform("a/b#c", hexOf("1")) }, `"a/b#c" is no platform`},
		{"child without digest", func(p *Pin) { p.addPlatform("linux/386", "") }, `"" is no digest`},
		{"comment in Latin 1", func(p *Pin) { p.Comment = "caf\xe9" }, `comment "caf\xe9" is not UTF-8`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := mustParse(t, empty)
			p := good.clone()
			tt.spoil(&p)
			err := f.Set(p)
			wantInvalid(t, err, `pin "a:v1": `+tt.want)
			if string(f.Bytes()) != empty {
				t.Errorf("a refused pin changed the file:\n%s", f.Bytes())
			}
		})
	}
}

func TestSuggest(t *testing.T) {
	tests := []struct{ word, want string }{
		{"digst", `did you mean "digest"?`},
		{"Digest", `did you mean "digest"?`},
		{"media_type", `did you mean "mediaType"?`},
		{"platform", `did you mean "platforms"?`},
		{"freeze", "known are digest, mediaType, size, platforms, comment"},
		{strings.Repeat("x", 10_000), "known are digest, mediaType, size, platforms, comment"},
		{"", "known are digest, mediaType, size, platforms, comment"},
	}
	for _, tt := range tests {
		if got := suggest(tt.word, pinFields()); got != tt.want {
			t.Errorf("suggest(%.20q) = %s, want %s", tt.word, got, tt.want)
		}
	}
}
