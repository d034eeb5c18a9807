package schema1

import (
	"crypto/elliptic"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

func FuzzParse(f *testing.F) {
	f.Add("", []byte(small()))
	f.Add(MediaType, []byte(small()))
	f.Add(MediaTypeSigned, signed(f).Raw())
	f.Add("", []byte(manifestOf(v1JSON(v1ID(0), "", `,"throwaway":true`), v1JSON(v1ID(0), "", ""))))
	f.Add("", []byte(manifestOf(v1JSON(v1ID(0), v1ID(9), `,"os":"windows","rootfs":{"type":"layers+base","base_layer":"b"}`))))
	f.Add("", []byte(strings.TrimSuffix(small(), "}")+`,"signatures":[{}]}`))
	f.Add("application/json", []byte(`{"schemaVersion":1,"fsLayers":null}`))
	f.Fuzz(func(t *testing.T, mediaType string, raw []byte) {
		m, err := Parse(mediaType, raw)
		if err != nil {
			if berth.Code(err) == "" || m != nil {
				t.Errorf("%v, without a code or with a manifest", err)
			}
			return
		}
		checkParsed(t, m)
	})
}

// checkParsed checks what holds for every manifest that Parse takes.
func checkParsed(t *testing.T, m *Manifest) {
	if again, err := Parse(m.MediaType(), m.Raw()); err != nil || again.Digest() != m.Digest() {
		t.Errorf("the second time: %v", err)
	}
	if unsigned, err := Parse(MediaType, m.Payload()); err != nil || unsigned.Signed() || unsigned.Tag != m.Tag || len(unsigned.Layers) != len(m.Layers) {
		t.Errorf("the payload is another manifest: %v", err)
	}
	linked, err := m.Chain()
	if (err == nil) != (len(linked) > 0) || len(linked) > len(m.Layers) {
		t.Errorf("a chain of %d in %d layers, %v", len(linked), len(m.Layers), err)
	}
	if err != nil {
		return
	}
	if _, err := m.Convert(gzipped, nil); err != nil && linked[0].V1.Parent == "" {
		t.Errorf("a chain that does not convert: %v", err)
	}
	all := func(string) (digest.Digest, bool) { return blobSum(99), true }
	if rewritten, err := RewriteIDs(m.Layers, all); err != nil || len(rewritten) != len(linked) {
		t.Errorf("a chain that is not rewritten: %v", err)
	}
}

// FuzzVerify looks for a file that verifies though nobody signed its payload. Keys are new in each
// run, but the payloads are not.
func FuzzVerify(f *testing.F) {
	payloads := map[string]bool{}
	add := func(raw []byte) {
		m, err := Parse("", raw)
		if err != nil {
			f.Fatal(err)
		}
		payloads[string(m.Payload())] = true
		f.Add(raw)
	}
	add(signed(f).Raw())
	payload := small()
	ec, rs := newJWS(payload, newEC(elliptic.P256())), newJWS(payload, rsaKey())
	add([]byte(file(payload, ec.block(payload))))
	add([]byte(file(payload, ec.block(payload), rs.block(payload))))
	none := rs.block(payload).with("header", rs.header.with("alg", "none")).with("signature", "")
	add([]byte(file(payload, none)))
	add([]byte(file(payload, rs.block(payload).with("header", members{"alg": "RS256", "x5c": []string{"MIIB"}}))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Parse("", raw)
		if err != nil {
			return
		}
		keys, err := m.Verify()
		if err != nil {
			if berth.Code(err) != "MANIFEST_INVALID" || keys != nil {
				t.Errorf("%v, without its code or with keys", err)
			}
			return
		}
		if !payloads[string(m.Payload())] || len(keys) == 0 {
			t.Errorf("verified with %d keys: %q", len(keys), raw)
		}
	})
}
