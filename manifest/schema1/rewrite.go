package schema1

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// RewriteIDs makes v1 ids unique in a store where an id may already stand for other bytes. known
// tells which blob an id stands for, if it stands for one. From the first layer whose id is taken by
// another blob, that layer and all after it get ids that are derived from their content and from all
// that is below; parent and container_config.Image follow. What is below stays byte for byte.
//
// The layers are collapsed and checked as by Manifest.Chain; where nothing is rewritten, the result
// is that chain. The input is not changed.
//
// Errors: berth.ErrManifestInvalid, as Manifest.Chain.
func RewriteIDs(layers []Layer, known func(id string) (digest.Digest, bool)) ([]Layer, error) {
	linked, err := chain(layers)
	if err != nil {
		return nil, err
	}
	content := sha256.New()
	renamed := map[string]string{}
	for i, layer := range linked {
		fmt.Fprintf(content, "%s %d %s\n", layer.BlobSum, len(layer.V1JSON), layer.V1JSON)
		blob, taken := known(layer.V1.ID)
		if len(renamed) == 0 && (!taken || blob == layer.BlobSum) {
			continue
		}
		renamed[layer.V1.ID] = hex.EncodeToString(content.Sum(nil))
		if linked[i], err = layer.renamed(renamed); err != nil {
			return nil, invalid("layer %s: %v", layer.V1.ID, err)
		}
	}
	return linked, nil
}

// renamed returns the layer with new ids for old ones.
func (l Layer) renamed(ids map[string]string) (Layer, error) {
	var v1 object
	if err := json.Unmarshal(l.V1JSON, &v1); err != nil {
		return Layer{}, err
	}
	if err := v1.rename(ids, "id", "parent"); err != nil {
		return Layer{}, err
	}
	if container := v1["container_config"]; !isNull(container) {
		var inner object
		if err := json.Unmarshal(container, &inner); err != nil {
			return Layer{}, err
		}
		if err := inner.rename(ids, "Image"); err != nil {
			return Layer{}, err
		}
		if err := v1.set("container_config", inner); err != nil {
			return Layer{}, err
		}
	}
	raw, err := encode(v1)
	if err != nil {
		return Layer{}, err
	}
	return newLayer(l.BlobSum, raw)
}

// rename replaces those members that are strings and have a new name.
func (o object) rename(ids map[string]string, members ...string) error {
	for _, member := range members {
		var old string
		if err := json.Unmarshal(o[member], &old); err != nil {
			continue
		}
		if id, ok := ids[old]; ok {
			if err := o.set(member, id); err != nil {
				return err
			}
		}
	}
	return nil
}
