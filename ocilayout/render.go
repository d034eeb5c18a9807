package ocilayout

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"maps"
	"runtime"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
	"github.com/berthoci/berth/manifest"
)

// The annotations that berth writes into index.json. Other tools keep those of the index when they
// rewrite it, which is how an outside edit tells what it was based on.
const (
	annotationPrefix     = "io.github.berthoci."
	annotationGeneration = annotationPrefix + "generation" // of the index: what the projection shows
	annotationChecksum   = annotationPrefix + "checksum"   // of the index: sha256 of its manifests, as written
	annotationLayout     = annotationPrefix + "layout"     // of the index: which layout's generation that is
	annotationRepository = annotationPrefix + "repository" // of an entry without a name
	annotationMoved      = annotationPrefix + "moved"      // of a tag: the generation in which it last moved
	annotationSigned     = annotationPrefix + "signed"     // of a schema 1 manifest: the file with its signatures

	// annotationImageName is written for containerd and its kin, and never read back.
	annotationImageName = "io.containerd.image.name"
)

// write writes the next index.json beside the one that is there, and flushes it.
func (p *publisher) write() (next projected, temp string, err error) {
	dir := p.layout.dir
	temp = outgoingName(p.last.Checksum) // which it has when it is index.json no more
	f, err := dir.Create(temp, 0o644)
	if err != nil {
		return next, "", err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			dir.Root().Remove(temp)
		}
	}()
	whole := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(dir.Writer(f, temp), whole), copyBuffer)
	err = p.layout.db.View(func(tx *bolt.Tx) error {
		next.Generation = generation(tx)
		return render(tx, buffered)
	})
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = dir.SyncFile(f, temp)
	}
	if err != nil {
		return next, "", err
	}
	info, err := f.Stat()
	if err != nil {
		return next, "", err
	}
	next.Stamp, next.Checksum = durable.StampOf(info), hex.EncodeToString(whole.Sum(nil))
	return next, temp, nil
}

// render writes the index as index.json, entry by entry: it may be large.
func render(tx *bolt.Tx, w io.Writer) error {
	if _, err := fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"manifests":`, v1.MediaTypeImageIndex); err != nil {
		return err
	}
	list := &listWriter{w: w, sum: sha256.New()}
	for _, entries := range []func(*bolt.Tx, *listWriter) error{tagEntries, unnamedEntries, foreignEntries} {
		if err := entries(tx, list); err != nil {
			return err
		}
	}
	checksum, err := list.end()
	if err != nil {
		return err
	}
	annotations := map[string]string{}
	if _, err := foreignAnnotations(tx, &annotations); err != nil {
		return err
	}
	annotations[annotationChecksum] = checksum
	annotations[annotationGeneration] = strconv.FormatUint(generation(tx), 10)
	annotations[annotationLayout] = layoutID(tx)
	data, err := json.Marshal(annotations)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `,"annotations":%s}`, data)
	return err
}

// layoutID tells this layout's index.json from another's.
func layoutID(tx *bolt.Tx) string { return string(tx.Bucket(bucketMeta).Get(metaLayout)) }

// foreignAnnotations reads the annotations of index.json that are not ours, and when they came.
func foreignAnnotations(tx *bolt.Tx, annotations *map[string]string) (gen uint64, err error) {
	var rec foreignRecord
	found, err := get(tx, bucketMeta, metaForeign, &rec)
	if err != nil || !found {
		return 0, err
	}
	return rec.Generation, json.Unmarshal(rec.Raw, annotations)
}

// yieldEvery is after how many entries of a list the processor is offered to others.
const yieldEvery = 16

// listWriter writes a JSON list and sums it up.
type listWriter struct {
	w     io.Writer
	sum   hash.Hash
	count int // of what was written
}

func (l *listWriter) add(entry any) error {
	data, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	return l.put(append(l.separator(), data...))
}

func (l *listWriter) separator() []byte {
	if l.count > 0 {
		return []byte(",")
	}
	return []byte("[")
}

// put writes an entry, and now and then lets those go first for whom somebody waits.
func (l *listWriter) put(data []byte) error {
	if l.count++; l.count%yieldEvery == 0 {
		runtime.Gosched()
	}
	l.sum.Write(data)
	_, err := l.w.Write(data)
	return err
}

// end ends the list and returns its checksum.
func (l *listWriter) end() (string, error) {
	last := []byte("]")
	if l.count == 0 {
		last = []byte("[]")
	}
	err := l.put(last)
	return hex.EncodeToString(l.sum.Sum(nil)), err
}

// tagEntries writes one entry for each tag whose manifest is there.
func tagEntries(tx *bolt.Tx, list *listWriter) error {
	anyLost := anyLost(tx)
	return tx.Bucket(bucketTags).ForEach(func(k, v []byte) error {
		var rec tagRecord
		if err := decode(k, v, &rec); err != nil {
			return err
		}
		if anyLost && isLost(tx, rec.Descriptor.Digest) {
			return nil
		}
		desc := named(rec, firstPart(k), lastPart(k))
		if rec.Descriptor.MediaType == manifest.MediaTypeSchema1 {
			if err := annotateSigned(tx, firstPart(k), desc); err != nil {
				return err
			}
		}
		return list.add(desc)
	})
}

// annotateSigned tells the file that has the signatures of a manifest.
func annotateSigned(tx *bolt.Tx, repo string, desc v1.Descriptor) error {
	var rec manifestRecord
	_, err := get(tx, bucketManifests, key(repo, string(desc.Digest)), &rec)
	if err == nil && rec.Signed != nil {
		desc.Annotations[annotationSigned] = string(rec.Signed.Digest)
	}
	return err
}

func anyLost(tx *bolt.Tx) bool {
	first, _ := tx.Bucket(bucketLost).Cursor().First()
	return first != nil
}

// named gives a tag's descriptor the annotations that say which tag it is.
func named(rec tagRecord, repo, tag string) v1.Descriptor {
	desc := rec.Descriptor
	annotations := map[string]string{annotationMoved: strconv.FormatUint(rec.Generation, 10)}
	maps.Copy(annotations, desc.Annotations)
	annotations[v1.AnnotationRefName] = refName(repo, tag)
	if full, ok := imageName(repo); ok {
		annotations[annotationImageName] = full + ":" + tag
	}
	desc.Annotations = annotations
	return desc
}

// imageName is a repository's name as Docker completes it: with the host that it takes the first part for,
// and that of Docker Hub where it takes it for none. Some repositories have no name there: those whose name
// could be an image's id, or becomes too long.
func imageName(repo string) (name string, ok bool) {
	const hub = "docker.io"
	host, rest, several := strings.Cut(repo, "/")
	switch {
	case !several, host != "localhost" && !strings.Contains(host, "."):
		host, rest = hub, repo
	case host == "index."+hub:
		host = hub
	case strings.Contains(host, "_"): // it is no host, and yet nothing goes before it
		return repo, true
	}
	if host == hub && !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	isID := digest.SHA256.Validate(repo) == nil
	return host + "/" + rest, !isID && len(rest) <= maxImageName
}

// maxImageName is how long a name behind its host may be there.
const maxImageName = 255

// refName is a tag's name in index.json; parseRefName reads it.
func refName(repo, tag string) string {
	if repo == DefaultRepository {
		return tag
	}
	return repo + ":" + tag
}

// parseRefName returns the tag that a name in index.json stands for, if it can be one of ours.
func parseRefName(name string) (repo, tag string, ok bool) {
	repo, tag = DefaultRepository, name
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		repo, tag = name[:i], name[i+1:]
	}
	return repo, tag, berth.ValidateRepository(repo) == nil && berth.ValidateTag(tag) == nil
}

// unnamedEntries writes an entry for each manifest that neither a tag nor an index leads to. What
// leads to a manifest stands right behind it.
func unnamedEntries(tx *bolt.Tx, list *listWriter) error {
	anyLost := anyLost(tx)
	c := tx.Bucket(bucketManifests).Cursor()
	k, v := c.First()
	for k != nil {
		own, record := bytes.Clone(k), bytes.Clone(v)
		k, v = c.Next()
		if bytes.Count(own, []byte{0}) != 1 {
			continue
		}
		reached := bytes.HasPrefix(k, append(bytes.Clone(own), 0))
		if d := digest.Digest(lastPart(own)); anyLost {
			reached = isLost(tx, d) || reached && leads(tx, firstPart(own), d)
		}
		if reached {
			continue
		}
		var rec manifestRecord
		if err := decode(own, record, &rec); err != nil {
			return err
		}
		if err := list.add(unnamed(own, rec)); err != nil {
			return err
		}
	}
	return nil
}

// unnamed is the index.json entry of a manifest that has no tag.
func unnamed(k []byte, rec manifestRecord) v1.Descriptor {
	desc := rec.descriptor(digest.Digest(lastPart(k)))
	desc.Annotations = map[string]string{annotationRepository: firstPart(k)}
	if rec.Signed != nil {
		desc.Annotations[annotationSigned] = string(rec.Signed.Digest)
	}
	return desc
}

// foreignEntries writes what is not understood and has no name that is one of ours.
func foreignEntries(tx *bolt.Tx, list *listWriter) error {
	return tx.Bucket(bucketForeign).ForEach(func(k, v []byte) error {
		var rec foreignRecord
		if err := decode(k, v, &rec); err != nil {
			return err
		}
		if k := tagKeyOf(rec.Raw); k != nil && has(tx, bucketTags, k) {
			return nil
		}
		return list.put(append(list.separator(), rec.Raw...))
	})
}
