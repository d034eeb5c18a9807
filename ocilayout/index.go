package ocilayout

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// The buckets of the index. A key is its parts joined by a zero byte, which no part may hold and
// which sorts before all that they hold: so the entries of one repository lie together, in byte order.
var (
	bucketMeta      = []byte("meta")      // word                     → value
	bucketTags      = []byte("tags")      // repository, tag          → tagRecord
	bucketTagged    = []byte("tagged")    // repository, digest, tag  → nothing
	bucketGone      = []byte("gone")      // repository, tag          → generation of the removal
	bucketManifests = []byte("manifests") // repository, digest       → manifestRecord
	bucketMembers   = []byte("members")   // repository, digest       → nothing
	bucketHolders   = []byte("holders")   // digest, repository       → nothing
	bucketBlobs     = []byte("blobs")     // digest                   → blobRecord
	bucketParents   = []byte("parents")   // repository, child, index → nothing
	bucketReferrers = []byte("referrers") // repository, subject, referrer → descriptor
	bucketForeign   = []byte("foreign")   // number                   → index.json entry we do not understand

	buckets = [][]byte{bucketMeta, bucketTags, bucketTagged, bucketGone, bucketManifests, bucketMembers,
		bucketHolders, bucketBlobs, bucketParents, bucketReferrers, bucketForeign}
)

var (
	metaFormat     = []byte("format")
	metaGeneration = []byte("generation")
)

// formatVersion changes when the buckets do.
const formatVersion = "1"

// tagRecord is where a tag points, and the generation in which it last moved.
type tagRecord struct {
	Generation uint64        `json:"gen"`
	Descriptor v1.Descriptor `json:"desc"`
}

// manifestRecord is a manifest that is a member of a repository.
type manifestRecord struct {
	MediaType string        `json:"type"`
	Size      int64         `json:"size"`
	Subject   digest.Digest `json:"subject,omitempty"`
}

// blobRecord is what the index knows of a file in blobs/.
type blobRecord struct {
	Size int64 `json:"size"`
	// Unverified: the bytes came from outside and were not hashed yet.
	Unverified bool `json:"unverified,omitempty"`
}

func (l *Layout) openIndex() error {
	db, err := bolt.Open(indexPath, 0o600, &bolt.Options{
		Timeout:        time.Second,
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true,
		OpenFile: func(name string, flag int, perm fs.FileMode) (*os.File, error) {
			return l.dir.Root().OpenFile(name, flag, perm)
		},
	})
	if err != nil {
		return fmt.Errorf("%s: %w; move it away to have it made anew from index.json", l.path(indexPath), err)
	}
	l.db = db
	return db.Update(l.prepare)
}

// prepare makes the buckets of a new index and refuses one of another format.
func (l *Layout) prepare(tx *bolt.Tx) error {
	for _, name := range buckets {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	switch format := meta.Get(metaFormat); {
	case format == nil:
		return meta.Put(metaFormat, []byte(formatVersion))
	case string(format) != formatVersion:
		return fmt.Errorf("%s has format %.10q, this berth knows %s; move it away to have it made anew from index.json", l.path(indexPath), format, formatVersion)
	}
	return nil
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

// get reads a record into v and reports whether it is there. A record that does not parse is one
// that this program did not write.
func get(tx *bolt.Tx, bucket, k []byte, v any) (bool, error) {
	data := tx.Bucket(bucket).Get(k)
	if data == nil {
		return false, nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("index entry %s/%q is damaged: %w", bucket, k, err)
	}
	return true, nil
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
	return mark(tx, bucketTagged, key(repo, string(rec.Descriptor.Digest), tag))
}

// removeTag ends a tag and remembers when, so that an older index.json does not bring it back.
func removeTag(tx *bolt.Tx, repo, tag string, gen uint64) error {
	if err := dropTag(tx, repo, tag); err != nil {
		return err
	}
	return put(tx, bucketGone, key(repo, tag), gen)
}

// dropTag removes a tag and its reverse entry, if it is there.
func dropTag(tx *bolt.Tx, repo, tag string) error {
	var old tagRecord
	found, err := get(tx, bucketTags, key(repo, tag), &old)
	if err != nil || !found {
		return err
	}
	if err := remove(tx, bucketTagged, key(repo, string(old.Descriptor.Digest), tag)); err != nil {
		return err
	}
	return remove(tx, bucketTags, key(repo, tag))
}

// addMember makes a blob a member of a repository.
func addMember(tx *bolt.Tx, repo string, d digest.Digest) error {
	if err := mark(tx, bucketMembers, key(repo, string(d))); err != nil {
		return err
	}
	return mark(tx, bucketHolders, key(string(d), repo))
}

// isMember reports whether a manifest of the repository may name the digest as a child.
func isMember(tx *bolt.Tx, repo string, d digest.Digest) bool {
	k := key(repo, string(d))
	return has(tx, bucketMembers, k) || has(tx, bucketManifests, k)
}

// exists reports whether a repository holds anything.
func exists(tx *bolt.Tx, repo string) bool {
	return anyBelow(tx, bucketManifests, prefix(repo)) || anyBelow(tx, bucketMembers, prefix(repo))
}

// blobPath is where a digest's bytes lie, below the layout.
func blobPath(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
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
