// Package schema1 understands Docker's image manifest version 2, schema 1: the format of images
// before there were config blobs. It is pure: it is given bytes and keys, and it does no I/O.
//
// A schema 1 manifest is a JSON object: name, tag, architecture, schemaVersion 1, and two lists of
// the same length. fsLayers names the blob of each layer, history has for each layer its v1 JSON, an
// object written as a string: the layer's id, its parent's id, what made it, and, in the topmost one
// alone, the configuration to run. The file has the topmost layer first; [Manifest.Layers] has the
// base first. A layer that changed no file says throwaway, and names a blob of an empty archive
// ([EmptyLayer]).
//
// A signed manifest has one more member, signatures, of JSON Web Signatures (RFC 7515). What they
// sign is the payload: the file as it was before they were put in. Each one's protected header tells
// how to get it back: the first formatLength bytes of the file, then the bytes of formatTail. The
// header beside it, which is not signed, holds the algorithm and the public key. So a signature
// proves that one key signed exactly this; whether to trust that key is the caller's question.
// The digest of a manifest is that of its payload, not of the file.
//
//	m, err := schema1.Parse(mediaType, raw)
//	err = m.Check(schema1.Target{Ref: ref})
//	keys, err := m.Verify()
//	chain, err := m.Chain()
//
// Read [Parse] first, then [Manifest.Payload] and [Manifest.Verify], then [Manifest.Chain] for what
// holds between the layers. [Manifest.Convert] leads to the formats of today and [Generate] back;
// [Build] and [Manifest.Sign] are what Generate is made of. [Inspect] reports what an image is.
//
// # Limits
//
// A manifest has at most berth.MaxManifestSize bytes, 10 000 layers, 32 signatures, and JSON that is
// nested 64 deep. RSA keys have 2048 to 4096 bits. Algorithms are RS256, and ES256, ES384 and ES512
// with the curve that belongs to each. No JSON object may have a key twice, and a key that differs
// only in case from one that is read here is refused: other readers take it for that one.
//
// # Sources
//
// The format is the one of "Image Manifest Version 2, Schema 1" and of Docker's image specification
// v1.0; the form of signatures and key ids is that of libtrust; ids and conversion follow what the
// reference registry and Docker did, so that all derive the same ids from the same image.
package schema1
