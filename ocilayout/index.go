package ocilayout

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// The buckets of the index. A key is its parts joined by a zero byte, which no part may hold and
// which sorts before all that they hold: so the entries of one repository lie together, in byte
// order, and what is known of one digest lies together too, on a page or two of the file. While there is a
// log of events, there is bucketEvents too.
var (
	bucketMeta      = []byte("meta")      // word                            → value
	bucketTags      = []byte("tags")      // repository, tag                 → tagRecord
	bucketGone      = []byte("gone")      // repository, tag or digest       → goneRecord
	bucketManifests = []byte("manifests") // repository, digest              → manifestRecord
	//                                       repository, digest, "tag", tag  → nothing
	//                                       repository, digest, "in", index → nothing
	bucketBlobs = []byte("blobs") //         digest                          → blobRecord
	//                                       digest, repository              → nothing: it is a member
	bucketReferrers = []byte("referrers") // repository, subject, referrer   → descriptor
	bucketUsed      = []byte("used")      // repository, digest              → when it was last read
	bucketLost      = []byte("lost")      // digest                          → nothing: the manifest's file was damaged
	bucketForeign   = []byte("foreign")   // number                          → foreignRecord

	buckets = [][]byte{bucketMeta, bucketTags, bucketGone, bucketManifests, bucketBlobs, bucketReferrers,
		bucketUsed, bucketLost, bucketForeign}
)

// What leads to a manifest, in the keys behind its own.
const (
	byTag   = "tag"
	byIndex = "in"
)

var (
	metaFormat     = []byte("format")
	metaGeneration = []byte("generation")
	metaLayout     = []byte("layout")      // the id that index.json names
	metaProjected  = []byte("projected")   // the index.json that was written last
	metaForeign    = []byte("annotations") // foreignRecord: those of index.json that are not ours
)

// formatVersion changes when the buckets do.
const formatVersion = 3

// tagRecord is where a tag points, the generation in which it last moved, and when that was.
type tagRecord struct {
	Generation uint64        `json:"gen"`
	Descriptor v1.Descriptor `json:"desc"`
	Pushed     int64         `json:"at,omitempty"` // seconds since 1970
	Past       past          `json:"past,omitempty"`
}

// goneRecord is a tag or an untagged manifest that was removed.
type goneRecord struct {
	Generation uint64 `json:"gen"`
	At         int64  `json:"at"` // seconds since 1970
	Past       past   `json:"past,omitempty"`
}

// foreignRecord is JSON of index.json that others wrote, and the generation in which it came. It is kept
// as bytes: inside of a record it could be nested too deep to be read again.
type foreignRecord struct {
	Generation uint64 `json:"gen"`
	Raw        []byte `json:"raw"`
}

// manifestRecord is a manifest that is a member of a repository.
type manifestRecord struct {
	MediaType string `json:"type"`
	Size      int64  `json:"size"`
	// Signed is the file that was pushed, and is served, where the digest is not of that but of the
	// payload in it: a manifest of schema 1 with its signatures.
	Signed   *v1.Descriptor  `json:"signed,omitempty"`
	Subject  digest.Digest   `json:"subject,omitempty"`
	Children []digest.Digest `json:"children,omitempty"` // all that it names, its subject left out
	// Sparse: when the manifest came, not all children were there, and nobody minded.
	Sparse bool `json:"sparse,omitempty"`
	// Idle is when the manifest came, or last lost a tag: seconds since 1970.
	Idle int64 `json:"idle,omitempty"`
}

// descriptor is of the bytes that the digest names.
func (r *manifestRecord) descriptor(d digest.Digest) v1.Descriptor {
	return v1.Descriptor{MediaType: r.MediaType, Digest: d, Size: r.Size}
}

// served is the descriptor under which clients know the manifest.
func (r *manifestRecord) served(d digest.Digest) v1.Descriptor {
	if r.Signed == nil {
		return r.descriptor(d)
	}
	return v1.Descriptor{MediaType: r.Signed.MediaType, Digest: d, Size: r.Signed.Size}
}

// file is the descriptor of the file that is served.
func (r *manifestRecord) file(d digest.Digest) v1.Descriptor {
	if r.Signed == nil {
		return r.descriptor(d)
	}
	return *r.Signed
}

// blobRecord is what the index knows of a file in blobs/.
type blobRecord struct {
	Size int64 `json:"size"`
	// Unverified: the bytes came from outside, or outlived a power cut, and were not hashed since.
	Unverified bool `json:"unverified,omitempty"`
}

func key(parts ...string) []byte { return []byte(strings.Join(parts, "\x00")) }

// prefix is the key of all entries below the parts.
func prefix(parts ...string) []byte { return []byte(strings.Join(parts, "\x00") + "\x00") }

// lastPart is what stands behind the last zero byte of a key.
func lastPart(k []byte) string { return string(k[bytes.LastIndexByte(k, 0)+1:]) }

func firstPart(k []byte) string {
	first, _, _ := bytes.Cut(k, []byte{0})
	return string(first)
}

// get reads a record into v and reports whether it is there.
func get(tx *bolt.Tx, bucket, k []byte, v any) (bool, error) {
	data := tx.Bucket(bucket).Get(k)
	if data == nil {
		return false, nil
	}
	return true, decode(k, data, v)
}

// decode reads a record.
func decode(k, data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: its entry %.200q does not parse (%w)", errDamaged, k, err)
	}
	return nil
}

func has(tx *bolt.Tx, bucket, k []byte) bool { return tx.Bucket(bucket).Get(k) != nil }

func put(tx *bolt.Tx, bucket, k []byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(k, data)
}

// mark puts an entry whose key says all.
func mark(tx *bolt.Tx, bucket, k []byte) error { return tx.Bucket(bucket).Put(k, []byte{1}) }

func remove(tx *bolt.Tx, bucket, k []byte) error { return tx.Bucket(bucket).Delete(k) }

// scan visits the first entries of a span, up to limit. Keys and values are good for the visit only.
func scan(tx *bolt.Tx, s span, limit int, visit func(k, v []byte) error) error {
	c := tx.Bucket(s.bucket).Cursor()
	k, v := c.Seek([]byte(max(string(s.prefix), string(s.after))))
	for n := 0; k != nil && bytes.HasPrefix(k, s.prefix) && n < limit; k, v = c.Next() {
		if bytes.Compare(k, s.after) <= 0 {
			continue
		}
		if err := visit(k, v); err != nil {
			return err
		}
		n++
	}
	return nil
}

// anyBelow reports whether an entry begins with the prefix.
func anyBelow(tx *bolt.Tx, bucket, prefix []byte) bool {
	k, _ := tx.Bucket(bucket).Cursor().Seek(prefix)
	return bytes.HasPrefix(k, prefix)
}

func generation(tx *bolt.Tx) uint64 {
	data := tx.Bucket(bucketMeta).Get(metaGeneration)
	if len(data) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(data)
}

func setGeneration(tx *bolt.Tx, g uint64) error {
	return tx.Bucket(bucketMeta).Put(metaGeneration, binary.BigEndian.AppendUint64(nil, g))
}

// setTag points a tag at a manifest.
func setTag(tx *bolt.Tx, repo, tag string, rec tagRecord) error {
	if err := dropTag(tx, repo, tag); err != nil {
		return err
	}
	if err := put(tx, bucketTags, key(repo, tag), rec); err != nil {
		return err
	}
	if err := remove(tx, bucketGone, key(repo, tag)); err != nil {
		return err
	}
	return mark(tx, bucketManifests, key(repo, string(rec.Descriptor.Digest), byTag, tag))
}

// removeTag ends a tag and remembers when, so that an older index.json does not bring it back.
func removeTag(tx *bolt.Tx, repo, tag string, gen uint64) error {
	if err := dropTag(tx, repo, tag); err != nil {
		return err
	}
	return remember(tx, repo, tag, gen)
}

// remember leaves a trace of what was removed: a tag, or a digest.
func remember(tx *bolt.Tx, repo, what string, gen uint64) error {
	return put(tx, bucketGone, key(repo, what), goneRecord{Generation: gen, At: now()})
}

// dropTag removes a tag and its reverse entry, if it is there.
func dropTag(tx *bolt.Tx, repo, tag string) error {
	var old tagRecord
	found, err := get(tx, bucketTags, key(repo, tag), &old)
	if err != nil || !found {
		return err
	}
	d := string(old.Descriptor.Digest)
	if err := remove(tx, bucketManifests, key(repo, d, byTag, tag)); err != nil {
		return err
	}
	if err := rest(tx, repo, d); err != nil {
		return err
	}
	return remove(tx, bucketTags, key(repo, tag))
}

// isLost reports whether a manifest is one whose file was found damaged: index.json does not name it until
// it is pushed again.
func isLost(tx *bolt.Tx, d digest.Digest) bool { return has(tx, bucketLost, key(string(d))) }

// leads reports whether something that index.json names leads to a manifest: a tag, or an index that is
// not lost.
func leads(tx *bolt.Tx, repo string, d digest.Digest) (found bool) {
	scan(tx, span{bucket: bucketManifests, prefix: prefix(repo, string(d))}, math.MaxInt, func(k, _ []byte) error {
		names := parts(k)
		found = found || names[2] != byIndex || !isLost(tx, digest.Digest(names[3]))
		return nil
	})
	return found
}

// rest notes the time at which a manifest lost what led to it.
func rest(tx *bolt.Tx, repo, d string) error {
	var rec manifestRecord
	found, err := get(tx, bucketManifests, key(repo, d), &rec)
	if err != nil || !found {
		return err
	}
	rec.Idle = now()
	return put(tx, bucketManifests, key(repo, d), rec)
}

func now() int64 { return time.Now().Unix() }

// addMember makes a blob a member of a repository.
func addMember(tx *bolt.Tx, repo string, d digest.Digest) error {
	return mark(tx, bucketBlobs, key(string(d), repo))
}

// isMember reports whether a manifest of the repository may name the digest as a child.
func isMember(tx *bolt.Tx, repo string, d digest.Digest) bool {
	return has(tx, bucketBlobs, key(string(d), repo)) || has(tx, bucketManifests, key(repo, string(d)))
}

// exists reports whether a repository holds a manifest.
func exists(tx *bolt.Tx, repo string) bool { return anyBelow(tx, bucketManifests, prefix(repo)) }

// isReached reports whether a tag or an index of its repository leads to a manifest.
func isReached(tx *bolt.Tx, repo string, d digest.Digest) bool {
	return anyBelow(tx, bucketManifests, prefix(repo, string(d)))
}

// parts splits a key.
func parts(k []byte) []string { return strings.Split(string(k), "\x00") }

// blobPath is where a digest's bytes lie, below the layout.
func blobPath(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// digestOf is the inverse of blobPath.
func digestOf(name string) digest.Digest {
	return digest.NewDigestFromEncoded(digest.Algorithm(path.Base(path.Dir(name))), path.Base(name))
}

func unknownManifest(repo, ref string) error {
	return fmt.Errorf("%s: %w", repo+separator(ref)+ref, berth.ErrManifestUnknown)
}

// separator is what stands between a repository and a tag or digest.
func separator(ref string) string {
	if strings.Contains(ref, ":") {
		return "@"
	}
	return ":"
}
