package manifest

import (
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

const imageConfigJSON = `{"created":"2024-05-06T07:08:09.1Z","author":"me","architecture":"arm","os":"linux","os.version":"5","variant":"v7",
"docker_version":"20.10.7","container":"x","Container_Config":{"cmd":1},
"config":{"User":"1000:1000","ExposedPorts":{"8080/tcp":{},"443/tcp":{}},"Env":["PATH=/bin","A=b"],"Entrypoint":["/app"],"Cmd":["serve"],
"Volumes":{"/data":{},"/cache":null},"WorkingDir":"/srv","Labels":{"a":"1","A":"2"},"StopSignal":"SIGINT","Healthcheck":{"test":[]}},
"rootfs":{"type":"layers","diff_ids":[]},
"history":[{"created_by":"ADD rootfs.tar /","created":"yesterday"},{"created_by":"ENV A=b","empty_layer":true},{"created_by":"COPY app /app"}]}`

// fetched is an image with that config.
func fetched(mediaType, configType, config string, layers ...string) Fetched {
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s],"annotations":{"k":"v"}}`,
		mediaType, described(configType, config, ""), strings.Join(layers, ","))
	return Fetched{Manifest: berth.Manifest{Descriptor: Descriptor(mediaType, raw), Raw: raw}, Config: []byte(config)}
}

func twoLayers() []string {
	return []string{described(v1.MediaTypeImageLayerGzip, "base", ""), described(v1.MediaTypeImageLayer, "application", "")}
}

// under puts a manifest below an index.
func under(f Fetched, mediaType string) Fetched {
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s,{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"arm","os":"linux"}}]}`,
		mediaType, described(v1.MediaTypeImageManifest, "another", ""), f.Manifest.Descriptor.MediaType, f.Manifest.Descriptor.Digest, f.Manifest.Descriptor.Size)
	f.Index = &berth.Manifest{Descriptor: Descriptor(mediaType, raw), Raw: raw}
	return f
}

// Given a reference: tag, digest, all tags of the repository, created, author, labels, env,
// architecture, OS, Docker version, layers. Works for schema 2, manifest lists and their OCI twins.
func TestInspectReportsSchema2ListsAndOCI(t *testing.T) {
	for _, types := range [][3]string{
		{v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, v1.MediaTypeImageIndex},
		{MediaTypeDockerManifest, mediaTypeDockerConfig, MediaTypeDockerManifestList},
		{MediaTypeDockerManifest, "application/octet-stream", MediaTypeDockerManifestList},
	} {
		f := under(fetched(types[0], types[1], imageConfigJSON, twoLayers()...), types[2])
		f.Ref, f.Tags = berth.Reference{Repository: "app/hello", Tag: "v1"}, []string{"latest", "v1"}
		r, err := Inspect(f)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`{"name":"app/hello","tag":"v1","repoTags":["latest","v1"],"digest":%q,"mediaType":%q,"indexDigest":%q,`+
			`"annotations":{"k":"v"},"created":"2024-05-06T07:08:09.1Z","author":"me","architecture":"arm","os":"linux","osVersion":"5","variant":"v7",`+
			`"dockerVersion":"20.10.7","labels":{"A":"2","a":"1"},"env":["PATH=/bin","A=b"],"entrypoint":["/app"],"cmd":["serve"],"user":"1000:1000",`+
			`"workingDir":"/srv","stopSignal":"SIGINT","exposedPorts":["443/tcp","8080/tcp"],"volumes":["/cache","/data"],"layers":[`+
			`{"digest":%q,"size":4,"mediaType":%q,"command":"ADD rootfs.tar /"},{"digest":%q,"size":11,"mediaType":%q,"command":"COPY app /app"}],"totalSize":%d}`,
			f.Manifest.Descriptor.Digest, types[0], f.Index.Descriptor.Digest,
			digest.FromString("base"), v1.MediaTypeImageLayerGzip, digest.FromString("application"), v1.MediaTypeImageLayer, 15+len(imageConfigJSON))
		if got, _ := json.Marshal(r); string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestInspectReportsAnIndexOfWhichNoneWasSelected(t *testing.T) {
	f := under(fetched(v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, imageConfigJSON), v1.MediaTypeImageIndex)
	r, err := Inspect(Fetched{Ref: berth.Reference{Repository: "a", Digest: f.Index.Descriptor.Digest}, Manifest: *f.Index})
	if err != nil {
		t.Fatal(err)
	}
	want := []ReportedManifest{
		{Digest: digest.FromString("another"), Size: 7, MediaType: v1.MediaTypeImageManifest},
		{Digest: f.Manifest.Descriptor.Digest, Size: f.Manifest.Descriptor.Size, MediaType: v1.MediaTypeImageManifest, Platform: "linux/arm"},
	}
	if !reflect.DeepEqual(r.Manifests, want) || r.MediaType != v1.MediaTypeImageIndex || r.TotalSize != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestInspectReportsArtifacts(t *testing.T) {
	raw := []byte(artifact(`"artifactType":"a/sbom","subject":`+described(v1.MediaTypeImageManifest, "subject", "")+`,`, emptyConfig, described("text/spdx+json", "sbom", "")))
	r, err := Inspect(Fetched{Manifest: berth.Manifest{Descriptor: Descriptor(v1.MediaTypeImageManifest, raw), Raw: raw}, Config: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	if r.ArtifactType != "a/sbom" || r.Subject.Digest != digest.FromString("subject") || len(r.Layers) != 1 || r.TotalSize != 6 {
		t.Errorf("got %+v", r)
	}
	// A config of another type is not parsed, whatever it holds.
	r, err = Inspect(fetched(v1.MediaTypeImageManifest, "application/vnd.cncf.helm.config.v1+json", `{"author":7`))
	if err != nil || r.ArtifactType != "application/vnd.cncf.helm.config.v1+json" || r.Author != "" {
		t.Errorf("got %+v, %v", r, err)
	}
	r, err = Inspect(fetched(v1.MediaTypeImageManifest, "application/octet-stream", `{"author":"me"}`))
	if err != nil || r.ArtifactType != "application/octet-stream" || r.Author != "" {
		t.Errorf("OCI never had configs of other types: got %+v, %v", r, err)
	}
	f := fetched(v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, imageConfigJSON, twoLayers()...)
	f.Config = nil
	if r, err = Inspect(f); err != nil || r.ArtifactType != "" || len(r.Layers) != 2 || r.OS != "" {
		t.Errorf("without a config: got %+v, %v", r, err)
	}
}

// By digest: the manifest's bytes are verified against the digest first, before anything else is
// believed; so is the config blob.
func TestInspectVerifiesBeforeItBelieves(t *testing.T) {
	good := func() Fetched {
		return under(fetched(v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, imageConfigJSON, twoLayers()...), v1.MediaTypeImageIndex)
	}
	other := []byte(index(""))
	tests := []struct {
		name  string
		spoil func(*Fetched)
		want  error
	}{
		{"nothing", func(*Fetched) {}, nil},
		{"asked for by the index's digest", func(f *Fetched) { f.Ref.Digest = f.Index.Descriptor.Digest }, nil},
		{"asked for by the manifest's digest", func(f *Fetched) { f.Ref.Digest = f.Manifest.Descriptor.Digest }, nil},
		{"asked for by another algorithm", func(f *Fetched) { f.Ref.Digest = digest.SHA512.FromBytes(f.Manifest.Raw) }, nil},
		{"listed by another algorithm", func(f *Fetched) {
			f.Manifest.Descriptor.Digest = digest.SHA512.FromBytes(f.Manifest.Raw)
		}, nil},
		{"asked for by another digest", func(f *Fetched) { f.Ref.Digest = digest.FromString("other") }, berth.ErrDigestInvalid},
		{"asked for by what is no digest", func(f *Fetched) { f.Ref.Digest = "md5:x" }, berth.ErrDigestInvalid},
		{"another manifest", func(f *Fetched) { f.Manifest.Raw[len(f.Manifest.Raw)-1] = ' ' }, berth.ErrDigestInvalid},
		{"a manifest that is no JSON either", func(f *Fetched) { f.Manifest.Raw = []byte("{") }, berth.ErrDigestInvalid},
		{"another size", func(f *Fetched) { f.Manifest.Descriptor.Size++ }, berth.ErrDigestInvalid},
		{"no digest", func(f *Fetched) { f.Manifest.Descriptor.Digest = "" }, berth.ErrDigestInvalid},
		{"another index", func(f *Fetched) { f.Index.Raw = other }, berth.ErrDigestInvalid},
		{"an index of others", func(f *Fetched) {
			f.Index = &berth.Manifest{Descriptor: Descriptor(v1.MediaTypeImageIndex, other), Raw: other}
		}, berth.ErrManifestUnknown},
		{"an index that is an image", func(f *Fetched) { f.Index = &f.Manifest }, berth.ErrManifestUnknown},
		{"an index that is none", func(f *Fetched) {
			f.Index = &berth.Manifest{Descriptor: Descriptor("", []byte("{")), Raw: []byte("{")}
		}, berth.ErrManifestInvalid},
		{"another config", func(f *Fetched) { f.Config = []byte(strings.Replace(imageConfigJSON, "me", "it", 1)) }, berth.ErrDigestInvalid},
		{"an empty config", func(f *Fetched) { f.Config = []byte{} }, berth.ErrDigestInvalid},
		{"another type", func(f *Fetched) { f.Manifest.Descriptor.MediaType = v1.MediaTypeImageIndex }, berth.ErrManifestInvalid},
		{"schema 1", func(f *Fetched) { f.Manifest.Descriptor.MediaType = MediaTypeSchema1 }, berth.ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := good()
			tt.spoil(&f)
			r, err := Inspect(f)
			if !errors.Is(err, tt.want) || (err == nil) != (r != nil) {
				t.Errorf("got %v, %v, want %v", r, err, tt.want)
			}
		})
	}
}

func TestInspectRefusesConfigs(t *testing.T) {
	for config, says := range map[string]string{
		`nope`:                            "syntax error",
		`null`:                            "null",
		`[]`:                              "array",
		`{"author":7}`:                    `"author"`,
		`{"author":"a","author":"b"}`:     `"author" twice`,
		`{"Author":"a"}`:                  `"Author"`,
		`{"config":{"env":["A=b"]}}`:      `"env"`,
		`{"config":{"Cmd":7}}`:            "Cmd",
		`{"config":{"Cmd":["a",7]}}`:      "Cmd",
		`{"history":[{"Created_By":""}]}`: `"Created_By"`,
		"{\"author\":\"\xff\"}":           "UTF-8",
	} {
		_, err := Inspect(fetched(v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, config))
		if !errors.Is(err, berth.ErrManifestInvalid) || !strings.Contains(err.Error(), says) || len(err.Error()) > 200 {
			t.Errorf("%s: got %v", config, err)
		}
	}
	var r Report
	if err := r.ReadConfig(make([]byte, berth.MaxManifestSize+1)); !errors.Is(err, berth.ErrSizeInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestInspectReadsSloppyConfigs(t *testing.T) {
	for config, want := range map[string]Report{
		`{}`: {},
		`{"config":null,"history":null,"created":null}`:                            {},
		`{"created":"yesterday","author":"me"}`:                                    {Author: "me"},
		`{"config":{"Cmd":"/bin/sh","Entrypoint":null,"Env":null,"Volumes":null}}`: {Cmd: []string{"/bin/sh"}},
		`{"config":{"Cmd":[],"Labels":{}}}`:                                        {Cmd: []string{}, Labels: map[string]string{}},
	} {
		var got Report
		if err := got.ReadConfig([]byte(config)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", config, got, err)
		}
	}
}

func TestHistoryThatDoesNotFitNamesNoCommands(t *testing.T) {
	for history, want := range map[string]string{
		`[{"created_by":"a"},{"created_by":"b"}]`:                                       "[a b]",
		`[{"created_by":"x","empty_layer":true},{"created_by":"a"},{"created_by":"b"}]`: "[a b]",
		`[{"created_by":"a"}]`: "[ ]",
		`[{"created_by":"a"},{"created_by":"b"},{"created_by":"c"}]`: "[ ]",
		`[]`: "[ ]",
	} {
		r, err := Inspect(fetched(v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, `{"history":`+history+`}`, twoLayers()...))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint([]string{r.Layers[0].Command, r.Layers[1].Command}); got != want {
			t.Errorf("%s: got %s", history, got)
		}
	}
}

func TestTotalSizeCountsEachBlobOnce(t *testing.T) {
	layer := described("a/b", "12345", "")
	r, err := Inspect(fetched(v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, "{}", layer, layer))
	if err != nil || r.TotalSize != 7 || len(r.Layers) != 2 {
		t.Errorf("got %+v, %v", r, err)
	}
	huge := make([]v1.Descriptor, maxDescriptors)
	for i := range huge {
		huge[i] = v1.Descriptor{Digest: digest.Digest(fmt.Sprint(i)), Size: maxSize}
	}
	if got := totalSize(huge); got <= 0 {
		t.Errorf("it overflows to %d", got)
	}
}

// No tag given: latest if it exists, else the first tag; none → a clear error.
func TestNoTagGiven(t *testing.T) {
	for want, tags := range map[string][]string{
		"latest": {"1", "latest", "v2"},
		"1":      {"1", "Latest", "v2"},
	} {
		if got, err := DefaultTag(tags); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if got, err := DefaultTag(nil); got != "" || !errors.Is(err, berth.ErrManifestUnknown) || !strings.Contains(err.Error(), "no tags") {
		t.Errorf("got %q, %v", got, err)
	}
}
