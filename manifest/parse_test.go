package manifest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// described writes a descriptor of content; more begins with a comma.
func described(mediaType, content, more string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, mediaType, digest.FromString(content), len(content), more)
}

// artifact writes an OCI manifest around a config and layers; more ends with a comma.
func artifact(more, config string, layers ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,%s"config":%s,"layers":[%s]}`,
		v1.MediaTypeImageManifest, more, config, strings.Join(layers, ","))
}

const (
	dockerLayer = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	emptyConfig = `{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="}`
)

// What known clients push, and what the conformance suite of the distribution specification pushes.
func TestParseTakesWhatClientsPush(t *testing.T) {
	config := described(v1.MediaTypeImageConfig, "config", "")
	layer := described(v1.MediaTypeImageLayerGzip, "layer", "")
	subject := `"subject":` + described(v1.MediaTypeImageManifest, "subject", "") + `,`
	platform := func(os, architecture string) string {
		return described(v1.MediaTypeImageManifest, os+architecture, fmt.Sprintf(`,"platform":{"architecture":%q,"os":%q}`, architecture, os))
	}
	listOf := func(mediaType string, children ...string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, mediaType, strings.Join(children, ","))
	}
	tests := map[string]string{
		"docker push": fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`,
			MediaTypeDockerManifest, described(mediaTypeDockerConfig, "config", ""), described(dockerLayer, "layer", "")),
		"docker 1.10": fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`,
			MediaTypeDockerManifest, described("application/octet-stream", "config", ""), described(dockerLayer, "layer", "")),
		"a registry that said text/html":    artifact("", described("text/html; charset=utf-8", "config", ""), layer),
		"docker manifest create":            listOf(MediaTypeDockerManifestList, described(MediaTypeDockerManifest, "a", `,"platform":{"architecture":"arm","os":"linux","variant":"v7","features":["sse4"]}`)),
		"docker, a list without platforms":  listOf(MediaTypeDockerManifestList, described(MediaTypeDockerManifest, "a", `,"platform":{"architecture":"","os":""}`)),
		"docker plugin":                     artifact("", described("application/vnd.docker.plugin.v1+json", "config", ""), layer),
		"windows, foreign layers":           artifact("", config, described("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "base", `,"urls":["https://mcr.microsoft.com/v2/windows/blobs/sha256:0","http://go.microsoft.com/fwlink/?linkid=1"]`)),
		"buildah, no mediaType":             fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s],"annotations":{}}`, config, layer),
		"buildkit, attestations":            listOf(v1.MediaTypeImageIndex, platform("linux", "amd64"), described(v1.MediaTypeImageManifest, "attestation", `,"annotations":{"vnd.docker.reference.digest":"sha256:0","vnd.docker.reference.type":"attestation-manifest"},"platform":{"architecture":"unknown","os":"unknown"}`)),
		"buildkit, a cache as index":        listOf(v1.MediaTypeImageIndex, layer, described("application/vnd.buildkit.cacheconfig.v0", "cache", "")),
		"buildkit, a cache as image":        artifact("", described("application/vnd.buildkit.cacheconfig.v0", "cache", ""), layer),
		"kaniko, docker's layers in OCI":    artifact("", config, described(dockerLayer, "layer", "")),
		"rules_oci":                         strings.ReplaceAll(artifact("", config, layer, layer), ",", ",\n    "),
		"helm":                              artifact(`"annotations":{"org.opencontainers.image.title":"chart"},`, described("application/vnd.cncf.helm.config.v1+json", "config", ""), described("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "chart", ""), described("application/vnd.cncf.helm.chart.provenance.v1.prov", "prov", "")),
		"cosign 2":                          artifact("", config, described("application/vnd.dev.cosign.simplesigning.v1+json", "payload", `,"annotations":{"dev.cosignproject.cosign/signature":"MEU=","Dev.CosignProject.Cosign/Signature":"x"}`)),
		"cosign, an sbom":                   artifact("", config, described("text/spdx+json", "sbom", "")),
		"cosign 3":                          artifact(`"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json",`+subject, emptyConfig, described("application/vnd.dev.sigstore.bundle.v0.3+json", "bundle", "")),
		"notation":                          artifact(subject, described("application/vnd.cncf.notary.signature", "{}", ""), described("application/jose+json", "jws", "")),
		"oras push":                         artifact(`"artifactType":"application/vnd.unknown.artifact.v1",`, emptyConfig, described("application/vnd.oci.image.layer.v1.tar", "file", `,"annotations":{"org.opencontainers.image.title":"a/b c.txt"}`)),
		"oras, a type of the user's own":    artifact("", described("foo", "config", ""), described("", "file", "")),
		"oras, nothing at all":              artifact(`"artifactType":"a/b",`, emptyConfig, emptyConfig),
		"nerdctl, layers at IPFS":           artifact("", config, described(v1.MediaTypeImageLayerGzip, "layer", `,"urls":["ipfs://bafkreigrkfhzm5bt5xbb7tvrnwzrkvulgipwupc4w24kwudysexmwzyske"]`)),
		"a Go program with nil slices":      `{"schemaVersion":2,"config":` + config + `,"layers":null,"annotations":null,"subject":null,"manifests":null}`,
		"conformance, no layers":            artifact("", config),
		"conformance, an empty index":       listOf(v1.MediaTypeImageIndex),
		"conformance, nested index":         listOf(v1.MediaTypeImageIndex, described(v1.MediaTypeImageIndex, "nested", "")),
		"conformance, an index of a type":   fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.oci.conformance.v1",%s"manifests":[]}`, v1.MediaTypeImageIndex, subject),
		"conformance, custom fields":        artifact(`"org.K3TZ":"x","Custom":{"Config":1,"config":2},`, config, described(v1.MediaTypeImageLayer, "l", `,"org.X":1`)),
		"conformance, data":                 artifact("", described(v1.MediaTypeImageConfig, "config", `,"data":"Y29uZmln"`), described(v1.MediaTypeImageLayer, "layer", `,"data":"bGF5ZXI="`)),
		"conformance, not distributable":    artifact("", config, described("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "base", `,"urls":["https://store.example.com/blobs/sha256/0"]`)),
		"conformance, sha512":               artifact("", config, fmt.Sprintf(`{"mediaType":"a/b","digest":%q,"size":1}`, digest.SHA512.FromString("x"))),
		"empty data for an empty blob":      artifact("", config, described("a/b", "", `,"data":""`)),
		"annotations apart by case alone":   artifact(`"annotations":{"a":"1","A":"2"},`, config),
		"a member that looks like a digest": artifact(`"digests":"x","layer":[],"Manifest":{},`, config),
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			if !json.Valid([]byte(raw)) {
				t.Fatal("the test is no JSON:", raw)
			}
			if _, err := Parse("", []byte(raw)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseRefusesWhatTwoReadersTakeDifferently(t *testing.T) {
	config, layer := desc(configDigest), desc(layerDigest)
	with := func(more string) string { return artifact("", config, described("a/b", "layer", ","+more)) }
	urls := func(n int, s string) string {
		return with(`"urls":[` + strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%q,", s), n), ",") + `]`)
	}
	data := func(content string) string {
		return with(fmt.Sprintf(`"data":%q`, base64.StdEncoding.EncodeToString([]byte(content))))
	}
	tests := []struct{ name, raw, says string }{
		{"layers twice", image(`"layers":[],`), `"layers" twice`},
		{"mediaType twice", image(`"mediaType":"` + v1.MediaTypeImageManifest + `","mediaType":"",`), `"mediaType" twice`},
		{"a digest twice", strings.Replace(image(""), `"digest"`, `"digest":"`+childDigest+`","digest"`, 1), `"digest" twice`},
		{"an annotation twice", image(`"annotations":{"a":"1","\u0061":"2"},`), `"a" twice`},
		{"an unknown key twice", image(`"x":{"y":[{"z":1,"z":2}]},`), `"z" twice`},
		{"another case", image(`"Layers":[],`), `"Layers"`},
		{"another case instead", strings.Replace(image(""), `"layers"`, `"LAYERS"`, 1), `"LAYERS"`},
		{"another case by folding", image(`"layer\u017f":[],`), "some"},
		{"another case in a descriptor", with(`"Digest":"` + childDigest + `"`), `"Digest"`},
		{"another case in a config", artifact("", strings.Replace(config, "size", "Size", 1), layer), `"Size"`},
		{"another case in a subject", image(`"subject":` + strings.Replace(config, "size", "Size", 1) + `,`), `"Size"`},
		{"another case in a platform", listWith(`,"platform":{"os":"linux","OS":"windows","architecture":"amd64"}`), `"OS"`},
		{"manifests in another case", image(`"Manifests":[],`), "Manifests"},
		{"no UTF-8", image("\"x\":\"\xff\","), "UTF-8"},
		{"half a surrogate pair", image(`"annotations":{"a":"\ud800"},`), "surrogate"},
		{"too deep", image(`"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `,`), "more than 64"},
		{"an image by an odd name", image(`"mediaType":"Application/vnd.oci.image.manifest.v1+json",`), ""},
		{"data that is another blob", data("other"), "data"},
		{"data that is another blob of that size", data("lay3r"), "data"},
		{"data that is empty", with(`"data":""`), "data"},
		{"data that is no base64", with(`"data":"***"`), ""},
		{"data in a subject", image(`"subject":` + described("a/b", "s", `,"data":"eA=="`) + `,`), "subject"},
		{"data in an index", listWith(`,"data":"eA=="`), "manifest 0"},
		{"a size that is rounded", strings.Replace(image(""), `"size":7`, `"size":9007199254740993`, 1), "beyond"},
		{"a size with a fraction", strings.Replace(image(""), `"size":7`, `"size":7.0`, 1), "size"},
		{"a size in words", strings.Replace(image(""), `"size":7`, `"size":"7"`, 1), "size"},
		{"a url that is empty", urls(1, ""), "url 0"},
		{"a url without scheme", urls(1, "//example.com/x"), "url 0"},
		{"a url with a line end", with(`"urls":["https://example.com/\n"]`), "url 0"},
		{"too many urls", urls(maxURLs+1, "https://example.com/x"), "65 urls"},
		{"a url that is too long", urls(1, "https://example.com/"+strings.Repeat("x", maxURLLength)), "characters"},
		{"a long media type", artifact("", described("a/"+strings.Repeat("b", 254), "config", "")), "256 characters"},
		{"a media type with a line end", artifact("", described("a/b\n", "config", "")), "printable"},
		{"an artifact type that is none", image(`"artifactType":"é",`), "artifactType"},
		{"an artifact type of a child that is none", listWith(`,"artifactType":"\u0000"`), "artifactType"},
		{"an annotation that is no string", image(`"annotations":{"a":1},`), "annotations"},
		{"a null for a layer", artifact("", config, "null"), "layer 0"},
		{"null", "null", "schemaVersion"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := Parse("", []byte(tt.raw))
			if berth.Code(err) != "MANIFEST_INVALID" && berth.Code(err) != "UNSUPPORTED" || doc != nil {
				t.Fatalf("got %v, %v", doc, err)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			if len(err.Error()) > 400 || strings.Contains(err.Error(), "\n") {
				t.Errorf("the message is not one short line: %q", err)
			}
		})
	}
}

// listWith writes an index with one child, of which more is said.
func listWith(more string) string {
	return `{"schemaVersion":2,"manifests":[` + described(v1.MediaTypeImageManifest, "child", more) + `]}`
}

func TestParseBoundsWhatItCounts(t *testing.T) {
	if _, err := Parse("", manifestOf(maxDescriptors, "")); err != nil {
		t.Error(err)
	}
	if _, err := Parse("", manifestOf(maxDescriptors+1, "")); !errors.Is(err, berth.ErrManifestInvalid) {
		t.Errorf("got %v", err)
	}
	for name, raw := range largeManifests() {
		if _, err := Parse("", raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What would take many times its size in memory is refused before that is taken.
func TestParseMakesNothingOfTooManyMembers(t *testing.T) {
	raw := []byte(`{"schemaVersion":2,"manifests":[` + strings.Repeat("{},", 1<<20) + `{}]}`)
	taken := testing.AllocsPerRun(1, func() {
		if _, err := Parse("", raw); !errors.Is(err, berth.ErrManifestInvalid) || !strings.Contains(err.Error(), "members") {
			t.Errorf("got %v", err)
		}
	})
	if taken > 100 {
		t.Errorf("%v allocations", taken)
	}
	text := []byte(`{"schemaVersion":2,"manifests":[],"annotations":{"a":"` + strings.Repeat(",", 1<<20) + `"}}`)
	if _, err := Parse("", text); err != nil {
		t.Errorf("commas in a text: %v", err)
	}
}

func TestParseDoesNotTakeSchema1(t *testing.T) {
	raw := []byte(`{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[],"history":[]}`)
	for _, mediaType := range []string{MediaTypeSchema1, MediaTypeSchema1Signed, MediaTypeSchema1Signed + "; charset=utf-8"} {
		_, err := Parse(mediaType, raw)
		if !errors.Is(err, berth.ErrUnsupported) || !strings.Contains(err.Error(), "schema 1") {
			t.Errorf("%s: got %v", mediaType, err)
		}
	}
	if KindOf(MediaTypeSchema1) != 0 || !IsSchema1(MediaTypeSchema1) || !IsSchema1(MediaTypeSchema1Signed) || IsSchema1(MediaTypeDockerManifest) {
		t.Error("schema 1 is not recognised")
	}
}

// PUT verifies the media type against the content.
func TestPutMediaTypeAgainstContent(t *testing.T) {
	said := `"mediaType":"` + v1.MediaTypeImageManifest + `",`
	tests := []struct {
		declared, raw string
		want          error
	}{
		{v1.MediaTypeImageManifest, image(said), nil},
		{v1.MediaTypeImageManifest, image(""), nil},
		{"Application/Vnd.OCI.Image.Manifest.v1+JSON; charset=utf-8", image(said), nil},
		{MediaTypeDockerManifest, image(said), berth.ErrManifestInvalid},
		{v1.MediaTypeImageIndex, image(said), berth.ErrManifestInvalid},
		{v1.MediaTypeImageIndex, image(""), berth.ErrManifestInvalid},
		{v1.MediaTypeImageManifest, index(""), berth.ErrManifestInvalid},
		{MediaTypeDockerManifestList, index(`"mediaType":"` + v1.MediaTypeImageIndex + `",`), berth.ErrManifestInvalid},
		{"application/json", image(said), berth.ErrUnsupported},
	}
	for _, tt := range tests {
		if _, err := Parse(tt.declared, []byte(tt.raw)); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.declared, err, tt.want)
		}
	}
}

// The shapes know the names that the structs have.
func TestShapesHaveTheNamesThatAreRead(t *testing.T) {
	for _, tt := range []struct {
		kind  reflect.Type
		shape *shape
	}{
		{reflect.TypeFor[wire](), manifestShape},
		{reflect.TypeFor[v1.Descriptor](), descriptorShape},
		{reflect.TypeFor[v1.Platform](), platformShape},
		{reflect.TypeFor[imageConfig](), configShape},
	} {
		compareShape(t, tt.kind, tt.shape)
	}
}

func compareShape(t *testing.T, kind reflect.Type, s *shape) {
	names := map[string]bool{}
	for _, m := range s.members {
		names[m.name] = true
	}
	for i := range kind.NumField() {
		field := kind.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			name = field.Name
		}
		if !names[name] {
			t.Errorf("%s.%s is read, but not in the shape", kind, name)
		}
		delete(names, name)
		child, _ := s.member(name)
		for element := field.Type; child != nil; element = element.Elem() {
			if element.Kind() == reflect.Struct {
				compareShape(t, element, child)
				break
			}
		}
	}
	for name := range names {
		t.Errorf("%s.%s is in the shape, but not read", kind, name)
	}
}

// A policy allows or denies classes of manifests.
func TestPolicyByClass(t *testing.T) {
	layer := described("a/layer", "layer", "")
	for want, raw := range map[string]string{
		v1.MediaTypeImageConfig:                         artifact("", described(v1.MediaTypeImageConfig, "c", ""), layer),
		"application/vnd.docker.plugin.v1+json":         artifact("", described("application/vnd.docker.plugin.v1+json", "c", ""), layer),
		"application/vnd.cncf.helm.config.v1+json":      artifact("", described("Application/vnd.CNCF.helm.config.v1+json", "c", ""), layer),
		"application/vnd.dev.sigstore.bundle.v0.3+json": artifact(`"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json",`, emptyConfig, layer),
		"application/vnd.oci.empty.v1+json":             artifact("", emptyConfig, layer),
		v1.MediaTypeImageManifest:                       artifact("", described("", "c", ""), layer),
		v1.MediaTypeImageIndex:                          index(""),
		"a/list":                                        index(`"artifactType":"A/list",`),
	} {
		doc, err := Parse("", []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if got := doc.Class(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestVerifyRefusesWhatIsNoDigest(t *testing.T) {
	for _, d := range []digest.Digest{"", "sha256", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../..", digest.Digest("blake3:" + layerDigest[7:])} {
		if err := Verify(v1.Descriptor{Digest: d}, nil); !errors.Is(err, berth.ErrDigestInvalid) {
			t.Errorf("%q: got %v", d, err)
		}
	}
}
