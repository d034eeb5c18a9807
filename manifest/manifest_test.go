package manifest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

const (
	configDigest = "sha256:" + "1111111111111111111111111111111111111111111111111111111111111111"
	layerDigest  = "sha256:" + "2222222222222222222222222222222222222222222222222222222222222222"
	childDigest  = "sha256:" + "3333333333333333333333333333333333333333333333333333333333333333"
)

func desc(d string) string {
	return fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":%q,"size":7}`, d)
}

func image(extra string) string {
	return `{"schemaVersion":2,` + extra + `"config":` + desc(configDigest) + `,"layers":[` + desc(layerDigest) + `]}`
}

func index(extra string) string {
	return `{"schemaVersion":2,` + extra + `"manifests":[` + desc(childDigest) + `]}`
}

func TestParseTellsTheFourFormats(t *testing.T) {
	tests := []struct {
		name, declared, raw string
		kind                Kind
		mediaType           string
		successors          []string
	}{
		{"oci image", v1.MediaTypeImageManifest, image(""), Image, v1.MediaTypeImageManifest, []string{configDigest, layerDigest}},
		{"oci image, undeclared", "", image(""), Image, v1.MediaTypeImageManifest, []string{configDigest, layerDigest}},
		{"oci index", v1.MediaTypeImageIndex, index(""), Index, v1.MediaTypeImageIndex, []string{childDigest}},
		{"oci index, undeclared", "", index(""), Index, v1.MediaTypeImageIndex, []string{childDigest}},
		{"docker image by its own word", "", image(`"mediaType":"` + MediaTypeDockerManifest + `",`), Image, MediaTypeDockerManifest, []string{configDigest, layerDigest}},
		{"docker list", MediaTypeDockerManifestList, index(""), Index, MediaTypeDockerManifestList, []string{childDigest}},
		{"parameters are ignored", v1.MediaTypeImageIndex + "; charset=utf-8", index(""), Index, v1.MediaTypeImageIndex, []string{childDigest}},
		{"empty index", v1.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`, Index, v1.MediaTypeImageIndex, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := Parse(tt.declared, []byte(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			if doc.Kind != tt.kind || doc.MediaType != tt.mediaType {
				t.Errorf("got %v of type %q, want %v of type %q", doc.Kind, doc.MediaType, tt.kind, tt.mediaType)
			}
			var got []string
			for _, d := range doc.Successors() {
				got = append(got, string(d.Digest))
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.successors) {
				t.Errorf("successors %v, want %v", got, tt.successors)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name, declared, raw string
		want                error
		says                string
	}{
		{"not JSON", "", `<html>`, berth.ErrManifestInvalid, "syntax error at byte 1"},
		{"an array", "", `[]`, berth.ErrManifestInvalid, "array"},
		{"a string where a list belongs", "", `{"schemaVersion":2,"layers":"x"}`, berth.ErrManifestInvalid, `"layers"`},
		{"schema 1", "", `{"schemaVersion":1,"fsLayers":[]}`, berth.ErrManifestInvalid, "schemaVersion is 1"},
		{"fsLayers under version 2", "", image(`"fsLayers":[],`), berth.ErrManifestInvalid, "fsLayers"},
		{"type against content", v1.MediaTypeImageIndex, image(`"mediaType":"` + v1.MediaTypeImageManifest + `",`), berth.ErrManifestInvalid, "was sent as"},
		{"an image that lists manifests", v1.MediaTypeImageManifest, image(`"manifests":[],`), berth.ErrManifestInvalid, "lists manifests"},
		{"an image without config", v1.MediaTypeImageManifest, `{"schemaVersion":2,"layers":[]}`, berth.ErrManifestInvalid, "without a config"},
		{"an index with layers", v1.MediaTypeImageIndex, index(`"layers":[],`), berth.ErrManifestInvalid, "config or layers"},
		{"a digest that is none", "", `{"schemaVersion":2,"config":` + desc("sha256:xyz") + `}`, berth.ErrManifestInvalid, "config: "},
		{"a negative size", "", `{"schemaVersion":2,"config":{"digest":"` + configDigest + `","size":-1}}`, berth.ErrManifestInvalid, "negative"},
		{"a subject that is none", "", image(`"subject":{"digest":"nope"},`), berth.ErrManifestInvalid, "subject: "},
		{"an unknown type", "text/plain", image(""), berth.ErrUnsupported, "text/plain"},
		{"a type that does not parse", "a/b/c;;", image(""), berth.ErrUnsupported, "does not parse"},
		{"over the limit", "", strings.Repeat(" ", berth.MaxManifestSize+1), berth.ErrSizeInvalid, "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.declared, []byte(tt.raw))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
			if len(err.Error()) > 400 {
				t.Errorf("the message quotes too much: %d bytes", len(err.Error()))
			}
		})
	}
}

func TestRequiredExemptsForeignLayers(t *testing.T) {
	raw := `{"schemaVersion":2,"config":` + desc(configDigest) + `,"layers":[{"digest":"` + layerDigest + `","size":7,"urls":["https://example.com/l"]}]}`
	doc, err := Parse("", []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if got := doc.Required(); len(got) != 1 || got[0].Digest != configDigest {
		t.Errorf("required %v, want the config alone", got)
	}
}

func TestReferrerType(t *testing.T) {
	for raw, want := range map[string]string{
		image(""):                         "application/octet-stream",
		image(`"artifactType":"a/sbom",`): "a/sbom",
		index(""):                         "",
		index(`"artifactType":"a/list",`): "a/list",
	} {
		doc, err := Parse("", []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		if got := doc.ReferrerType(); got != want {
			t.Errorf("%s: got %q, want %q", raw, got, want)
		}
	}
}

func TestVerify(t *testing.T) {
	raw := []byte(image(""))
	good := Descriptor(v1.MediaTypeImageManifest, raw)
	if err := Verify(good, raw); err != nil {
		t.Error(err)
	}
	if err := Verify(good, append(raw, ' ')); !errors.Is(err, berth.ErrDigestInvalid) {
		t.Errorf("another size: got %v", err)
	}
	other := []byte(strings.Replace(string(raw), "7", "8", 1))
	if err := Verify(good, other); !errors.Is(err, berth.ErrDigestInvalid) {
		t.Errorf("other bytes: got %v", err)
	}
	wide := v1.Descriptor{Digest: digest.SHA512.FromBytes(raw), Size: int64(len(raw))}
	if err := Verify(wide, raw); err != nil {
		t.Errorf("sha512: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("", []byte(image("")))
	f.Add(v1.MediaTypeImageIndex, []byte(index("")))
	f.Add("", []byte(`{"schemaVersion":2,"config":null}`))
	f.Add("", []byte(listWith(`,"platform":{"os":"linux","architecture":"arm"},"urls":["a:b"],"data":"Y2hpbGQ="`)))
	f.Add(MediaTypeDockerManifest, []byte(image(`"Layers":[],"annotations":{"a":"\u0061"},`)))
	f.Fuzz(func(t *testing.T, mediaType string, raw []byte) {
		doc, err := Parse(mediaType, raw)
		if err != nil {
			if berth.Code(err) == "" || doc != nil || len(err.Error()) > 1000 {
				t.Errorf("an error without a code, with a manifest, or too long: %v", err)
			}
			return
		}
		if CheckJSON(raw) != nil {
			t.Error("a parsed manifest is read differently by others")
		}
		checkParsed(t, doc)
	})
}

// checkParsed checks what holds for every manifest that Parse takes.
func checkParsed(t *testing.T, doc *Document) {
	for _, d := range append(doc.Successors(), doc.Required()...) {
		if d.Digest.Validate() != nil || d.Size < 0 || d.Size > maxSize || d.Data != nil && Verify(d, d.Data) != nil {
			t.Errorf("a parsed manifest has the child %+v", d)
		}
	}
	if doc.Class() == "" || KindOf(doc.MediaType) != doc.Kind {
		t.Errorf("it is of class %q, type %q", doc.Class(), doc.MediaType)
	}
	child, err := Select(doc, v1.Platform{OS: "linux", Architecture: "amd64"})
	if err == nil && (child.Platform == nil || isAttestation(&child)) {
		t.Errorf("selected %+v", child)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add([]byte(imageConfigJSON))
	f.Add([]byte(`{"config":{"Cmd":"sh"},"created":"x","history":[null]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := Report{Layers: make([]ReportedLayer, 1)}
		if err := r.ReadConfig(raw); err != nil && berth.Code(err) == "" {
			t.Errorf("an error without a code: %v", err)
		}
	})
}
