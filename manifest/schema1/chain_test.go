package schema1

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

func ids(layers []Layer) []string {
	var all []string
	for _, layer := range layers {
		all = append(all, layer.V1.ID)
	}
	return all
}

func TestConsecutiveRepeatsCollapse(t *testing.T) {
	whole := chainOf(t, 9)
	rapid.Check(t, func(rt *rapid.T) {
		layers := whole[:rapid.IntRange(1, len(whole)).Draw(rt, "layers")]
		var repeated []Layer
		for i, layer := range layers {
			repeated = append(repeated, layer)
			for range rapid.IntRange(0, 2).Draw(rt, fmt.Sprint("repeats of ", i)) {
				again := layer
				again.BlobSum = blobSum(100)
				repeated = append(repeated, again)
			}
		}
		got, err := chain(repeated)
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.EqualFunc(got, layers, func(a, b Layer) bool { return a.V1.ID == b.V1.ID && a.BlobSum == b.BlobSum }) {
			rt.Errorf("got %v, want %v", ids(got), ids(layers))
		}
	})
}

func TestRepeatedIDElsewhere(t *testing.T) {
	m := parse(t, manifestOf(v1JSON(v1ID(0), "", ""), v1JSON(v1ID(1), v1ID(0), ""), v1JSON(v1ID(0), v1ID(1), "")))
	_, err := m.Chain()
	wantError(t, err, berth.ErrManifestInvalid, "found twice")
}

func TestParentChainMustHold(t *testing.T) {
	for name, v1s := range map[string][]string{
		"a parent that is not there": {v1JSON(v1ID(0), "", ""), v1JSON(v1ID(1), v1ID(7), "")},
		"no parent":                  {v1JSON(v1ID(0), "", ""), v1JSON(v1ID(1), "", "")},
		"the layer below that":       {v1JSON(v1ID(0), "", ""), v1JSON(v1ID(1), v1ID(0), ""), v1JSON(v1ID(2), v1ID(0), "")},
		"itself":                     {v1JSON(v1ID(0), "", ""), v1JSON(v1ID(1), v1ID(1), "")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, manifestOf(v1s...)).Chain()
			wantError(t, err, berth.ErrManifestInvalid, "below it is")
		})
	}
}

func TestBaseParentMustBeEmpty(t *testing.T) {
	_, err := parse(t, manifestOf(v1JSON(v1ID(0), v1ID(7), ""), v1JSON(v1ID(1), v1ID(0), `,"os":"linux"`))).Chain()
	wantError(t, err, berth.ErrManifestInvalid, "not in the manifest")
}

func TestWindowsBaseMayHaveAForeignParent(t *testing.T) {
	m := parse(t, manifestOf(v1JSON(v1ID(0), v1ID(7), ""), v1JSON(v1ID(1), v1ID(0), `,"os":"windows"`)))
	if linked, err := m.Chain(); err != nil || len(linked) != 2 {
		t.Errorf("got %v, %v", ids(linked), err)
	}
}

func TestChainLeavesTheManifest(t *testing.T) {
	m := parse(t, manifestOf(v1JSON(v1ID(0), "", ""), v1JSON(v1ID(0), "", "")))
	if linked, err := m.Chain(); err != nil || len(linked) != 1 || len(m.Layers) != 2 {
		t.Errorf("got %d layers of %d, %v", len(linked), len(m.Layers), err)
	}
}

// store is what a v1 id stands for.
type store map[string]digest.Digest

func (s store) known(id string) (digest.Digest, bool) {
	d, ok := s[id]
	return d, ok
}

func TestRewriteIDs(t *testing.T) {
	layers := chainOf(t, 4)
	other := store{v1ID(0): blobSum(0), v1ID(2): blobSum(77), v1ID(3): blobSum(3)}
	got, err := RewriteIDs(layers, other.known)
	if err != nil {
		t.Fatal(err)
	}
	for i, layer := range got {
		rewritten := string(layer.V1JSON) != string(layers[i].V1JSON)
		if rewritten != (i >= 2) || layer.BlobSum != layers[i].BlobSum {
			t.Errorf("layer %d: rewritten %v, blob %s", i, rewritten, layer.BlobSum)
		}
	}
	if got[2].V1.ID == v1ID(2) || got[2].V1.Parent != v1ID(1) || got[3].V1.ID == v1ID(3) || got[3].V1.Parent != got[2].V1.ID {
		t.Errorf("got %v", ids(got))
	}
	if image := containerImage(t, got[3]); image != got[2].V1.ID {
		t.Errorf("container_config.Image is %s, the parent %s", image, got[2].V1.ID)
	}
	if image := containerImage(t, got[2]); image != v1ID(1) {
		t.Errorf("container_config.Image of an id that stays became %s", image)
	}
	if fmt.Sprint(got[3].V1.Command, got[3].V1.Created) != fmt.Sprint(layers[3].V1.Command, layers[3].V1.Created) {
		t.Errorf("the rest changed: %s", got[3].V1JSON)
	}
	if layers[3].V1.ID != v1ID(3) {
		t.Error("the input changed")
	}
}

func containerImage(t *testing.T, layer Layer) string {
	t.Helper()
	var container object
	var image string
	if err := readObject(layer.V1JSON, field{"container_config", &container}); err != nil {
		t.Fatal(err)
	}
	if err := container.read(field{"Image", &image}); err != nil {
		t.Fatal(err)
	}
	return image
}

func TestRewriteIDsWhereNothingIsTaken(t *testing.T) {
	layers := chainOf(t, 4)
	got, err := RewriteIDs(layers, store{v1ID(1): blobSum(1)}.known)
	if err != nil || !slices.Equal(ids(got), ids(layers)) {
		t.Errorf("got %v, %v", ids(got), err)
	}
	single, err := RewriteIDs(layers[:1], store{v1ID(0): blobSum(9)}.known)
	if err != nil || single[0].V1.ID == v1ID(0) || layers[0].V1.ID != v1ID(0) {
		t.Errorf("one layer: got %v, %v", ids(single), err)
	}
}

func TestRewriteIDsIsOfTheContent(t *testing.T) {
	taken := func(string) (digest.Digest, bool) { return blobSum(77), true }
	first, err := RewriteIDs(chainOf(t, 3), taken)
	if err != nil {
		t.Fatal(err)
	}
	same, _ := RewriteIDs(chainOf(t, 3), taken)
	if !slices.Equal(ids(first), ids(same)) {
		t.Error("the same layers got different ids")
	}
	changed := chainOf(t, 3)
	changed[0].BlobSum = blobSum(8)
	other, _ := RewriteIDs(changed, taken)
	for i := range other {
		if other[i].V1.ID == first[i].V1.ID {
			t.Errorf("layer %d is on another base, but has the same id", i)
		}
	}
}

func TestRewriteIDsKeepsTheChain(t *testing.T) {
	layers := chainOf(t, 8)
	rapid.Check(t, func(rt *rapid.T) {
		taken := store{}
		for i := range layers {
			if n := rapid.IntRange(-1, 8).Draw(rt, "blob"); n >= 0 {
				taken[v1ID(i)] = blobSum(n)
			}
		}
		got, err := RewriteIDs(layers, taken.known)
		if err != nil {
			rt.Fatal(err)
		}
		again, err := chain(got)
		if err != nil || len(again) != len(layers) {
			rt.Errorf("the chain broke: %v", err)
		}
		for _, layer := range got {
			if blob, ok := taken.known(layer.V1.ID); ok && blob != layer.BlobSum {
				rt.Errorf("%s still stands for other bytes", layer.V1.ID)
			}
		}
	})
}

func TestRewriteIDsRefusesABrokenChain(t *testing.T) {
	layers := chainOf(t, 3)
	_, err := RewriteIDs([]Layer{layers[0], layers[2]}, store{}.known)
	wantError(t, err, berth.ErrManifestInvalid, "below it is")
	_, err = RewriteIDs(nil, store{}.known)
	wantError(t, err, berth.ErrManifestInvalid, "no layers")
}
