package schema1

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/berthoci/berth"
)

// The sizes of RSA keys, in bits, that sign and verify.
const (
	minRSABits = 2048
	maxRSABits = 4096
)

// Key is a public key that has signed a manifest.
type Key struct {
	// ID is what KeyID gives.
	ID string
	// Public is an *rsa.PublicKey or an *ecdsa.PublicKey.
	Public crypto.PublicKey
	// Algorithm of the signature: "RS256", "ES256", "ES384" or "ES512".
	Algorithm string
}

// Verify verifies every signature with the public key in its header, and returns those keys in the
// order of the signatures. It says who signed the payload, not whether they are to be trusted.
//
// The algorithm must be the one that goes with the key, so "none" and secret keys have no place. A
// kid must be the key's, as Docker asked. A header with an x5c certificate chain is refused: what a
// chain is worth depends on roots, names and time, and without these it says no more than a key.
//
// Errors: a *SignatureError for the first signature that is wrong; berth.ErrManifestInvalid where
// the manifest is not signed.
func (m *Manifest) Verify() ([]Key, error) {
	if !m.Signed() {
		return nil, invalid("it is not signed")
	}
	keys := make([]Key, len(m.signatures))
	for i, s := range m.signatures {
		key, err := s.verify(m.payload)
		if err != nil {
			return nil, &SignatureError{Index: i, Reason: err.Error()}
		}
		keys[i] = key
	}
	return keys, nil
}

func (s signature) verify(payload []byte) (Key, error) {
	key, err := s.key()
	if err != nil {
		return Key{}, err
	}
	block, err := encode(map[string]any{
		"payload": "", "protected": s.protected, "signature": s.value,
		"header": map[string]string{"alg": key.Algorithm},
	})
	if err != nil {
		return Key{}, err
	}
	jws, err := jose.ParseSignedJSON(string(block), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(key.Algorithm)})
	if err != nil {
		return Key{}, errors.New("it is not a JSON Web Signature")
	}
	if err := jws.DetachedVerify(payload, key.Public); err != nil {
		return Key{}, fmt.Errorf("it is not a %s signature of the payload by key %s", key.Algorithm, key.ID)
	}
	return key, nil
}

// key reads the unprotected header.
func (s signature) key() (Key, error) {
	var alg string
	var jwk, chain json.RawMessage
	if isNull(s.header) {
		return Key{}, errors.New("it has no header")
	}
	if err := readObject(s.header, field{"alg", &alg}, field{"jwk", &jwk}, field{"x5c", &chain}); err != nil {
		return Key{}, fmt.Errorf("header: %w", err)
	}
	if chain != nil {
		return Key{}, errors.New("it has an x5c certificate chain, which is not verified here")
	}
	if err := only(s.header, "alg", "jwk"); err != nil {
		return Key{}, fmt.Errorf("header: %w", err)
	}
	key, err := parseJWK(jwk)
	if err != nil {
		return Key{}, fmt.Errorf("jwk: %w", err)
	}
	if alg != key.Algorithm {
		return Key{}, fmt.Errorf("alg is %.20q, its key is for %s", alg, key.Algorithm)
	}
	return key, nil
}

// parseJWK reads a public key (RFC 7517). Only the members that make the key are looked at, so that
// no certificate or hint beside them is.
func parseJWK(raw json.RawMessage) (Key, error) {
	if isNull(raw) {
		return Key{}, errors.New("it is missing")
	}
	var members object
	if err := json.Unmarshal(raw, &members); err != nil {
		return Key{}, errors.New(describe(err))
	}
	public, err := members.publicKey()
	if err != nil {
		return Key{}, err
	}
	key := Key{Public: public}
	if key.Algorithm, err = algorithmOf(public); err != nil {
		return Key{}, err
	}
	if key.ID, err = KeyID(public); err != nil {
		return Key{}, err
	}
	kid := key.ID
	if err := members.read(field{"kid", &kid}); err != nil || kid != key.ID {
		return Key{}, fmt.Errorf("its kid is not that of the key, %s", key.ID)
	}
	return key, nil
}

func (o object) publicKey() (crypto.PublicKey, error) {
	public := object{}
	for _, name := range []string{"kty", "crv", "x", "y", "n", "e"} {
		if value, ok := o[name]; ok {
			public[name] = value
		}
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"} {
		if _, ok := o[name]; ok {
			return nil, errors.New("it has a member of a secret key")
		}
	}
	raw, err := encode(public)
	if err != nil {
		return nil, err
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(raw); err != nil || !jwk.IsPublic() || !jwk.Valid() {
		return nil, errors.New("it is not a public RSA or EC key")
	}
	return jwk.Key, nil
}

// algorithmOf returns the one algorithm that a key is used with, as libtrust did.
func algorithmOf(public crypto.PublicKey) (string, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if key == nil || key.N == nil {
			return "", errors.New("an RSA key without a modulus")
		}
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return "", fmt.Errorf("an RSA key of %d bits; %d to %d are allowed", bits, minRSABits, maxRSABits)
		}
		return string(jose.RS256), nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return string(jose.ES256), nil
		case elliptic.P384():
			return string(jose.ES384), nil
		case elliptic.P521():
			return string(jose.ES512), nil
		}
	}
	return "", fmt.Errorf("a key of type %T is not used in schema 1", public)
}

// KeyID returns the id of a public key in the form of libtrust: the first 30 bytes of the SHA-256
// sum of its PKIX encoding in base32, in twelve groups of four: "ABCD:EFGH:…".
//
// Errors: berth.ErrUnsupported for what is no public key that has a PKIX encoding.
func KeyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("a key of type %T has no PKIX encoding: %w", public, berth.ErrUnsupported)
	}
	sum := sha256.Sum256(der)
	code := base32.StdEncoding.EncodeToString(sum[:30])
	groups := make([]string, 0, len(code)/4)
	for ; code != ""; code = code[4:] {
		groups = append(groups, code[:4])
	}
	return strings.Join(groups, ":"), nil
}
