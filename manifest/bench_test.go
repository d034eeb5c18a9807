package manifest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// manifestOf writes an indented OCI manifest of n layers, as most clients do.
func manifestOf(n int, annotations string) []byte {
	layers := make([]string, n)
	for i := range layers {
		layers[i] = fmt.Sprintf("    {\n      \"mediaType\": %q,\n      \"digest\": %q,\n      \"size\": %d\n    }",
			v1.MediaTypeImageLayerGzip, digest.FromString(fmt.Sprint("layer ", i)), 1234567+i)
	}
	return fmt.Appendf(nil, "{\n  \"schemaVersion\": 2,\n  \"mediaType\": %q,\n  \"config\": {\n    \"mediaType\": %q,\n    \"digest\": %q,\n    \"size\": 7023\n  },\n  \"layers\": [\n%s\n  ]%s\n}\n",
		v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, digest.FromString("config"), strings.Join(layers, ",\n"), annotations)
}

// largeManifests are of nearly the largest size, or have nearly the most members, each full of something else.
func largeManifests() map[string][]byte {
	full := func(from string, each func(i int) string) string {
		var b strings.Builder
		for i := 0; b.Len() < berth.MaxManifestSize-4096 && i < maxMembers-100; i++ {
			b.WriteString(from)
			b.WriteString(each(i))
			from = ","
		}
		return b.String()
	}
	data := strings.Repeat("0123456789abcdef", (berth.MaxManifestSize-4096)/64*3)
	inline := fmt.Sprintf(`,"subject":{"digest":%q,"size":%d,"data":%q}`, digest.FromString(data), len(data), base64.StdEncoding.EncodeToString([]byte(data)))
	return map[string][]byte{
		"layers":      manifestOf(maxDescriptors, ""),
		"annotations": manifestOf(10, full(`,"annotations":{`, func(i int) string { return fmt.Sprintf(`"org.example.key.%d":"the value of key %d"`, i, i) })+"}"),
		"tiny keys":   manifestOf(10, full(`,"x":{`, func(i int) string { return fmt.Sprintf(`"%x":0`, i) })+"}"),
		"escaped":     manifestOf(10, full(`,"annotations":{`, func(i int) string { return fmt.Sprintf(`"\u006b\"%d":"{\"a\":\"b\"}"`, i) })+"}"),
		"objects":     manifestOf(10, full(`,"x":[`, func(int) string { return "{}" })+"]"),
		"data":        manifestOf(10, inline),
	}
}

// BenchmarkParse compares Parse with the decoding that no reader can do without.
func BenchmarkParse(b *testing.B) {
	manifests := largeManifests()
	manifests["ten layers"] = manifestOf(10, "")
	for name, raw := range manifests {
		b.Run(name+"/decode", func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				var w wire
				if err := json.Unmarshal(raw, &w); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/parse", func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := Parse("", raw); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/check", func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if err := CheckJSON(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
