package ocilayout_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
)

// annotationRepository is where an entry of index.json that has no tag names its repository.
const annotationRepository = "io.github.berthoci.repository"

// read reads index.json as it is when nothing is on its way there.
func (h *history) read(t *rapid.T) copied {
	must(t, h.layout.Flush(t.Context()))
	data, err := os.ReadFile(h.path(v1.ImageIndexFile))
	must(t, err)
	return copied{data, h.clock}
}

func (h *history) path(name string) string { return filepath.Join(h.dir, filepath.FromSlash(name)) }

func blobPath(d digest.Digest) string {
	return v1.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

// readFile is another tool that reads index.json, and will write it later.
func (h *history) readFile(t *rapid.T) {
	h.copies = append(h.copies, h.read(t))
	if len(h.copies) > 3 {
		h.copies = h.copies[1:]
	}
}

// editFile is another tool that writes what it read just now, or long ago, with changes of its own. It
// may not keep the annotations of the index, and it may come while nobody has the layout open.
func (h *history) editFile(t *rapid.T) {
	base := h.read(t)
	now := h.clock
	if len(h.copies) > 0 && rapid.Bool().Draw(t, "older") {
		base = pick(t, "copy", h.copies)
	}
	var index v1.Index
	must(t, json.Unmarshal(base.data, &index))
	before := show(index, nil)
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		h.change(t, &index)
	}
	if show(index, nil) == before {
		return // nothing to write
	}
	atRest := rarely(t, "at rest")
	anonymous := rarely(t, "without annotations")
	if anonymous {
		index.Annotations, base.clock = nil, now
	}
	h.clock++
	h.merge(t, &index, base.clock, !anonymous)
	h.write(t, &index, atRest)
	h.compare(t)
	h.compareFile(t)
}

// change adds an image, moves a tag to another manifest, removes a tag, or makes one lead nowhere.
func (h *history) change(t *rapid.T, index *v1.Index) {
	named := slices.DeleteFunc(slices.Clone(index.Manifests), func(desc v1.Descriptor) bool { return nameOf(desc) == "" })
	kind := draw(t, "change", "add", "add", "move", "remove", "break")
	name := refName(draw(t, "repository", repositories...), draw(t, "tag", tags...))
	switch {
	case kind == "break":
		set(index, name, nowhere)
	case kind == "move" && len(named) > 0:
		set(index, nameOf(pick(t, "which", named)), pick(t, "to", index.Manifests))
	case kind == "remove" && len(named) > 0:
		unset(index, nameOf(pick(t, "which", named)))
	default:
		desc := drawOutside(t)
		h.bring(t, desc)
		set(index, name, desc)
	}
}

// nowhere is an entry that nobody can understand.
var nowhere = v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digests["absent"], Size: 6}

// pick draws a place, which is easier to read than what is there.
func pick[T any](t *rapid.T, what string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, what)]
}

func nameOf(desc v1.Descriptor) string { return desc.Annotations[v1.AnnotationRefName] }

func unset(index *v1.Index, name string) {
	index.Manifests = slices.DeleteFunc(index.Manifests, func(desc v1.Descriptor) bool { return nameOf(desc) == name })
}

func set(index *v1.Index, name string, desc v1.Descriptor) {
	unset(index, name)
	desc.Annotations = map[string]string{v1.AnnotationRefName: name, "com.example.note": "kept"}
	index.Manifests = append(index.Manifests, desc)
}

// drawOutside draws an image that another tool can have.
func drawOutside(t *rapid.T) v1.Descriptor {
	good := slices.DeleteFunc(slices.Clone(manifests), func(name string) bool {
		_, err := manifest.Parse("", []byte(contents[name]))
		return err != nil
	})
	img := imageNamed(draw(t, "image", good...))
	if img.mediaType == "" {
		img.mediaType = draw(t, "type", v1.MediaTypeImageManifest, manifest.MediaTypeDockerManifest)
	}
	desc := manifest.Descriptor(img.mediaType, img.raw)
	desc.Digest = draw(t, "algorithm", algorithms...).FromBytes(img.raw)
	return desc
}

// bring writes an image into blobs/, as far as it is not there and the tool has it.
func (h *history) bring(t *rapid.T, desc v1.Descriptor) {
	content, known := byDigest[desc.Digest]
	if !known {
		return
	}
	if doc, err := manifest.Parse(desc.MediaType, []byte(content)); err == nil && manifest.KindOf(desc.MediaType) != 0 {
		for _, child := range doc.Successors() {
			h.bring(t, child)
		}
	}
	path := h.path(blobPath(desc.Digest))
	if _, err := os.Stat(path); err == nil {
		return
	}
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

// write writes index.json as tools do, in place or by another name, and lets the layout see it.
func (h *history) write(t *rapid.T, index *v1.Index, atRest bool) {
	data, err := json.MarshalIndent(index, "", "  ")
	must(t, err)
	if atRest {
		must(t, h.layout.Close())
		defer h.open(t)
	}
	if rapid.Bool().Draw(t, "in place") {
		must(t, os.WriteFile(h.path(v1.ImageIndexFile), data, 0o644))
	} else {
		must(t, os.WriteFile(h.path("index.json.new"), data, 0o644))
		must(t, os.Rename(h.path("index.json.new"), h.path(v1.ImageIndexFile)))
	}
	if !atRest {
		must(t, h.layout.Flush(t.Context()))
	}
}

// merge does to the model what an edit says that was based on the state at some time: what moved or
// was removed here since keeps its place, everything else follows the file. What is not in a file that
// says what it was based on was removed. An image that a tag comes to point to brings what of it lies in
// blobs/, also where the repository has the manifest; and an entry that leads nowhere changes nothing and stays.
func (h *history) merge(t *rapid.T, index *v1.Index, base int, removes bool) {
	listed, nowhereNow := map[string]bool{}, map[string]bool{}
	before := h.modelTags(t)
	for _, desc := range h.news(t, index) {
		if h.counts(t, entryName(desc), base, desc.Digest) {
			h.take(t, repositoryOf(desc), desc)
		}
	}
	for _, desc := range index.Manifests {
		name := nameOf(desc)
		listed[name] = true
		if desc.Digest == nowhere.Digest {
			if _, found := h.foreign[name]; !found {
				h.foreign[name] = h.clock
			}
			nowhereNow[name] = true
		} else if name != "" && h.modelTags(t)[name] != desc.Digest && h.counts(t, name, base, desc.Digest) {
			h.tag(t, name, desc.Digest)
		}
	}
	for name, came := range h.foreign {
		if removes && !nowhereNow[name] && before[name] == "" && came <= base {
			delete(h.foreign, name)
		}
	}
	for name := range h.modelTags(t) {
		if removes && !listed[name] && h.counts(t, name, base, "") {
			repo, tag := splitRefName(name)
			h.movesOutside(t, name)
			must(t, h.modelOf(t, repo).Untag(t.Context(), tag, nil))
		}
	}
}

// news returns the entries whose manifest is not a member of their repository, or whose tag points
// elsewhere.
func (h *history) news(t *rapid.T, index *v1.Index) []v1.Descriptor {
	return slices.DeleteFunc(slices.Clone(index.Manifests), func(desc v1.Descriptor) bool {
		_, held := h.holds(t, repositoryOf(desc), desc.Digest)
		name := nameOf(desc)
		return held && (name == "" || h.modelTags(t)[name] == desc.Digest) || desc.Digest == nowhere.Digest
	})
}

// repositoryOf returns the repository that an entry belongs to.
func repositoryOf(desc v1.Descriptor) string {
	if name := nameOf(desc); name != "" {
		repo, _ := splitRefName(name)
		return repo
	}
	return desc.Annotations[annotationRepository]
}

// entryName is what an entry is known by: the name of its tag, or its digest in its repository.
func entryName(desc v1.Descriptor) string {
	if name := nameOf(desc); name != "" {
		return name
	}
	return repositoryOf(desc) + "@" + string(desc.Digest)
}

// tag moves a tag of the model to a manifest that is there.
func (h *history) tag(t *rapid.T, name string, d digest.Digest) {
	repo, tag := splitRefName(name)
	h.movesOutside(t, name)
	m, _ := h.holds(t, repo, d)
	h.pushToModel(t, repo, m.Raw, &berth.PushOptions{MediaType: m.Descriptor.MediaType, Digest: d, Tags: []string{tag}, AllowMissing: true})
}

// counts decides whether the word of a program counts that knew the state at some time: nothing has moved
// the tag since, or only other programs have, and it wants it elsewhere than it knew it.
func (h *history) counts(t *rapid.T, name string, base int, to digest.Digest) bool {
	if h.moved[name] <= base {
		return true
	}
	for _, was := range slices.Backward(h.past[name]) {
		if was.clock <= base {
			return was.digest != to
		}
	}
	return false
}

// movesOutside notes that another program moves a tag.
func (h *history) movesOutside(t *rapid.T, name string) {
	was := append(h.past[name], pointed{h.moved[name], h.modelTags(t)[name]})
	h.past[name] = was[max(0, len(was)-4):]
	h.moved[name] = h.clock
}

// pointed is where a tag pointed since some time.
type pointed struct {
	clock  int
	digest digest.Digest
}

// movesHere notes that the layout was asked to move something.
func (h *history) movesHere(name string) {
	delete(h.past, name)
	h.moved[name] = h.clock
}

// take makes a manifest that came from outside a member of a repository of the model, with all below
// it that lies in blobs/.
func (h *history) take(t *rapid.T, repo string, desc v1.Descriptor) {
	raw := h.onDisk(t, desc.Digest)
	doc, err := manifest.Parse(desc.MediaType, raw)
	must(t, err)
	for _, child := range doc.Successors() {
		content := h.onDisk(t, child.Digest)
		switch {
		case content == nil:
		case manifest.KindOf(child.MediaType) != 0:
			h.take(t, repo, child)
		default:
			_, err := put(t, h.modelOf(t, repo), child.Digest, string(content))
			must(t, err)
		}
	}
	if _, held := h.holds(t, repo, desc.Digest); !held {
		h.pushToModel(t, repo, raw, &berth.PushOptions{MediaType: desc.MediaType, Digest: desc.Digest, AllowMissing: true})
	}
}

func (h *history) pushToModel(t *rapid.T, repo string, raw []byte, opts *berth.PushOptions) {
	_, err := h.modelOf(t, repo).PushManifest(t.Context(), raw, opts)
	must(t, err)
}

// onDisk returns what lies in blobs/, or nil.
func (h *history) onDisk(t *rapid.T, d digest.Digest) []byte {
	content, err := os.ReadFile(h.path(blobPath(d)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(t, err)
	return content
}

// compareFile compares index.json, when all has been written there, with the model: every tag is in it
// with its manifest, every other manifest is in it or below one that is, and so is what leads nowhere.
func (h *history) compareFile(t *rapid.T) {
	var index v1.Index
	must(t, json.Unmarshal(h.read(t).data, &index))
	tags, reached := map[string]digest.Digest{}, map[string]bool{}
	for _, desc := range index.Manifests {
		repo := repositoryOf(desc)
		if name := nameOf(desc); name != "" {
			tags[name] = desc.Digest
		}
		if desc.Digest == nowhere.Digest {
			continue
		}
		h.compareEntry(t, repo, desc)
		h.reach(t, repo, desc.Digest, reached)
	}
	want := h.modelTags(t)
	for name := range h.foreign {
		if want[name] == "" {
			want[name] = nowhere.Digest
		}
	}
	if !maps.Equal(tags, want) {
		fail(t, "index.json has the tags\n%s\nthe model\n%s", show(tags, nil), show(want, nil))
	}
	for _, repo := range repositories {
		for _, d := range inPool.manifests {
			if _, held := h.holds(t, repo, d); held && !reached[repo+" "+string(d)] {
				fail(t, "index.json does not lead to %s of %s", string(d), repo)
			}
		}
	}
}

func (h *history) compareEntry(t *rapid.T, repo string, desc v1.Descriptor) {
	m, held := h.holds(t, repo, desc.Digest)
	desc.Annotations = nil
	if got, want := show(desc, nil), show(m.Descriptor, nil); !held || got != want {
		fail(t, "index.json lists in %s\n%s\nthe model has\n%s", repo, got, want)
	}
	if string(h.onDisk(t, desc.Digest)) != string(m.Raw) {
		fail(t, "index.json lists %s, which is not in blobs/", string(desc.Digest))
	}
}

// reach marks a manifest and all below it.
func (h *history) reach(t *rapid.T, repo string, d digest.Digest, reached map[string]bool) {
	m, held := h.holds(t, repo, d)
	if !held || reached[repo+" "+string(d)] {
		return
	}
	reached[repo+" "+string(d)] = true
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	must(t, err)
	for _, child := range doc.Successors() {
		h.reach(t, repo, child.Digest, reached)
	}
}

// refName is how index.json names a tag.
func refName(repo, tag string) string {
	if repo == ocilayout.DefaultRepository {
		return tag
	}
	return repo + ":" + tag
}

func splitRefName(name string) (repo, tag string) {
	if repo, tag, ok := strings.Cut(name, ":"); ok {
		return repo, tag
	}
	return ocilayout.DefaultRepository, name
}

// modelTags returns where all tags of the model point, by their names in index.json.
func (h *history) modelTags(t *rapid.T) map[string]digest.Digest {
	all := map[string]digest.Digest{}
	for _, repo := range repositories {
		r := h.modelOf(t, repo)
		tags, _ := collect(r.Tags(t.Context(), ""))
		for _, tag := range tags {
			desc, err := r.Resolve(t.Context(), tag)
			must(t, err)
			all[refName(repo, tag)] = desc.Digest
		}
	}
	return all
}

func (h *history) modelOf(t *rapid.T, repo string) berth.Repository {
	r, err := h.model.Repository(repo)
	must(t, err)
	return r
}

// holds returns a manifest of the model, if it is there.
func (h *history) holds(t *rapid.T, repo string, d digest.Digest) (berth.Manifest, bool) {
	m, err := h.modelOf(t, repo).FetchManifest(t.Context(), string(d), nil)
	return m, err == nil
}
