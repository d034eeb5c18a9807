package schema1

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

func TestVerifyEverySignature(t *testing.T) {
	payload := small()
	signers := []crypto.Signer{rsaKey(), newEC(elliptic.P256()), newEC(elliptic.P384()), newEC(elliptic.P521()), rsaKey()}
	algorithms := []string{"RS256", "ES256", "ES384", "ES512", "RS256"}
	var blocks []members
	for _, key := range signers {
		blocks = append(blocks, newJWS(payload, key).block(payload))
	}
	keys, err := parse(t, file(payload, blocks...)).Verify()
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		id, err := KeyID(signers[i].Public())
		same := key.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(signers[i].Public())
		if err != nil || key.ID != id || key.Algorithm != algorithms[i] || !same {
			t.Errorf("key %d is %s for %s, want %s for %s", i, key.ID, key.Algorithm, id, algorithms[i])
		}
	}
	for i := range blocks {
		spoilt := append([]members{}, blocks...)
		spoilt[i] = spoilt[i].with("signature", blocks[(i+1)%4]["signature"])
		_, err := parse(t, file(payload, spoilt...)).Verify()
		var which *SignatureError
		if !errors.As(err, &which) || which.Index != i {
			t.Errorf("signature %d is spoilt: got %v", i, err)
		}
	}
}

func TestVerifyNeedsASignature(t *testing.T) {
	_, err := parse(t, small()).Verify()
	wantError(t, err, berth.ErrManifestInvalid, "not signed")
}

func TestVerifyRefuses(t *testing.T) {
	payload := small()
	ec := newEC(elliptic.P256())
	rs, es := newJWS(payload, rsaKey()), newJWS(payload, ec)
	rsJWK, esJWK := rs.header["jwk"].(members), es.header["jwk"].(members)
	short, long := newRSA(1024), new(big.Int).Lsh(big.NewInt(1), 4096)
	off := esJWK.with("x", encode64(make([]byte, 32)))
	secret := members{"kty": "oct", "k": encode64([]byte("secret"))}
	tests := []struct {
		name   string
		jws    jws
		header members
		says   string
	}{
		{"no header", rs, nil, "no header"},
		{"no key", rs, rs.header.without("jwk"), "jwk: it is missing"},
		{"a null key", rs, rs.header.with("jwk", nil), "jwk: it is missing"},
		{"a key that is no object", rs, rs.header.with("jwk", 7), "jwk"},
		{"no algorithm", rs, rs.header.without("alg"), `alg is ""`},
		{"none", rs, rs.header.with("alg", "none"), `alg is "none"`},
		{"HMAC with the public key", rs, rs.header.with("alg", "HS256"), `alg is "HS256"`},
		{"HMAC with its own key", rs, members{"alg": "HS256", "jwk": secret}, "secret key"},
		{"a symmetric key without its secret", rs, members{"alg": "HS256", "jwk": members{"kty": "oct"}}, "not a public RSA or EC key"},
		{"PSS", rs, rs.header.with("alg", "PS256"), `alg is "PS256"`},
		{"another RSA algorithm", rs, rs.header.with("alg", "RS512"), `alg is "RS512"`},
		{"an EC algorithm for RSA", rs, rs.header.with("alg", "ES256"), "its key is for RS256"},
		{"an RSA algorithm for EC", es, es.header.with("alg", "RS256"), "its key is for ES256"},
		{"the algorithm of another curve", es, es.header.with("alg", "ES384"), "its key is for ES256"},
		{"EdDSA", rs, members{"alg": "EdDSA", "jwk": members{"kty": "OKP", "crv": "Ed25519", "x": encode64(make([]byte, 32))}}, "not a public RSA or EC key"},
		{"a private key", rs, rs.header.with("jwk", rsJWK.with("d", "AQAB")), "secret key"},
		{"another kid", rs, rs.header.with("jwk", rsJWK.with("kid", esJWK["kid"])), "kid"},
		{"a kid that is no string", rs, rs.header.with("jwk", rsJWK.with("kid", 7)), "kid"},
		{"a kid in another case", rs, rs.header.with("jwk", rsJWK.with("KID", "x")), "kid"},
		{"a short key", newJWS(payload, short), newJWS(payload, short).header, "1024 bits"},
		{"a long key", rs, rs.header.with("jwk", rsJWK.with("n", encode64(long.Bytes())).without("kid")), "not a public RSA or EC key"},
		{"a point off the curve", es, es.header.with("jwk", off), "not a public RSA or EC key"},
		{"a curve that is unknown", es, es.header.with("jwk", esJWK.with("crv", "P-224")), "not a public RSA or EC key"},
		{"a key of somebody else", rs, newJWS(payload, newRSA(2048)).header, "not a RS256 signature of the payload by key"},
		{"a chain alone", rs, members{"alg": "RS256", "x5c": []string{"MIIB"}}, "x5c certificate chain"},
		{"a chain beside a key", rs, rs.header.with("x5c", []string{"MIIB"}), "x5c certificate chain"},
		{"an address of a key", rs, rs.header.with("jku", "https://example.com/"), `"jku"`},
		{"crit", rs, rs.header.with("crit", []string{"b64"}), `"crit"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			block := tt.jws.block(payload).with("header", tt.header)
			good := rs.block(payload)
			keys, err := parse(t, file(payload, good, block)).Verify()
			wantError(t, err, berth.ErrManifestInvalid, tt.says)
			var which *SignatureError
			if !errors.As(err, &which) || which.Index != 1 || keys != nil {
				t.Errorf("got %v and %d keys", err, len(keys))
			}
		})
	}
}

func TestVerifyIgnoresHintsBesideTheKey(t *testing.T) {
	payload := small()
	j := newJWS(payload, rsaKey())
	j.header["jwk"] = j.header["jwk"].(members).without("kid").with("use", "sig").with("x5c", []string{"MIIB"}).with("hosts", "h")
	if _, err := parse(t, file(payload, j.block(payload))).Verify(); err != nil {
		t.Error(err)
	}
}

func TestSignaturesAreOfBothParts(t *testing.T) {
	payload := small()
	block := newJWS(payload, rsaKey()).block(payload)
	later := newJWS(payload, rsaKey())
	later.protected = later.protected.with("time", "2020-01-01T00:00:00Z")
	moved := block.with("protected", later.block(payload)["protected"])
	_, err := parse(t, file(payload, moved)).Verify()
	wantError(t, err, berth.ErrManifestInvalid, "signature 0: it is not a RS256 signature")
	renamed := strings.Replace(file(payload, block), `"v1"`, `"v2"`, 1)
	_, err = parse(t, renamed).Verify()
	wantError(t, err, berth.ErrManifestInvalid, "signature 0: it is not a RS256 signature")
}

// Whatever is changed in a signed file, what verifies has the payload that was signed.
func TestNoChangeForgesAPayload(t *testing.T) {
	m := signed(t)
	rapid.Check(t, func(rt *rapid.T) {
		raw := append([]byte{}, m.Raw()...)
		for range rapid.IntRange(1, 3).Draw(rt, "changes") {
			at := rapid.IntRange(0, len(raw)-1).Draw(rt, "at")
			raw[at] = rapid.SampledFrom([]byte("{}[]\",: \n0aA=")).Draw(rt, "byte")
		}
		changed, err := Parse("", raw)
		if err != nil {
			return
		}
		if _, err := changed.Verify(); err == nil && string(changed.Payload()) != string(m.Payload()) {
			rt.Errorf("verified with another payload: %q", raw)
		}
	})
}

func TestKeyID(t *testing.T) {
	id, err := KeyID(rsaKey().Public())
	if err != nil || !regexp.MustCompile(`^([A-Z2-7]{4}:){11}[A-Z2-7]{4}$`).MatchString(id) {
		t.Errorf("got %q, %v", id, err)
	}
	if _, err := KeyID("no key"); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("no key: got %v", err)
	}
}

// The key and its id are those of the example in "Image Manifest Version 2, Schema 1".
func TestKeyIDOfTheSpecification(t *testing.T) {
	x, _ := base64.RawURLEncoding.DecodeString("3gAwX48IQ5oaYQAYSxor6rYYc_6yjuLCjtQ9LUakg4A")
	y, _ := base64.RawURLEncoding.DecodeString("t72ge6kIA1XOjqjVoEOiPPAURltJFBMGDSQvEGVB010")
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	if err != nil {
		t.Fatal(err)
	}
	id, err := KeyID(key)
	if err != nil || id != "OD6I:6DRK:JXEJ:KBM4:255X:NSAA:MUSF:E4VM:ZI6W:CUN2:L4Z6:LSF4" {
		t.Errorf("got %q, %v", id, err)
	}
}
