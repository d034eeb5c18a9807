package schema1

import "github.com/opencontainers/go-digest"

// EmptyLayerDigest is the digest of EmptyLayer. A manifest that Generate makes names it for each
// layer that changed no file, so whoever serves such a manifest has to have this blob.
const EmptyLayerDigest digest.Digest = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"

// emptyLayer is 1024 zero bytes, which is a tar archive without files, compressed. Other bytes would
// do as well, but every registry and client knows these.
const emptyLayer = "\x1f\x8b\x08\x00\x00\x09\x6e\x88\x00\xff\x62\x18\x05\xa3\x60\x14\x8c\x58\x00\x08\x00\x00\xff\xff\x2e\xaf\xb5\xef\x00\x04\x00\x00"

// EmptyLayer returns the well-known gzipped archive without files, 32 bytes.
func EmptyLayer() []byte { return []byte(emptyLayer) }
