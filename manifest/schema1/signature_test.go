package schema1

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

func TestSignedManifestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(rt, "layers")
		name := rapid.StringMatching(`[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}`).Draw(rt, "name")
		tag := rapid.StringMatching(`[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}`).Draw(rt, "tag")
		architecture := rapid.StringN(0, 20, 80).Draw(rt, "architecture")
		unsigned, err := Build(to(name, tag), architecture, chainOf(t, n))
		if err != nil {
			rt.Fatal(err)
		}
		m, err := unsigned.Sign(rsaKey(), signedAt)
		if err != nil {
			rt.Fatal(err)
		}
		if string(m.Payload()) != string(unsigned.Raw()) || m.Digest() != unsigned.Digest() {
			rt.Error("signing changed the payload")
		}
		again, err := Parse(MediaTypeSigned, m.Raw())
		if err != nil {
			rt.Fatal(err)
		}
		keys, err := again.Verify()
		if err != nil || len(keys) != 1 || again.Name != name || again.Tag != tag || len(again.Layers) != n {
			rt.Errorf("got %q:%q with %d layers and %d keys, %v", again.Name, again.Tag, len(again.Layers), len(keys), err)
		}
	})
}

func TestPayloadFromTheProtectedHeader(t *testing.T) {
	for name, payload := range map[string]string{
		"compact":            small(),
		"indented":           string(signed(t).Payload()),
		"with a line end":    small() + "\n",
		"with spaces inside": strings.TrimSuffix(small(), "}") + " \n }",
	} {
		m := parse(t, file(payload, newJWS(payload, rsaKey()).block(payload)))
		if string(m.Payload()) != payload {
			t.Errorf("%s: the payload became %q", name, m.Payload())
		}
		if _, err := m.Verify(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDigestIsOfThePayload(t *testing.T) {
	m := signed(t)
	if m.Digest() != digest.FromBytes(m.Payload()) || m.Digest() == digest.FromBytes(m.Raw()) {
		t.Errorf("got %s", m.Digest())
	}
	if unsigned := parse(t, small()); unsigned.Digest() != digest.FromString(small()) {
		t.Errorf("unsigned: got %s", unsigned.Digest())
	}
}

func TestParseRefusesSignatures(t *testing.T) {
	payload := small()
	good := newJWS(payload, rsaKey())
	block := good.block(payload)
	protect := func(name string, value any) string {
		spoilt := good
		spoilt.protected = good.protected.with(name, value)
		return file(payload, spoilt.block(payload))
	}
	set := func(name string, value any) string { return file(payload, block.with(name, value)) }
	tail := func(s string) string { return protect("formatTail", encode64([]byte(s))) }
	length := good.protected["formatLength"].(int)
	many := make([]members, maxSignatures+1)
	for i := range many {
		many[i] = block
	}
	tests := []struct{ name, raw, says string }{
		{"no list", strings.TrimSuffix(payload, "}") + `,"signatures":7}`, "signatures"},
		{"null", strings.TrimSuffix(payload, "}") + `,"signatures":null}`, "0 signatures"},
		{"an empty list", file(payload), "0 signatures"},
		{"too many", file(payload, many...), "33 signatures, 1 to 32"},
		{"not an object", strings.TrimSuffix(payload, "}") + `,"signatures":[7]}`, "signature 0"},
		{"another member", set("x", 1), `signature 0: it has a member "x"`},
		{"a member in another case", set("Header", 1), `"Header"`},
		{"no signature of base64", set("signature", "?"), "signature 0: signature: it is not base64url"},
		{"padding", set("signature", "QQ=="), "base64url"},
		{"a line end", set("signature", "QUFB\nQUFB"), "base64url"},
		{"stray bits", set("signature", "QR"), "base64url"},
		{"no protected header", file(payload, block.without("protected")), "protected: JSON syntax error"},
		{"a protected header that is no JSON", set("protected", encode64([]byte("nope"))), "protected"},
		{"a protected key twice", set("protected", encode64([]byte(`{"formatLength":1,"formatLength":2}`))), "twice"},
		{"alg in the protected header", protect("alg", "none"), `"alg"`},
		{"crit in the protected header", protect("crit", []string{"b64"}), `"crit"`},
		{"b64 in the protected header", protect("b64", false), `"b64"`},
		{"a length of nothing", protect("formatLength", 0), "do not make an object"},
		{"a negative length", protect("formatLength", -1), "do not make an object"},
		{"a length in words", protect("formatLength", "7"), "formatLength"},
		{"half a length", protect("formatLength", 7.5), "formatLength"},
		{"a length too large to count", protect("formatLength", 1e30), "formatLength"},
		{"a length beyond the end", protect("formatLength", 1<<30), "beyond the end"},
		{"a length one short", protect("formatLength", length-1), "more"},
		{"a length one long", protect("formatLength", length+1), "more"},
		{"a length within", protect("formatLength", 20), "more"},
		{"no tail", tail(""), "do not make an object"},
		{"a tail with a member", tail(`,"tag":"v2"}`), "do not make an object"},
		{"a tail with two ends", tail(`}}`), "do not make an object"},
		{"a tail that is no base64", protect("formatTail", "?"), "formatTail"},
		{"more after the signatures", strings.TrimSuffix(file(payload, block), "}") + `,"x":1}`, "there is more"},
		{"more before the signatures", strings.Replace(file(payload, block), `,"signatures"`, `,"x":1,"signatures"`, 1), "there is more"},
		{"signatures within the payload", strings.Replace(file(payload, block), `"tag":"v1",`, ``, 1), "there is more"},
		{"payloads that differ", file(payload, block, newJWS(payload+"\n", rsaKey()).block(payload+"\n")), "signature 1: it is over another payload"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("", []byte(tt.raw))
			wantError(t, err, berth.ErrManifestInvalid, tt.says)
		})
	}
}

// What is outside the payload cannot change what is read: an attacker who may not sign can add
// members to the file only by making it unreadable.
func TestOnlyThePayloadIsInterpreted(t *testing.T) {
	payload := small()
	raw := file(payload, newJWS(payload, rsaKey()).block(payload))
	for _, attack := range []string{
		strings.Replace(raw, `,"signatures"`, `,"tag":"v2","signatures"`, 1),
		strings.Replace(raw, `,"signatures"`, `,"Tag":"v2","signatures"`, 1),
		`{"tag":"v2",` + strings.TrimPrefix(raw, "{"),
		strings.TrimSuffix(raw, "}") + `,"tag":"v2"}`,
	} {
		m, err := Parse("", []byte(attack))
		if err != nil {
			continue
		}
		if _, err := m.Verify(); err == nil {
			t.Errorf("verified, with the tag %q", m.Tag)
		}
	}
}

func TestSignatureErrorSaysWhich(t *testing.T) {
	payload := small()
	block := newJWS(payload, rsaKey()).block(payload)
	m := parse(t, file(payload, block, block, block.with("signature", encode64([]byte("nope")))))
	_, err := m.Verify()
	var which *SignatureError
	if !errors.As(err, &which) || which.Index != 2 || berth.Code(err) != "MANIFEST_INVALID" {
		t.Errorf("got %v", err)
	}
}
