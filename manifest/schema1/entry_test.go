package schema1

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

const emptyImage = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`

func TestOpenTellsTheFormats(t *testing.T) {
	unsigned, whole := small(), string(signed(t).Raw())
	for _, tt := range []struct {
		mediaType, raw, want string
		err                  error
	}{
		{"", unsigned, MediaType, nil},
		{"application/json", unsigned, MediaType, nil},
		{"application/json; charset=utf-8", whole, MediaTypeSigned, nil},
		{MediaType, whole, MediaTypeSigned, nil},
		{MediaTypeSigned + "; a=b", whole, MediaTypeSigned, nil},
		{MediaTypeSigned, unsigned, "", berth.ErrManifestInvalid},
		{MediaTypeSigned, emptyImage, "", berth.ErrManifestInvalid},
		{v1.MediaTypeImageManifest, unsigned, "", berth.ErrManifestInvalid},
		{v1.MediaTypeImageManifest, emptyImage, v1.MediaTypeImageManifest, nil},
		{manifest.MediaTypeDockerManifest, emptyImage, manifest.MediaTypeDockerManifest, nil},
		{"text/html", unsigned, "", berth.ErrUnsupported},
		{";", unsigned, "", berth.ErrUnsupported},
		{"", "", "", berth.ErrManifestInvalid},
	} {
		e, err := Open(tt.mediaType, []byte(tt.raw))
		if tt.err != nil {
			wantError(t, err, tt.err, "")
			continue
		}
		if err != nil || e.MediaType != tt.want || e.Descriptor.MediaType != tt.want || (e.Schema1 != nil) != manifest.IsSchema1(tt.want) {
			t.Errorf("%q: got %+v, %v", tt.mediaType, e, err)
		}
	}
}

func TestAnEntryIsKnownByItsPayload(t *testing.T) {
	m := signed(t)
	e, err := Open("", m.Raw())
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Descriptor{MediaType: MediaTypeSigned, Digest: m.Digest(), Size: int64(len(m.Raw()))}
	if e.Descriptor.Digest != want.Digest || e.Descriptor.Size != want.Size || !bytes.Equal(e.Payload, m.Payload()) {
		t.Errorf("got %+v", e.Descriptor)
	}
	if len(e.Required()) != 3 || e.Layers[0].Digest != blobSum(0) || e.Missing() != berth.ErrBlobUnknown {
		t.Errorf("got layers %+v, %v", e.Layers, e.Missing())
	}
	other := digest.SHA512.FromBytes(m.Payload())
	if err := e.Verify(other); err != nil || e.Descriptor.Digest != other {
		t.Errorf("got %s, %v", e.Descriptor.Digest, err)
	}
	wantError(t, e.Verify(digest.FromBytes(m.Raw())), berth.ErrDigestInvalid, "")
	wantError(t, e.Verify("none"), berth.ErrDigestInvalid, "")
}

// A layer that is there twice is one blob.
func TestAnEntryNamesEachBlobOnce(t *testing.T) {
	raw := manifestWith(
		`{"blobSum":"`+string(EmptyLayerDigest)+`"},{"blobSum":"`+string(EmptyLayerDigest)+`"}`,
		`{"v1Compatibility":"{\"id\":\"`+v1ID(1)+`\",\"parent\":\"`+v1ID(0)+`\"}"},{"v1Compatibility":"{\"id\":\"`+v1ID(0)+`\"}"}`)
	e, err := Open("", []byte(raw))
	if err != nil || len(e.Successors()) != 1 {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestAdmitChecksTheTarget(t *testing.T) {
	m := signed(t)
	for _, tt := range []struct {
		repo string
		opts berth.PushOptions
		want error
	}{
		{"app/hello", berth.PushOptions{Tags: []string{"v1"}, Digest: m.Digest()}, nil},
		{"app/hello", berth.PushOptions{Digest: digest.SHA512.FromBytes(m.Payload())}, nil},
		{"app/hello", berth.PushOptions{Tags: []string{"v1", "v2"}}, berth.ErrTagInvalid},
		{"app/hello", berth.PushOptions{Tags: []string{"not a tag"}}, berth.ErrTagInvalid},
		{"app/hello", berth.PushOptions{Digest: digest.FromBytes(m.Raw())}, berth.ErrManifestInvalid},
		{"hello", berth.PushOptions{}, berth.ErrNameInvalid},
		{"library/app/hello", berth.PushOptions{}, berth.ErrNameInvalid},
		{"app/hello", berth.PushOptions{MediaType: "text/html"}, berth.ErrUnsupported},
	} {
		_, err := Admit(tt.repo, m.Raw(), &tt.opts)
		if tt.want != nil {
			wantError(t, err, tt.want, "")
		} else if err != nil {
			t.Errorf("%s: %v", tt.repo, err)
		}
	}
	both := berth.PushOptions{Tags: []string{"v2"}}
	_, err := Admit("app/other", m.Raw(), &both)
	for _, want := range []error{berth.ErrNameInvalid, berth.ErrTagInvalid} {
		if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 2 {
			t.Errorf("got %v, want two errors, one of them %v", err, want)
		}
	}
}
