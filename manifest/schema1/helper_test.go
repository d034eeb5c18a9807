package schema1

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// signedAt is when test manifests are signed.
var signedAt = time.Date(2015, 4, 8, 18, 52, 59, 0, time.UTC)

// rsaKey is made once: it takes longer than most tests.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })

func newRSA(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

func newEC(curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func to(repository, tag string) Target {
	return Target{Ref: berth.Reference{Repository: repository, Tag: tag}}
}

// v1ID and blobSum are the n-th of their kind.
func v1ID(n int) string { return digest.FromString(fmt.Sprint("id ", n)).Encoded() }

func blobSum(n int) digest.Digest { return digest.FromString(fmt.Sprint("blob ", n)) }

// v1JSON writes a v1 JSON; more begins with a comma.
func v1JSON(id, parent, more string) string {
	if parent != "" {
		more = fmt.Sprintf(`,"parent":%q%s`, parent, more)
	}
	return fmt.Sprintf(`{"id":%q%s}`, id, more)
}

// chainOf makes n layers, each on the one before.
func chainOf(t testing.TB, n int) []Layer {
	t.Helper()
	layers := make([]Layer, n)
	parent := ""
	for i := range layers {
		more := fmt.Sprintf(`,"created":"2015-01-02T03:04:%02dZ","author":"me","container_config":{"Cmd":["/bin/sh","-c","step %d"],"Image":%q}`, i%60, i, parent)
		layers[i] = layerOf(t, blobSum(i), v1JSON(v1ID(i), parent, more))
		parent = v1ID(i)
	}
	return layers
}

func layerOf(t testing.TB, blob digest.Digest, v1 string) Layer {
	t.Helper()
	layer, err := NewLayer(blob, []byte(v1))
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// manifestOf writes a manifest of v1 JSONs, base first, the i-th on blobSum(i).
func manifestOf(v1s ...string) string {
	var blobs, entries []string
	for i := len(v1s) - 1; i >= 0; i-- {
		blobs = append(blobs, fmt.Sprintf(`{"blobSum":%q}`, blobSum(i)))
		entries = append(entries, fmt.Sprintf(`{"v1Compatibility":%q}`, v1s[i]))
	}
	return manifestWith(strings.Join(blobs, ","), strings.Join(entries, ","))
}

func manifestWith(fsLayers, history string) string {
	return `{"schemaVersion":1,"name":"app/hello","tag":"v1","architecture":"amd64","fsLayers":[` +
		fsLayers + `],"history":[` + history + `]}`
}

// small is a manifest of two layers.
func small() string {
	return manifestOf(v1JSON(v1ID(0), "", ""), v1JSON(v1ID(1), v1ID(0), ""))
}

func parse(t testing.TB, raw string) *Manifest {
	t.Helper()
	m, err := Parse("", []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func signed(t testing.TB) *Manifest {
	t.Helper()
	m, err := Build(to("app/hello", "v1"), "amd64", chainOf(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	if m, err = m.Sign(rsaKey(), signedAt); err != nil {
		t.Fatal(err)
	}
	return m
}

// members are those of a JSON object.
type members map[string]any

func (m members) with(name string, value any) members {
	changed := maps.Clone(m)
	changed[name] = value
	return changed
}

func (m members) without(name string) members {
	changed := maps.Clone(m)
	delete(changed, name)
	return changed
}

func (m members) json() string {
	raw, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// jws is a signature in the making that a test may spoil: sign makes it of what stands here.
type jws struct {
	key       crypto.Signer
	header    members
	protected members
}

// newJWS signs payload as libtrust does, but without this package.
func newJWS(payload string, key crypto.Signer) jws {
	head := strings.TrimRight(strings.TrimSuffix(strings.TrimRight(payload, " \n"), "}"), " \n")
	return jws{
		key:    key,
		header: members{"alg": algOf(key), "jwk": jwkOf(key.Public())},
		protected: members{
			"formatLength": len(head),
			"formatTail":   encode64([]byte(payload[len(head):])),
			"time":         signedAt.Format(time.RFC3339),
		},
	}
}

func algOf(key crypto.Signer) string {
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		return map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[ec.Params().BitSize]
	}
	return "RS256"
}

func jwkOf(public crypto.PublicKey) members {
	id, err := KeyID(public)
	if err != nil {
		panic(err)
	}
	if key, ok := public.(*rsa.PublicKey); ok {
		return members{"kty": "RSA", "kid": id, "n": encode64(key.N.Bytes()), "e": encode64(big.NewInt(int64(key.E)).Bytes())}
	}
	key := public.(*ecdsa.PublicKey)
	point, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	half := len(point) / 2
	return members{
		"kty": "EC", "kid": id, "crv": key.Params().Name,
		"x": encode64(point[1 : 1+half]), "y": encode64(point[1+half:]),
	}
}

// block returns the element of signatures.
func (j jws) block(payload string) members {
	protected := encode64([]byte(j.protected.json()))
	return members{
		"header":    j.header,
		"protected": protected,
		"signature": encode64(j.value(protected + "." + encode64([]byte(payload)))),
	}
}

func (j jws) value(input string) []byte {
	hash := crypto.SHA256
	ec, isEC := j.key.(*ecdsa.PrivateKey)
	if isEC {
		hash = map[int]crypto.Hash{256: crypto.SHA256, 384: crypto.SHA384, 521: crypto.SHA512}[ec.Params().BitSize]
	}
	h := hash.New()
	h.Write([]byte(input))
	if !isEC {
		value, err := j.key.Sign(rand.Reader, h.Sum(nil), hash)
		if err != nil {
			panic(err)
		}
		return value
	}
	r, s, err := ecdsa.Sign(rand.Reader, ec, h.Sum(nil))
	if err != nil {
		panic(err)
	}
	size := (ec.Params().BitSize + 7) / 8
	return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
}

// file puts signatures into a payload.
func file(payload string, blocks ...members) string {
	raw, err := json.Marshal(blocks)
	if err != nil {
		panic(err)
	}
	end := strings.LastIndex(payload, "}")
	return strings.TrimRight(payload[:end], " \n") + `,"signatures":` + string(raw) + "}"
}

// wantError checks an error's kind, that it says something, and that it is one short line.
func wantError(t *testing.T, err, want error, says string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("%q does not say %q", err, says)
	}
	if len(err.Error()) > 400 || strings.Contains(err.Error(), "\n") {
		t.Errorf("the message is not one short line: %d bytes", len(err.Error()))
	}
}
