package schema1

import (
	"crypto/sha512"
	"encoding/hex"
)

// Chain returns the layers, base first, each the parent of the next. Repeats that follow one another
// are collapsed, and the one nearest to the base stays: old clients pushed some layers twice.
//
// The base has no parent, unless the topmost layer says that its os is windows: the base of a
// Windows image could be a layer that was part of the system and in no registry.
//
// Errors: berth.ErrManifestInvalid where a layer's parent is not the layer below, where an id is
// found again further up, or where the base has a parent.
func (m *Manifest) Chain() ([]Layer, error) { return chain(m.Layers) }

func chain(layers []Layer) ([]Layer, error) {
	if len(layers) == 0 {
		return nil, invalid("it has no layers")
	}
	base, top := layers[0].V1, layers[len(layers)-1].V1
	if base.Parent != "" && top.OS != "windows" {
		return nil, invalid("the base layer %s has the parent %s, which is not in the manifest", base.ID, base.Parent)
	}
	linked := []Layer{layers[0]}
	seen := map[string]bool{base.ID: true}
	for _, layer := range layers[1:] {
		below := linked[len(linked)-1].V1.ID
		switch {
		case layer.V1.ID == below:
			continue
		case seen[layer.V1.ID]:
			return nil, invalid("the id %s is found twice", layer.V1.ID)
		case layer.V1.Parent != below:
			return nil, invalid("layer %s has the parent %q, below it is %s", layer.V1.ID, layer.V1.Parent, below)
		}
		seen[layer.V1.ID] = true
		linked = append(linked, layer)
	}
	return linked, nil
}

// baseLayerID is the id that stands for a Windows base layer of that name.
func baseLayerID(name string) string {
	sum := sha512.Sum384([]byte(name))
	return hex.EncodeToString(sum[:32])
}
