package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
)

// annotationRepository names the repository of an index.json entry without a tag.
const annotationRepository = "io.github.berthoci.repository"

// directory reads the layout as any other tool does, and returns what index.json names. All of it
// must lie in blobs/.
func (v *verifier) directory() []v1.Descriptor {
	data, err := os.ReadFile(filepath.Join(v.Layout, v1.ImageIndexFile))
	if errors.Is(err, fs.ErrNotExist) && v.layout == nil {
		return nil // nobody has come that far yet
	}
	var index v1.Index
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil {
		v.note(Unreadable, "index.json: %v", err)
		return nil
	}
	seen := map[digest.Digest]bool{}
	for _, entry := range index.Manifests {
		v.files(entry, entryName(entry), seen)
	}
	return index.Manifests
}

// files makes sure that a manifest and all below it lie in blobs/.
func (v *verifier) files(desc v1.Descriptor, of string, seen map[digest.Digest]bool) {
	if seen[desc.Digest] {
		return
	}
	seen[desc.Digest] = true
	path := filepath.Join(v.Layout, v1.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
	isManifest := manifest.KindOf(desc.MediaType) != 0
	if info, err := os.Stat(path); err != nil || info.Size() != desc.Size {
		v.note(Unreadable, "index.json names %s, and of that %s is not whole in blobs/: %v", of, desc.Digest, sizeOr(info, err))
		return
	}
	if !isManifest && v.Read != nil {
		return
	}
	raw, err := hashFile(path, desc.Digest, isManifest)
	if err != nil {
		v.note(Unreadable, "index.json names %s, and of that %s is damaged in blobs/: %v", of, desc.Digest, err)
		return
	}
	if isManifest {
		v.filesBelow(desc, raw, of, seen)
	}
}

func (v *verifier) filesBelow(desc v1.Descriptor, raw []byte, of string, seen map[digest.Digest]bool) {
	doc, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		v.note(Unreadable, "index.json names %s, and of that %s does not parse: %v", of, desc.Digest, err)
		return
	}
	for _, child := range doc.Successors() {
		v.files(child, of, seen)
	}
}

func sizeOr(info fs.FileInfo, err error) any {
	if err != nil {
		return err
	}
	return info.Size()
}

// hashFile makes sure that a file hashes to a digest, and returns its content if that is wanted.
func hashFile(path string, d digest.Digest, wanted bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	verifier := d.Verifier()
	if !wanted {
		_, err = io.Copy(verifier, f)
	}
	var raw []byte
	if wanted {
		raw, err = io.ReadAll(io.TeeReader(f, verifier))
	}
	if err == nil && !verifier.Verified() {
		err = errors.New("its bytes are not those of its digest")
	}
	return raw, err
}

// entryName is how a tag or a manifest without one is called elsewhere in this program.
func entryName(entry v1.Descriptor) string {
	name := entry.Annotations[v1.AnnotationRefName]
	if name == "" {
		return entry.Annotations[annotationRepository] + "@" + string(entry.Digest)
	}
	if _, _, ok := cutTag(name); !ok {
		return ocilayout.DefaultRepository + ":" + name
	}
	return name
}

// compareNames makes sure that index.json names the tags that the store had when it was closed, and
// no manifest that it had not.
func (v *verifier) compareNames(entries []v1.Descriptor) {
	named := map[string]digest.Digest{}
	for _, entry := range entries {
		if entry.Annotations[v1.AnnotationRefName] != "" {
			named[entryName(entry)] = entry.Digest
		} else if !slices.Contains(v.Manifests, entryName(entry)) {
			v.note(Lost, "index.json names %s, which is not there by lookup", entryName(entry))
		}
	}
	if maps.Equal(named, v.Tags) {
		return
	}
	for name := range merged(named, v.Tags) {
		if named[name] != v.Tags[name] {
			v.note(Lost, "index.json names %s as %q, the store as %q", name, named[name], v.Tags[name])
		}
	}
}

func merged(a, b map[string]digest.Digest) map[string]digest.Digest {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}
