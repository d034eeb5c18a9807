package sync_test

import (
	"fmt"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/sync"
)

// drawImage makes images and indexes that share what they are made of, and returns the last.
func drawImage(t *rapid.T, s store) v1.Descriptor {
	var layers, manifests []v1.Descriptor
	for i := range rapid.IntRange(1, 4).Draw(t, "layers") {
		layers = append(layers, s.layer(fmt.Sprint("layer ", i)))
	}
	for range rapid.IntRange(1, 4).Draw(t, "images") {
		manifests = append(manifests, s.image(rapid.SliceOfN(rapid.SampledFrom(layers), 0, 5).Draw(t, "of")...))
	}
	for range rapid.IntRange(0, 4).Draw(t, "indexes") {
		manifests = append(manifests, s.index(rapid.SliceOfN(rapid.SampledFrom(manifests), 0, 4).Draw(t, "of")...))
	}
	return manifests[len(manifests)-1]
}

// reach lists what a descriptor leads to, and itself, each once.
func (s store) reach(desc v1.Descriptor, into map[string]v1.Descriptor) map[string]v1.Descriptor {
	into[place(desc)] = desc
	if manifest.KindOf(desc.MediaType) == 0 {
		return into
	}
	doc, err := manifest.Parse(desc.MediaType, []byte(s[desc.Digest]))
	if err != nil {
		panic(err) // the store holds what the test made
	}
	for _, child := range doc.Required() {
		s.reach(child, into)
	}
	return into
}

// Whatever an image looks like, and whatever part of it is there: afterwards all of it is, the root
// last, and nothing was sent twice or in vain. The recorder refuses parents that come too early.
func TestCopyOfAnyImage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := store{}
		root := drawImage(t, from)
		needed := from.reach(root, map[string]v1.Descriptor{})
		to := newRecorder()
		there := 0
		for key, desc := range needed {
			if rapid.Bool().Draw(t, "there "+key) {
				to.has[key] = true
				if desc.Digest != root.Digest {
					there++
				}
			}
		}
		whole := there == len(needed)-1 && to.has[place(root)] // only then is the root asked for
		if whole {
			there++
		}
		stats, err := sync.Copy(t.Context(), from, to, root, nil)
		if err != nil || to.root != root.Digest {
			t.Fatalf("the root is %q, %v", to.root, err)
		}
		if stats.Existing != there || stats.Sent != len(needed)-there || stats.Unchanged() != whole {
			t.Errorf("%d of %d were there: %+v", there, len(needed), stats)
		}
		for key, desc := range needed {
			if !to.has[key] || to.count("blob", desc)+to.count("manifest", desc) > 1 {
				t.Errorf("%s is there: %v; calls: %q", key, to.has[key], to.calls)
			}
		}
	})
}
