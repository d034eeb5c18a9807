package schema1

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

func TestParse(t *testing.T) {
	m := parse(t, small())
	if m.Name != "app/hello" || m.Tag != "v1" || m.Architecture != "amd64" || len(m.Layers) != 2 {
		t.Errorf("got %q %q %q with %d layers", m.Name, m.Tag, m.Architecture, len(m.Layers))
	}
	if m.Signed() || m.MediaType() != MediaType || string(m.Raw()) != small() {
		t.Errorf("signed %v, type %s, raw %q", m.Signed(), m.MediaType(), m.Raw())
	}
}

func TestParseTakesDeclaredTypes(t *testing.T) {
	unsigned, signed := []byte(small()), signed(t).Raw()
	tests := []struct {
		mediaType string
		raw       []byte
		want      error
	}{
		{"", unsigned, nil},
		{"", signed, nil},
		{MediaType, unsigned, nil},
		{MediaType, signed, nil},
		{MediaTypeSigned, signed, nil},
		{MediaTypeSigned + "; charset=utf-8", signed, nil},
		{"application/json", signed, nil},
		{"application/json; charset=utf-8", unsigned, nil},
		{MediaTypeSigned, unsigned, berth.ErrManifestInvalid},
		{"application/vnd.oci.image.manifest.v1+json", unsigned, berth.ErrUnsupported},
		{"a/b/c;;", unsigned, berth.ErrUnsupported},
	}
	for _, tt := range tests {
		if _, err := Parse(tt.mediaType, tt.raw); !errors.Is(err, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.mediaType, err, tt.want)
		}
	}
}

func TestParseDoesNotKeepItsInput(t *testing.T) {
	raw := []byte(small())
	m, err := Parse("", raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if string(m.Payload()) != small() || m.Layers[0].V1.ID != v1ID(0) {
		t.Error("the manifest changed with what it was parsed from")
	}
}

func TestLayersAreBaseFirst(t *testing.T) {
	for i, layer := range signed(t).Layers {
		if layer.BlobSum != blobSum(i) || layer.V1.ID != v1ID(i) {
			t.Errorf("layer %d is %s with id %s", i, layer.BlobSum, layer.V1.ID)
		}
	}
}

func TestLayerCarriesItsV1JSON(t *testing.T) {
	raw := v1JSON(v1ID(1), v1ID(0), `,"created":"2014-12-31T22:57:59.178729048Z","author":"A","comment":"C",`+
		`"container_config":{"Cmd":["/bin/sh","-c","x"]},"throwaway":true,"os":"linux","architecture":"arm",`+
		`"docker_version":"1.4.1","config":{"Cmd":["/hello"]},"Size":42,"unknown":[1]`)
	layer := layerOf(t, blobSum(0), raw)
	if string(layer.V1JSON) != raw {
		t.Errorf("the v1 JSON became %s", layer.V1JSON)
	}
	got := layer.V1
	text := fmt.Sprintln(got.ID == v1ID(1), got.Parent == v1ID(0), got.Created, got.Author, got.Comment, got.Command,
		got.Throwaway, got.OS, got.Architecture, got.DockerVersion, string(got.Config), got.Size)
	want := `true true 2014-12-31 22:57:59.178729048 +0000 UTC A C [/bin/sh -c x] true linux arm 1.4.1 {"Cmd":["/hello"]} 42` + "\n"
	if text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestCommandForms(t *testing.T) {
	for form, want := range map[string]string{
		`"container_config":{"Cmd":["a","b"]}`: "[a b]",
		`"container_config":{"Cmd":"a b"}`:     "[a b]",
		`"container_config":{"Cmd":null}`:      "[]",
		`"container_config":{}`:                "[]",
		`"container_config":null`:              "[]",
		`"size":7`:                             "[]",
	} {
		layer := layerOf(t, blobSum(0), v1JSON(v1ID(0), "", ","+form))
		if got := fmt.Sprint(layer.V1.Command); got != want {
			t.Errorf("%s: got %s, want %s", form, got, want)
		}
	}
}

func TestLayersAndHistoryAreEquallyLong(t *testing.T) {
	blob, entry := fmt.Sprintf(`{"blobSum":%q}`, blobSum(0)), fmt.Sprintf(`{"v1Compatibility":%q}`, v1JSON(v1ID(0), "", ""))
	for _, raw := range []string{
		manifestWith(blob, ""), manifestWith("", entry), manifestWith(blob+","+blob, entry), manifestWith(blob, entry+","+entry),
	} {
		_, err := Parse("", []byte(raw))
		wantError(t, err, berth.ErrManifestInvalid, "entries of history")
	}
}

func TestNoLayersAtAll(t *testing.T) {
	for _, raw := range []string{manifestWith("", ""), `{"schemaVersion":1,"name":"app/hello"}`} {
		_, err := Parse("", []byte(raw))
		wantError(t, err, berth.ErrManifestInvalid, "no layers")
	}
}

// with changes the small manifest.
func with(old, new string) string {
	if !strings.Contains(small(), old) {
		panic(old)
	}
	return strings.Replace(small(), old, new, 1)
}

func TestParseRefuses(t *testing.T) {
	one := func(more string) string { return manifestOf(v1JSON(v1ID(0), "", more)) }
	tests := []struct{ name, raw, says string }{
		{"nothing", ``, "syntax error at byte 0"},
		{"no JSON", `<html>`, "syntax error at byte 1"},
		{"an array", `[]`, "array"},
		{"null", `null`, "null"},
		{"two values", small() + `{}`, "syntax error"},
		{"no UTF-8", with(`"amd64"`, "\"\xff\""), "UTF-8"},
		{"too deep", one(`,"x":` + strings.Repeat("[", 65) + strings.Repeat("]", 65)), "nested more than 64"},
		{"much too deep", strings.Repeat("[", 1<<20), "JSON"},
		{"a key twice", with(`"tag"`, `"tag":"v2","tag"`), `"tag" twice`},
		{"a key twice, escaped", with(`"tag"`, `"t\u0061g":"v2","tag"`), `"tag" twice`},
		{"an unknown key twice", with(`"tag"`, `"x":1,"x":2,"tag"`), `"x" twice`},
		{"a key twice in a layer", with(`{"blobSum"`, `{"blobSum":"a","blobSum"`), `"blobSum" twice`},
		{"a key twice in a v1 JSON", one(`,"os":"a","os":"b"`), `"os" twice`},
		{"a key twice deep in a v1 JSON", one(`,"config":{"Labels":{"a":"1","a":"2"}}`), `"a" twice`},
		{"a key in another case", with(`"tag"`, `"Tag":"v2","tag"`), `"Tag"`},
		{"signatures in another case", with(`"tag"`, `"Signatures":[],"tag"`), `"Signatures"`},
		{"a key in another case in a v1 JSON", one(`,"Throwaway":true`), `"Throwaway"`},
		{"a key in another case in container_config", one(`,"container_config":{"cmd":["x"]}`), `"cmd"`},
		{"schema 2", with(`"schemaVersion":1`, `"schemaVersion":2`), "schemaVersion is 2"},
		{"no version", with(`"schemaVersion":1,`, ``), "schemaVersion is 0"},
		{"a version in words", with(`"schemaVersion":1`, `"schemaVersion":"1"`), "schemaVersion"},
		{"another media type inside", with(`"tag"`, `"mediaType":"application/vnd.oci.image.index.v1+json","tag"`), "index"},
		{"a config", with(`"tag"`, `"config":{},"tag"`), "config, layers or manifests"},
		{"layers of schema 2", with(`"tag"`, `"layers":[],"tag"`), "config, layers or manifests"},
		{"a list of manifests", with(`"tag"`, `"manifests":null,"tag"`), "config, layers or manifests"},
		{"no name", with(`"name":"app/hello",`, ``), "name"},
		{"a name that is none", with(`app/hello`, `App//hello`), "name"},
		{"a tag that is none", with(`"v1"`, `"v 1"`), "tag"},
		{"a name that is no string", with(`"app/hello"`, `7`), "name: it cannot be a JSON number"},
		{"fsLayers that are no list", with(`"fsLayers":[`, `"fsLayers":{},"x":[`), "fsLayers"},
		{"a layer that is no object", manifestWith(`7`, `{"v1Compatibility":"{}"}`), "entry 0"},
		{"history that is no object", manifestWith(fmt.Sprintf(`{"blobSum":%q}`, blobSum(0)), `null`), "entry 0"},
		{"a digest that is none", with(`"sha256:`, `"sha256:zz`), "blobSum"},
		{"an algorithm that is unknown", with(`"sha256:`, `"tarsum.v1+sha256:`), "blobSum"},
		{"no digest", manifestWith(`{}`, fmt.Sprintf(`{"v1Compatibility":%q}`, v1JSON(v1ID(0), "", ""))), "blobSum"},
		{"no v1 JSON", manifestWith(fmt.Sprintf(`{"blobSum":%q}`, blobSum(0)), `{}`), "v1Compatibility"},
		{"a v1 JSON that is none", manifestOf(`nope`), "v1Compatibility"},
		{"a date that is none", one(`,"created":"yesterday"`), "created"},
		{"a size that is none", one(`,"Size":"big"`), "Size"},
		{"a command that is none", one(`,"container_config":{"Cmd":7}`), "Cmd"},
		{"a container_config that is none", one(`,"container_config":7`), "container_config"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Parse("", []byte(tt.raw))
			wantError(t, err, berth.ErrManifestInvalid, tt.says)
			if m != nil {
				t.Error("there is a manifest beside the error")
			}
		})
	}
}

func TestIDsMustBeValid(t *testing.T) {
	for _, id := range []string{"", "abc", strings.ToUpper(v1ID(0)), v1ID(0) + "0", strings.Repeat("g", 64), strings.Repeat("0", 63) + "\n"} {
		_, err := NewLayer(blobSum(0), []byte(v1JSON(v1ID(1), "", "")))
		if err != nil {
			t.Fatal(err)
		}
		raw := strings.ReplaceAll(v1JSON("ID", "", ""), `"ID"`, fmt.Sprintf("%q", id))
		_, err = NewLayer(blobSum(0), []byte(raw))
		wantError(t, err, berth.ErrManifestInvalid, "64 hexadecimal")
		if id == "" {
			continue
		}
		_, err = NewLayer(blobSum(0), []byte(v1JSON(v1ID(1), id, "")))
		wantError(t, err, berth.ErrManifestInvalid, "parent")
	}
}

func TestParseIsBounded(t *testing.T) {
	_, err := Parse("", []byte(strings.Repeat(" ", berth.MaxManifestSize+1)))
	wantError(t, err, berth.ErrSizeInvalid, "at most")
	n := maxLayers + 1
	blobs := strings.TrimSuffix(strings.Repeat(`{},`, n), ",")
	_, err = Parse("", []byte(manifestWith(blobs, blobs)))
	wantError(t, err, berth.ErrManifestInvalid, "at most 10000")
}

func TestPutTagMustMatch(t *testing.T) {
	m := parse(t, small())
	if err := m.Check(to("app/hello", "v1")); err != nil {
		t.Error(err)
	}
	wantError(t, m.Check(to("app/hello", "v2")), berth.ErrTagInvalid, `"v1"`)
	untagged := parse(t, with(`"tag":"v1",`, ``))
	wantError(t, untagged.Check(to("app/hello", "v1")), berth.ErrTagInvalid, "")
	if err := untagged.Check(to("app/hello", "")); err != nil {
		t.Error("by digest, no tag is asked for:", err)
	}
}

func TestPutNameMustMatch(t *testing.T) {
	tests := []struct {
		name, repository, library string
		ok                        bool
	}{
		{"app/hello", "app/hello", "", true},
		{"app/hello", "app/other", "", false},
		{"ubuntu", "ubuntu", "", true},
		{"ubuntu", "library/ubuntu", "library", true},
		{"library/ubuntu", "library/ubuntu", "library", true},
		{"ubuntu", "library/ubuntu", "", false},
		{"ubuntu", "/ubuntu", "", false},
		{"ubuntu", "other/ubuntu", "library", false},
		{"ubuntu", "library/a/ubuntu", "library", false},
		{"a/ubuntu", "library/a/ubuntu", "library", false},
	}
	for _, tt := range tests {
		m := parse(t, with("app/hello", tt.name))
		err := m.Check(Target{Ref: berth.Reference{Repository: tt.repository, Tag: "v1"}, LibraryNamespace: tt.library})
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, berth.ErrNameInvalid) {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
}

func TestPutDigestMustBeThePayloads(t *testing.T) {
	m := signed(t)
	target := to("app/hello", "")
	for d, want := range map[digest.Digest]error{
		m.Digest():                              nil,
		digest.SHA512.FromBytes(m.Payload()):    nil,
		digest.FromBytes(m.Raw()):               berth.ErrManifestInvalid,
		digest.FromString("other"):              berth.ErrManifestInvalid,
		digest.Digest("md5:" + v1ID(0)):         berth.ErrDigestInvalid,
		digest.Digest("sha256:../../etc/passw"): berth.ErrDigestInvalid,
	} {
		target.Ref.Digest = d
		if err := m.Check(target); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", d, err, want)
		}
	}
}

func TestCheckJoinsWhatIsWrong(t *testing.T) {
	target := to("app/other", "v2")
	target.Ref.Digest = digest.FromString("other")
	err := signed(t).Check(target)
	for _, want := range []error{berth.ErrNameInvalid, berth.ErrTagInvalid, berth.ErrManifestInvalid} {
		if !errors.Is(err, want) {
			t.Errorf("%v does not have %v", err, want)
		}
	}
	if got := berth.Code(signed(t).Check(to("app/hello", "v2"))); got != "TAG_INVALID" {
		t.Errorf("a single error has the code %q", got)
	}
}
