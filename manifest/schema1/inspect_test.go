package schema1

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// imageV1s are the v1 JSONs of an image with a throwaway layer and a repeated one, base first.
func imageV1s() []string {
	top := v1JSON(v1ID(2), v1ID(1), `,"created":"2015-04-08T18:52:59Z","author":"me","os":"linux","architecture":"arm","docker_version":"1.6.0",`+
		`"container_config":{"Cmd":["/bin/sh","-c","#(nop) CMD [\"/app\"]"]},"throwaway":true,`+
		`"config":{"Cmd":["/app"],"Env":["A=b"],"Labels":{"a":"1"},"ExposedPorts":{"80/tcp":{}},"Entrypoint":null,"WorkingDir":"/srv","User":"u"}`)
	second := v1JSON(v1ID(1), v1ID(0), `,"container_config":{"Cmd":["/bin/sh","-c","make"]}`)
	return []string{v1JSON(v1ID(0), "", `,"container_config":{"Cmd":["ADD","/"]}`), second, second, top}
}

func fetched(raw []byte) manifest.Fetched {
	return manifest.Fetched{Manifest: berth.Manifest{Descriptor: manifest.Descriptor(MediaTypeSigned, raw), Raw: raw}}
}

// Given a reference: tag, digest, all tags of the repository, created, author, labels, env,
// architecture, OS, Docker version, layers. Works for schema 1.
func TestInspectReportsSchema1(t *testing.T) {
	payload := manifestOf(imageV1s()...)
	raw := []byte(file(payload, newJWS(payload, rsaKey()).block(payload)))
	f := fetched(raw)
	f.Ref, f.Tags = berth.Reference{Repository: "library/hello", Digest: digest.FromString(payload)}, []string{"v1"}
	r, err := Inspect(f)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"name":"library/hello","tag":"v1","repoTags":["v1"],"digest":%q,"mediaType":%q,"created":"2015-04-08T18:52:59Z","author":"me",`+
		`"architecture":"arm","os":"linux","dockerVersion":"1.6.0","labels":{"a":"1"},"env":["A=b"],"cmd":["/app"],"user":"u","workingDir":"/srv",`+
		`"exposedPorts":["80/tcp"],"layers":[{"digest":%q,"command":"ADD /"},{"digest":%q,"command":"/bin/sh -c make"}]}`,
		digest.FromString(payload), MediaTypeSigned, blobSum(0), blobSum(1))
	if got, _ := json.Marshal(r); string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The report says what the image says that Convert makes.
func TestInspectAgreesWithConvert(t *testing.T) {
	raw := []byte(manifestOf(imageV1s()...))
	f := fetched(raw)
	f.Manifest.Descriptor.MediaType = "application/json"
	fromSchema1, err := Inspect(f)
	if err != nil {
		t.Fatal(err)
	}
	blobs := func(d digest.Digest) (Blob, error) { return Blob{DiffID: digest.FromString("diff"), Size: 7}, nil }
	image, err := parse(t, string(raw)).Convert(blobs, &ConvertOptions{MediaType: v1.MediaTypeImageManifest})
	if err != nil {
		t.Fatal(err)
	}
	converted, err := manifest.Inspect(manifest.Fetched{
		Ref:      berth.Reference{Repository: "app/hello", Tag: "v1"},
		Manifest: berth.Manifest{Descriptor: manifest.Descriptor(image.MediaType, image.Manifest), Raw: image.Manifest},
		Config:   image.Config,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range converted.Layers {
		converted.Layers[i].Size, converted.Layers[i].MediaType = 0, ""
	}
	converted.Digest, converted.MediaType, converted.TotalSize = fromSchema1.Digest, fromSchema1.MediaType, 0
	converted.DockerVersion = fromSchema1.DockerVersion // OCI does not have it
	got, _ := json.Marshal(fromSchema1)
	if want, _ := json.Marshal(converted); string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// By digest: the manifest's bytes are verified against the digest, which is the payload's or the
// file's.
func TestInspectVerifiesThePayload(t *testing.T) {
	m := signed(t)
	tests := []struct {
		name  string
		spoil func(*manifest.Fetched)
		want  error
	}{
		{"the file's digest", func(*manifest.Fetched) {}, nil},
		{"the payload's digest", func(f *manifest.Fetched) { f.Manifest.Descriptor.Digest = m.Digest() }, nil},
		{"asked for by the payload's digest", func(f *manifest.Fetched) { f.Ref.Digest = m.Digest() }, nil},
		{"asked for by the file's digest", func(f *manifest.Fetched) { f.Ref.Digest = f.Manifest.Descriptor.Digest }, nil},
		{"another digest", func(f *manifest.Fetched) { f.Manifest.Descriptor.Digest = digest.FromString("other") }, berth.ErrDigestInvalid},
		{"asked for by another digest", func(f *manifest.Fetched) { f.Ref.Digest = digest.FromString("other") }, berth.ErrDigestInvalid},
		{"a signed file that was changed", func(f *manifest.Fetched) {
			f.Manifest.Raw = []byte(strings.Replace(string(f.Manifest.Raw), "app/hello", "app/hullo", 1))
		}, berth.ErrDigestInvalid},
		{"an index of others", func(f *manifest.Fetched) {
			raw := []byte(`{"schemaVersion":2,"manifests":[]}`)
			f.Index = &berth.Manifest{Descriptor: manifest.Descriptor(manifest.MediaTypeDockerManifestList, raw), Raw: raw}
		}, berth.ErrManifestUnknown},
		{"an index that lists the payload", func(f *manifest.Fetched) {
			raw := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":7}]}`, MediaTypeSigned, m.Digest())
			f.Index = &berth.Manifest{Descriptor: manifest.Descriptor(manifest.MediaTypeDockerManifestList, raw), Raw: raw}
		}, nil},
		{"a file that is not signed", func(f *manifest.Fetched) {
			f.Manifest = berth.Manifest{Descriptor: manifest.Descriptor(MediaTypeSigned, m.Payload()), Raw: m.Payload()}
		}, berth.ErrManifestInvalid},
		{"another format", func(f *manifest.Fetched) { f.Manifest.Descriptor.MediaType = v1.MediaTypeImageIndex }, berth.ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := fetched(m.Raw())
			tt.spoil(&f)
			r, err := Inspect(f)
			if !errors.Is(err, tt.want) || (err == nil) != (r != nil) {
				t.Fatalf("got %v, %v, want %v", r, err, tt.want)
			}
			if err == nil && r.Digest != m.Digest() {
				t.Errorf("the digest is reported as %s", r.Digest)
			}
		})
	}
}

func TestInspectRefusesWhatIsNoImage(t *testing.T) {
	for name, v1s := range map[string][]string{
		"a broken chain": {v1JSON(v1ID(0), "", ""), v1JSON(v1ID(1), v1ID(7), "")},
		"no config":      {v1JSON(v1ID(0), "", `,"config":{"Env":7}`)},
	} {
		f := fetched([]byte(manifestOf(v1s...)))
		f.Manifest.Descriptor.MediaType = MediaType
		if r, err := Inspect(f); !errors.Is(err, berth.ErrManifestInvalid) || r != nil {
			t.Errorf("%s: got %v, %v", name, r, err)
		}
	}
}

func TestInspectReportsWindows(t *testing.T) {
	f := fetched([]byte(manifestOf(v1JSON(v1ID(0), v1ID(9), `,"os":"windows"`))))
	f.Manifest.Descriptor.MediaType = MediaType
	if r, err := Inspect(f); err != nil || r.OS != "windows" || len(r.Layers) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}
