package ocilayout

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// This is about what of index.json is not understood: it is others', and kept for them.

// takeForeign keeps an entry that is not understood, and all that it may lead to. If what it names is there, a
// tag of that name gives way to it; a broken entry hides behind the tag.
func (m *merger) takeForeign(raw json.RawMessage) error {
	var desc v1.Descriptor
	there := false
	if json.Unmarshal(raw, &desc) == nil && desc.Digest.Validate() == nil {
		info, err := m.layout.dir.Root().Lstat(blobPath(desc.Digest))
		there = err == nil && info.Mode().IsRegular() && info.Size() == desc.Size
	}
	if !there {
		m.named[string(tagKeyOf(raw))] = true
	}
	plain, err := json.Marshal(raw) // however the other program sets its JSON
	m.foreign = append(m.foreign, plain)
	if err != nil {
		return err
	}
	return m.layout.below(raw, m.below, m.hold)
}

// tagKeyOf returns the key of the tag that an entry's name stands for, or nil.
func tagKeyOf(raw json.RawMessage) []byte {
	var entry struct {
		Annotations map[string]string `json:"annotations"`
	}
	if json.Unmarshal(raw, &entry) != nil {
		return nil
	}
	repo, tag, ok := parseRefName(entry.Annotations[v1.AnnotationRefName])
	if !ok {
		return nil
	}
	return key(repo, tag)
}

func (m *merger) findHidden() error {
	return m.layout.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketForeign).ForEach(func(k, v []byte) error {
			var rec foreignRecord
			err := decode(k, v, &rec)
			if name := tagKeyOf(rec.Raw); name != nil {
				m.hidden[string(k)] = has(tx, bucketTags, name)
			}
			return err
		})
	})
}

// writeForeign adds the entries that are not understood, and drops those that the other program had
// before it, and left out.
func (m *merger) writeForeign(tx *bolt.Tx, gen uint64) error {
	listed := map[[sha256.Size]byte]json.RawMessage{}
	for _, raw := range m.foreign {
		listed[sha256.Sum256(raw)] = raw
	}
	b := tx.Bucket(bucketForeign)
	var gone [][]byte
	err := b.ForEach(func(k, v []byte) error {
		var rec foreignRecord
		if err := decode(k, v, &rec); err != nil {
			return err
		}
		sum := sha256.Sum256(rec.Raw)
		if _, found := listed[sum]; !found && m.removes && !m.hidden[string(k)] && rec.Generation <= m.base {
			gone = append(gone, bytes.Clone(k))
		}
		delete(listed, sum)
		return nil
	})
	for _, k := range gone {
		err = errors.Join(err, b.Delete(k))
	}
	for _, raw := range m.foreign {
		sum := sha256.Sum256(raw)
		if _, isNew := listed[sum]; !isNew || err != nil {
			continue
		}
		delete(listed, sum)
		err = m.addForeign(tx, foreignRecord{gen, raw})
	}
	return err
}

func (m *merger) addForeign(tx *bolt.Tx, rec foreignRecord) error {
	n, err := tx.Bucket(bucketForeign).NextSequence()
	if err != nil {
		return err
	}
	return put(tx, bucketForeign, binary.BigEndian.AppendUint64(nil, n), rec)
}

// writeAnnotations follows the annotations of the file, or adds to those that came later than what it was
// based on.
func (m *merger) writeAnnotations(tx *bolt.Tx, gen uint64) error {
	now := map[string]string{}
	came, err := foreignAnnotations(tx, &now)
	if err != nil {
		return err
	}
	next := m.others
	if !m.removes || came > m.base {
		next = maps.Clone(m.others)
		maps.Copy(next, now)
	}
	if maps.Equal(next, now) {
		return nil
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return err
	}
	return put(tx, bucketMeta, metaForeign, foreignRecord{gen, raw})
}
