package schema1

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

func TestBuildAndSign(t *testing.T) {
	m := signed(t)
	var written struct {
		Signatures []struct {
			Header struct {
				Alg string
				JWK struct{ Kty, Kid, N, E, D string }
			}
			Protected string
		}
	}
	if err := json.Unmarshal(m.Raw(), &written); err != nil {
		t.Fatal(err)
	}
	header := written.Signatures[0].Header
	id, _ := KeyID(rsaKey().Public())
	if header.Alg != "RS256" || header.JWK.Kty != "RSA" || header.JWK.Kid != id || header.JWK.E != "AQAB" || header.JWK.D != "" {
		t.Errorf("header %+v", header)
	}
	protected, err := decode64(written.Signatures[0].Protected)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"formatLength":%d,"formatTail":"Cn0","time":"2015-04-08T18:52:59Z"}`, len(m.Payload())-2)
	if string(protected) != want {
		t.Errorf("protected %s, want %s", protected, want)
	}
}

func TestBuildWritesTheMembersInOrder(t *testing.T) {
	m := signed(t)
	at := 0
	for _, member := range []string{"schemaVersion", "name", "tag", "architecture", "fsLayers", "history", "signatures"} {
		next := bytes.Index(m.Raw()[at:], []byte("\n   \""+member+"\": "))
		if next < 0 {
			t.Fatalf("%s is not where it belongs", member)
		}
		at += next + 1
	}
	if !bytes.HasSuffix(m.Payload(), []byte("\n   ]\n}")) {
		t.Errorf("the payload ends in %q", m.Payload()[len(m.Payload())-10:])
	}
}

func TestBuildIsDeterministic(t *testing.T) {
	if a, b := signed(t), signed(t); !bytes.Equal(a.Raw(), b.Raw()) {
		t.Error("the same input gave two manifests")
	}
	later, err := signed(t).Sign(rsaKey(), signedAt.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(later.Raw(), signed(t).Raw()) || later.Digest() != signed(t).Digest() {
		t.Error("the time of signing is not in the signature, or is in the digest")
	}
}

func TestSignReplacesSignatures(t *testing.T) {
	payload := small() + "\n"
	m := parse(t, file(payload, newJWS(payload, newEC(elliptic.P384())).block(payload)))
	again, err := m.Sign(rsaKey(), signedAt)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := again.Verify()
	if err != nil || len(keys) != 1 || keys[0].Algorithm != "RS256" || string(again.Payload()) != payload {
		t.Errorf("got %v, %v, payload %q", keys, err, again.Payload())
	}
}

func TestBuildRefuses(t *testing.T) {
	layers := chainOf(t, 3)
	big := layerOf(t, blobSum(0), v1JSON(v1ID(0), "", `,"comment":"`+strings.Repeat("x", berth.MaxManifestSize)+`"`))
	tests := []struct {
		name   string
		to     Target
		layers []Layer
		want   error
	}{
		{"a name that is none", to("App", "v1"), layers, berth.ErrNameInvalid},
		{"no tag", to("app/hello", ""), layers, berth.ErrTagInvalid},
		{"no layers", to("app/hello", "v1"), nil, berth.ErrManifestInvalid},
		{"a layer that is none", to("app/hello", "v1"), make([]Layer, 1), berth.ErrManifestInvalid},
		{"layers from the top", to("app/hello", "v1"), []Layer{layers[1], layers[0]}, berth.ErrManifestInvalid},
		{"a layer twice", to("app/hello", "v1"), []Layer{layers[0], layers[0]}, berth.ErrManifestInvalid},
		{"too large", to("app/hello", "v1"), []Layer{big}, berth.ErrSizeInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Build(tt.to, "amd64", tt.layers)
			wantError(t, err, tt.want, "")
		})
	}
}

// failing is a key that is out of reach.
type failing struct {
	crypto.Signer
	err error
}

func (f failing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return []byte("no signature"), f.err
}

func TestSignRefuses(t *testing.T) {
	m := parse(t, small())
	gone := errors.New("the card was pulled")
	for name, tt := range map[string]struct {
		key  crypto.Signer
		want error
	}{
		"no key":               {nil, berth.ErrUnsupported},
		"an EC key":            {newEC(elliptic.P256()), berth.ErrUnsupported},
		"a short key":          {newRSA(1024), berth.ErrUnsupported},
		"a key that fails":     {failing{rsaKey(), gone}, gone},
		"a key that is broken": {failing{rsaKey(), nil}, berth.ErrManifestInvalid},
	} {
		if _, err := m.Sign(tt.key, signedAt); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

func TestEmptyLayer(t *testing.T) {
	if got := digest.FromBytes(EmptyLayer()); got != EmptyLayerDigest {
		t.Errorf("its digest is %s", got)
	}
	zip, err := gzip.NewReader(bytes.NewReader(EmptyLayer()))
	if err != nil {
		t.Fatal(err)
	}
	if tar, err := io.ReadAll(zip); err != nil || !bytes.Equal(tar, make([]byte, 1024)) {
		t.Errorf("it unpacks to %d bytes, %v", len(tar), err)
	}
}
