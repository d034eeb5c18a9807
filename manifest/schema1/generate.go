package schema1

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// Generate makes a signed manifest of an image, for a client that reads nothing newer: src is an
// image of Docker's schema 2 or of OCI, at is the time of signing. The manifest names EmptyLayer for
// each entry of the config's history that is marked as empty; all other blobs are the image's own.
//
// The payload is what the reference registry makes of the same image: v1 ids are sums over the blob
// and the id below, the topmost one's also over the config, which becomes its v1 JSON. A config
// without history, which OCI allows, is taken as if each layer had an entry. Converting back gives
// the same layers and the same way to run, but not the same config: what the last entry of history
// says is lost where the config's container_config does not say it too.
//
// Errors: those of manifest.Parse for src.Manifest, and berth.ErrManifestInvalid for an index;
// berth.ErrDigestInvalid where src.Config is not what the manifest names; berth.ErrManifestInvalid
// where it is no image's config, or does not fit the layers; berth.ErrUnsupported for a layer that
// old clients cannot read (anything but tar and gzip, for one zstd), or that has urls; those of
// Build and Manifest.Sign.
func Generate(src Image, to Target, key crypto.Signer, at time.Time) (*Manifest, error) {
	doc, err := manifest.Parse(src.MediaType, src.Manifest)
	if err != nil {
		return nil, err
	}
	if err := checkSource(doc, src.Config); err != nil {
		return nil, err
	}
	var config sourceConfig
	if err := config.read(src.Config); err != nil {
		return nil, invalid("config %s: %v", doc.Config.Digest, err)
	}
	steps, err := config.steps(doc.Layers)
	if err != nil {
		return nil, invalid("config %s: %v", doc.Config.Digest, err)
	}
	layers, err := config.layers(steps)
	if err != nil {
		return nil, err
	}
	unsigned, err := Build(to, config.architecture, layers)
	if err != nil {
		return nil, err
	}
	return unsigned.Sign(key, at)
}

func checkSource(doc *manifest.Document, config []byte) error {
	switch {
	case doc.Kind != manifest.Image:
		return invalid("it is an index, an image is needed")
	case doc.Config.MediaType != dockerConfig && doc.Config.MediaType != v1.MediaTypeImageConfig:
		return fmt.Errorf("%.100q is not the config of an image that runs: %w", doc.Config.MediaType, berth.ErrUnsupported)
	}
	for i, layer := range doc.Layers {
		if err := checkReadable(layer); err != nil {
			return fmt.Errorf("layer %d (%s): %w", i, layer.Digest, err)
		}
	}
	if err := manifest.Verify(*doc.Config, config); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// checkReadable refuses what schema 1 cannot say. It has neither media types nor urls: its clients
// look at the blob's first bytes, and know tar and gzip among others, but nothing younger.
func checkReadable(layer v1.Descriptor) error {
	known := []string{dockerLayer, dockerLayerGzip, v1.MediaTypeImageLayer, v1.MediaTypeImageLayerGzip}
	switch {
	case !slices.Contains(known, layer.MediaType):
		return fmt.Errorf("schema 1 has no layers of type %.100q, only tar and gzip: %w", layer.MediaType, berth.ErrUnsupported)
	case len(layer.URLs) > 0:
		return fmt.Errorf("schema 1 has no layers with urls: %w", berth.ErrUnsupported)
	}
	return nil
}

// sourceConfig is what is read of a config blob.
type sourceConfig struct {
	raw          []byte
	architecture string
	diffIDs      []digest.Digest
	baseLayer    string
	history      []v1.History
}

func (c *sourceConfig) read(raw []byte) error {
	if len(raw) > berth.MaxManifestSize {
		return fmt.Errorf("it has %d bytes, at most %d are allowed", len(raw), berth.MaxManifestSize)
	}
	if err := manifest.CheckJSON(raw); err != nil {
		return err
	}
	c.raw = raw
	var rootfs json.RawMessage
	var entries []json.RawMessage
	err := readObject(raw, field{"architecture", &c.architecture}, field{"rootfs", &rootfs}, field{"history", &entries})
	if err != nil {
		return err
	}
	if isNull(rootfs) {
		return errors.New("it has no rootfs")
	}
	if err := readObject(rootfs, field{"diff_ids", &c.diffIDs}, field{"base_layer", &c.baseLayer}); err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	return c.readHistory(entries)
}

func (c *sourceConfig) readHistory(entries []json.RawMessage) error {
	if len(entries) > maxLayers {
		return fmt.Errorf("its history has %d entries, at most %d are allowed", len(entries), maxLayers)
	}
	c.history = make([]v1.History, len(entries))
	for i, raw := range entries {
		h := &c.history[i]
		err := readObject(raw, field{"created", &h.Created}, field{"created_by", &h.CreatedBy},
			field{"author", &h.Author}, field{"comment", &h.Comment}, field{"empty_layer", &h.EmptyLayer})
		if err != nil {
			return fmt.Errorf("history %d: %w", i, err)
		}
	}
	return nil
}

// step is one entry of history with its blob.
type step struct {
	v1.History
	blobSum digest.Digest
}

// steps joins the history with the layers.
func (c *sourceConfig) steps(layers []v1.Descriptor) ([]step, error) {
	if len(c.diffIDs) != len(layers) {
		return nil, fmt.Errorf("it has %d diff ids, the manifest has %d layers", len(c.diffIDs), len(layers))
	}
	entries := c.history
	if len(entries) == 0 {
		entries = make([]v1.History, len(layers))
	}
	steps := make([]step, len(entries))
	for i, entry := range entries {
		steps[i] = step{History: entry, blobSum: EmptyLayerDigest}
		if entry.EmptyLayer {
			continue
		}
		if len(layers) == 0 {
			return nil, errors.New("its history has more layers than the manifest")
		}
		steps[i].blobSum, layers = layers[0].Digest, layers[1:]
	}
	if len(layers) > 0 {
		return nil, fmt.Errorf("its history has %d layers less than the manifest", len(layers))
	}
	return steps, nil
}

// layers makes the v1 JSON of each step. The id of the base does not take in its parent, so the base
// of a Windows image has the id that it would have alone.
func (c *sourceConfig) layers(steps []step) ([]Layer, error) {
	layers := make([]Layer, 0, len(steps))
	below, parent := "", ""
	if c.baseLayer != "" {
		parent = baseLayerID(c.baseLayer)
	}
	for i, s := range steps {
		seed := s.blobSum.Encoded() + " " + below
		if i == len(steps)-1 {
			seed += " " + string(c.raw)
		}
		id := digest.FromString(seed).Encoded()
		v1JSON, err := c.v1JSON(s, id, parent, i == len(steps)-1)
		if err != nil {
			return nil, invalid("layer %d (%s): %s", i, s.blobSum, describe(err))
		}
		layers = append(layers, Layer{BlobSum: s.blobSum, V1JSON: v1JSON})
		below, parent = id, id
	}
	return layers, nil
}

func (c *sourceConfig) v1JSON(s step, id, parent string, top bool) ([]byte, error) {
	if top {
		return c.topJSON(s, id, parent)
	}
	image := writtenV1{
		ID: id, Parent: parent, Comment: s.Comment, Author: s.Author, ThrowAway: s.EmptyLayer,
		ContainerConfig: writtenCommand{Cmd: []string{s.CreatedBy}},
	}
	if s.Created != nil {
		image.Created = *s.Created
	}
	return json.Marshal(image)
}

// writtenV1 is the v1 JSON of a layer that is not the topmost: just enough to be listed.
type writtenV1 struct {
	ID              string         `json:"id"`
	Parent          string         `json:"parent,omitempty"`
	Comment         string         `json:"comment,omitempty"`
	Created         time.Time      `json:"created"`
	ContainerConfig writtenCommand `json:"container_config"`
	Author          string         `json:"author,omitempty"`
	ThrowAway       bool           `json:"throwaway,omitempty"`
}

type writtenCommand struct {
	Cmd []string
}

// topJSON is the config with what ties it to schema 1.
func (c *sourceConfig) topJSON(s step, id, parent string) ([]byte, error) {
	var o object
	if err := json.Unmarshal(c.raw, &o); err != nil {
		return nil, err
	}
	for _, member := range []string{"rootfs", "history", "parent", "throwaway"} {
		delete(o, member)
	}
	members := []field{{"id", id}}
	if parent != "" {
		members = append(members, field{"parent", parent})
	}
	if s.EmptyLayer {
		members = append(members, field{"throwaway", true})
	}
	for _, m := range members {
		if err := o.set(m.name, m.into); err != nil {
			return nil, err
		}
	}
	return json.Marshal(o)
}
