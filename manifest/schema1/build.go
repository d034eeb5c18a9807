package schema1

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// indent is how manifests are written: Docker's clients and registries all had three spaces.
const indent = "   "

// payload is the manifest as it is written. Its order is the one of the reference registry, whose
// payloads and so whose digests are the same.
type payload struct {
	SchemaVersion int       `json:"schemaVersion"`
	Name          string    `json:"name"`
	Tag           string    `json:"tag"`
	Architecture  string    `json:"architecture"`
	FSLayers      []fsLayer `json:"fsLayers"`
	History       []history `json:"history"`
}

type fsLayer struct {
	BlobSum digest.Digest `json:"blobSum"`
}

type history struct {
	V1Compatibility string `json:"v1Compatibility"`
}

// Build makes an unsigned manifest for a target, whose digest is ignored, of layers that come base
// first; of each, BlobSum and V1JSON count. The same input gives the same bytes.
//
// Errors: berth.ErrNameInvalid, berth.ErrTagInvalid; berth.ErrManifestInvalid where there are no
// layers, too many, or where they are no chain without repeats; berth.ErrSizeInvalid where the
// manifest would be beyond berth.MaxManifestSize.
func Build(to Target, architecture string, layers []Layer) (*Manifest, error) {
	if err := joined(berth.ValidateRepository(to.Ref.Repository), berth.ValidateTag(to.Ref.Tag)); err != nil {
		return nil, err
	}
	p := payload{
		SchemaVersion: 1, Name: to.manifestName(), Tag: to.Ref.Tag, Architecture: architecture,
		FSLayers: make([]fsLayer, len(layers)), History: make([]history, len(layers)),
	}
	for i, layer := range layers {
		top := len(layers) - 1 - i
		p.FSLayers[top] = fsLayer{layer.BlobSum}
		p.History[top] = history{string(layer.V1JSON)}
	}
	raw, err := json.MarshalIndent(p, "", indent)
	if err != nil {
		return nil, invalid("%s", describe(err))
	}
	return checked(raw)
}

// checked reads what was built, so that nothing leaves Build that Parse would not take.
func checked(raw []byte) (*Manifest, error) {
	m, err := Parse(MediaType, raw)
	if err != nil {
		return nil, err
	}
	linked, err := m.Chain()
	if err != nil {
		return nil, err
	}
	if len(linked) != len(m.Layers) {
		return nil, invalid("it has a layer that repeats the one below")
	}
	return m, nil
}

// signedBlock is an element of signatures as it is written.
type signedBlock struct {
	Header    signedHeader `json:"header"`
	Signature string       `json:"signature"`
	Protected string       `json:"protected"`
}

type signedHeader struct {
	JWK       jose.JSONWebKey         `json:"jwk"`
	Algorithm jose.SignatureAlgorithm `json:"alg"`
}

// Sign returns a manifest of the same payload whose one signature is by key, an RSA key of 2048 to
// 4096 bits, with RS256. The public key is in its header, and at, in seconds, in its protected
// header. The same payload, key and time give the same bytes. Signatures that the manifest had are
// left out.
//
// Errors: berth.ErrUnsupported for another key; berth.ErrSizeInvalid where the manifest would be
// beyond berth.MaxManifestSize; what the key returns.
func (m *Manifest) Sign(key crypto.Signer, at time.Time) (*Manifest, error) {
	public, err := signingKey(key)
	if err != nil {
		return nil, err
	}
	f := frameOf(m.payload)
	block, err := f.sign(m.payload, key, at)
	if err != nil {
		return nil, err
	}
	block.Header = signedHeader{JWK: public, Algorithm: jose.RS256}
	blocks, err := json.MarshalIndent([]signedBlock{block}, indent, indent)
	if err != nil {
		return nil, err
	}
	file := fmt.Appendf(nil, "%s,\n%s\"signatures\": %s\n}", m.payload[:f.length], indent, blocks)
	signed, err := Parse(MediaTypeSigned, file)
	if err != nil {
		return nil, err
	}
	_, err = signed.Verify()
	return signed, err
}

func signingKey(key crypto.Signer) (jose.JSONWebKey, error) {
	if key == nil {
		return jose.JSONWebKey{}, fmt.Errorf("there is no key to sign with: %w", berth.ErrUnsupported)
	}
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		return jose.JSONWebKey{}, fmt.Errorf("a key of type %T cannot sign, only RSA does: %w", key.Public(), berth.ErrUnsupported)
	}
	if _, err := algorithmOf(public); err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("%v: %w", err, berth.ErrUnsupported)
	}
	id, err := KeyID(public)
	return jose.JSONWebKey{Key: public, KeyID: id}, err
}

// frameOf cuts a payload where signatures go: after its last member.
func frameOf(payload []byte) frame {
	end := len(payload)
	for end > 0 && isSpace(payload[end-1]) {
		end--
	}
	end--
	for end > 0 && isSpace(payload[end-1]) {
		end--
	}
	return frame{length: end, tail: string(payload[end:])}
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }

func (f frame) sign(payload []byte, key crypto.Signer, at time.Time) (signedBlock, error) {
	protected, err := encode(map[string]any{
		"formatLength": f.length,
		"formatTail":   encode64([]byte(f.tail)),
		"time":         at.UTC().Format(time.RFC3339),
	})
	if err != nil {
		return signedBlock{}, err
	}
	block := signedBlock{Protected: encode64(protected)}
	sum := sha256.Sum256([]byte(block.Protected + "." + encode64(payload)))
	value, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return signedBlock{}, fmt.Errorf("sign the manifest: %w", err)
	}
	block.Signature = encode64(value)
	return block, nil
}
