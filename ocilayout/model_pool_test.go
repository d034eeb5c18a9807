package ocilayout_test

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// The pool that everything is drawn from: small, so that histories come back to the same things. What
// is drawn are names, so that a history can be read.
var (
	repositories = []string{"app", "default", "app/x", "app-x"}
	tags         = []string{"v1", "v2", "V2", "latest"}
	algorithms   = []digest.Algorithm{digest.SHA256, digest.SHA256, digest.SHA512, digest.SHA384}
	blobs        = []string{"config", "a", "b", "empty", "large"}

	mediaTypes = []string{v1.MediaTypeImageManifest, manifest.MediaTypeDockerManifest, v1.MediaTypeImageIndex + "; a=b", "text/html", ";"}

	contents = map[string]string{
		"config": `{"os":"linux"}`, "a": "layer a", "b": "layer b", "empty": "", "large": strings.Repeat("0123456789abcdef", 5000),
	}
	images = pool()
	// digests by name, and what they are digests of; absent ones have no content.
	digests   = map[string]digest.Digest{"absent": digest.FromString("absent"), "absent config": digest.FromString("absent config")}
	byDigest  = map[digest.Digest]string{}
	manifests []string // the names of images
	// inPool are the digests of the pool, by what they are digests of.
	inPool struct{ blobs, manifests, subjects []digest.Digest }

	readable *strings.Replacer
)

// image is a manifest of the pool.
type image struct {
	name, mediaType string
	raw             []byte
}

func init() {
	for _, img := range images {
		contents[img.name] = string(img.raw)
		manifests = append(manifests, img.name)
	}
	var pairs []string
	for _, algorithm := range slices.Compact(slices.Sorted(slices.Values(algorithms))) {
		inPool.blobs = append(inPool.blobs, register(algorithm, blobs)...)
		inPool.manifests = append(inPool.manifests, register(algorithm, manifests)...)
	}
	for _, img := range images {
		if doc, err := manifest.Parse("", img.raw); err == nil && doc.Subject != nil {
			inPool.subjects = append(inPool.subjects, doc.Subject.Digest)
		}
	}
	for name, d := range digests {
		pairs = append(pairs, string(d), "["+name+"]")
	}
	readable = strings.NewReplacer(pairs...)
}

// register notes the digests of contents, and returns them.
func register(algorithm digest.Algorithm, names []string) (found []digest.Digest) {
	for _, name := range names {
		d := algorithm.FromString(contents[name])
		digests[name+" "+algorithm.String()], byDigest[d] = d, contents[name]
		found = append(found, d)
	}
	return found
}

// pool makes manifests of all kinds, good and bad.
func pool() []image {
	blob := func(name, mediaType string) v1.Descriptor {
		return v1.Descriptor{MediaType: mediaType, Digest: digest.FromString(contents[name]), Size: int64(len(contents[name]))}
	}
	layer := func(name string) v1.Descriptor { return blob(name, v1.MediaTypeImageLayer) }
	absent := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString("absent"), Size: 6}
	elsewhere, wrongSize, wide := absent, layer("a"), layer("b")
	elsewhere.URLs = []string{"https://example.com/layer"}
	wrongSize.Size++
	wide.Digest = digest.SHA512.FromString(contents["b"])

	var all []image
	add := func(name string, v any) v1.Descriptor {
		raw, _ := json.Marshal(v)
		var own struct{ MediaType string }
		json.Unmarshal(raw, &own)
		all = append(all, image{name, own.MediaType, raw})
		return manifest.Descriptor(own.MediaType, raw)
	}
	of := func(mediaType string, layers ...v1.Descriptor) v1.Manifest {
		m := v1.Manifest{MediaType: mediaType, Config: blob("config", v1.MediaTypeImageConfig), Layers: layers}
		m.SchemaVersion = 2
		return m
	}
	list := func(mediaType string, children ...v1.Descriptor) v1.Index {
		i := v1.Index{MediaType: mediaType, Manifests: append([]v1.Descriptor{}, children...)}
		i.SchemaVersion = 2
		return i
	}
	oci, ociIndex := v1.MediaTypeImageManifest, v1.MediaTypeImageIndex

	one := add("image", of(oci, layer("a")))
	two := add("image 2", of(oci, layer("b"), layer("large")))
	docker := add("docker image", of(manifest.MediaTypeDockerManifest, layer("b"), layer("empty")))
	add("untyped", of("", layer("a"), layer("b")))
	add("layer elsewhere", of(oci, layer("a"), elsewhere))
	add("wrong size", of(oci, wrongSize))
	add("wide", of(oci, wide))
	lacking := of(oci, layer("a"), absent)
	lacking.Config.Digest = digest.FromString("absent config")
	sparse := add("sparse", lacking)

	index := add("index", list(ociIndex, one, two))
	add("nested", list(ociIndex, index, docker, one))
	add("docker list", list(manifest.MediaTypeDockerManifestList, docker))
	add("index of nothing", list(ociIndex))
	add("index of a blob", list(ociIndex, layer("a"), sparse, absent))

	sbom := of(oci, layer("a"))
	sbom.Subject, sbom.ArtifactType, sbom.Annotations = &one, "a/sbom", map[string]string{"made": "here"}
	signed := add("sbom", sbom)
	signature := of(oci)
	signature.Subject = &signed
	add("signature", signature)
	signature.Subject = &absent
	add("signature of nothing", signature)
	wideSubject := one
	wideSubject.Digest = digest.SHA512.FromString(string(all[0].raw))
	referrer := list(ociIndex, two)
	referrer.Subject, referrer.ArtifactType = &wideSubject, "a/list"
	add("list for a wide subject", referrer)
	referrer.Subject, referrer.Annotations = &one, map[string]string{"b": "", "a": "<&>"}
	add("list for an image", referrer)

	both := map[string]any{"schemaVersion": 2, "mediaType": oci, "config": one, "manifests": []any{}}
	add("two in one", both)
	add("schema 1", map[string]any{"schemaVersion": 1, "fsLayers": []any{}})
	return append(all, image{name: "no JSON", raw: []byte("<html>")}, image{name: "too large", raw: make([]byte, berth.MaxManifestSize+1)})
}

func imageNamed(name string) image {
	return images[slices.IndexFunc(images, func(img image) bool { return img.name == name })]
}

func draw[T any](t *rapid.T, what string, from ...T) T { return rapid.SampledFrom(from).Draw(t, what) }

func rarely(t *rapid.T, what string) bool { return rapid.IntRange(0, 9).Draw(t, what) == 9 }

// drawRepository draws a name that is, rarely, none.
func drawRepository(t *rapid.T) string {
	if rarely(t, "bad name") {
		return draw(t, "repository", "No Name", "")
	}
	return draw(t, "repository", repositories...)
}

func drawTag(t *rapid.T) string {
	if rarely(t, "bad tag") {
		return draw(t, "tag", "-v1", "")
	}
	return draw(t, "tag", tags...)
}

// drawDigest draws a digest of something with one of the names, or one of nothing, or none.
func drawDigest(t *rapid.T, of []string) digest.Digest {
	if rarely(t, "bad digest") {
		return draw(t, "digest", digests["absent"], "sha256:short", "md5:0123456789abcdef0123456789abcdef", "../../index.json", "")
	}
	return digests[draw(t, "of", of...)+" "+draw(t, "algorithm", algorithms...).String()]
}

func drawReference(t *rapid.T) string {
	if draw(t, "by", "tag", "digest") == "tag" {
		return drawTag(t)
	}
	return string(drawDigest(t, manifests))
}
