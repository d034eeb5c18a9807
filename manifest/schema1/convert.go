package schema1

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// Docker's media types for what an image of schema 2 is made of.
const (
	dockerConfig        = "application/vnd.docker.container.image.v1+json"
	dockerLayer         = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip     = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	layersWithBase      = "layers+base"
	defaultOS           = "linux"
	defaultArchitecture = "amd64"
)

// Blob is what schema 1 does not say of a layer's blob.
type Blob struct {
	// DiffID is the digest of the blob uncompressed. If it is the blob's own digest, the blob is
	// taken to be uncompressed, else to be gzipped.
	DiffID digest.Digest
	// Size of the blob in bytes.
	Size int64
}

// ConvertOptions say what Convert makes. Nil is the zero value.
type ConvertOptions struct {
	// MediaType of the manifest: manifest.MediaTypeDockerManifest or OCI's image manifest. Zero:
	// Docker's.
	MediaType string
	// BaseLayer is the name of the Windows base layer that the base's parent stands for. It is
	// not used where the base has no parent. Zero: what the topmost v1 JSON's rootfs says.
	BaseLayer string
}

// Image is an image in a format that has a config blob.
type Image struct {
	// MediaType of Manifest.
	MediaType string
	Manifest  []byte
	Config    []byte
}

// Convert makes an image with a config blob of the manifest. blobs is asked for each layer's blob,
// base first, but not for those of throwaway layers: these have an entry in the config's history
// that is marked as empty, and no layer. The config is the topmost v1 JSON without what tied it to
// schema 1, with history, oldest first, and rootfs; for OCI also without Docker's own members. Where
// it names no os it gets linux, where it names no architecture the manifest's, else amd64.
//
// Errors: those of Manifest.Chain; berth.ErrManifestInvalid where the base has a parent that no
// BaseLayer explains; berth.ErrUnsupported for an OCI image on a Windows base layer, and for another
// media type; berth.ErrDigestInvalid and berth.ErrSizeInvalid for a Blob that is none; what blobs
// returns.
func (m *Manifest) Convert(blobs func(blobSum digest.Digest) (Blob, error), opts *ConvertOptions) (*Image, error) {
	if opts == nil {
		opts = &ConvertOptions{}
	}
	c := conversion{manifest: m, mediaType: opts.MediaType}
	if c.mediaType == "" {
		c.mediaType = manifest.MediaTypeDockerManifest
	}
	if manifest.KindOf(c.mediaType) != manifest.Image {
		return nil, fmt.Errorf("convert schema 1 to %.100q: %w", c.mediaType, berth.ErrUnsupported)
	}
	linked, err := m.Chain()
	if err != nil {
		return nil, err
	}
	if err := c.setRootFS(linked, opts.BaseLayer); err != nil {
		return nil, err
	}
	for _, layer := range linked {
		if err := c.add(layer, blobs); err != nil {
			return nil, err
		}
	}
	return c.finish(linked[len(linked)-1])
}

// conversion is an image in the making.
type conversion struct {
	manifest  *Manifest
	mediaType string
	layers    []v1.Descriptor
	rootFS    rootFS
	history   []v1.History
}

// rootFS is OCI's, and what Docker had beside it for Windows.
type rootFS struct {
	Type      string          `json:"type"`
	DiffIDs   []digest.Digest `json:"diff_ids"`
	BaseLayer string          `json:"base_layer,omitempty"`
}

func (c *conversion) isOCI() bool { return c.mediaType == v1.MediaTypeImageManifest }

// setRootFS begins the rootfs. A base that has a parent stands on a layer that is in no registry:
// its id is a sum of its name, and a config has to have that name.
func (c *conversion) setRootFS(linked []Layer, name string) error {
	c.rootFS = rootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	base, top := linked[0].V1, linked[len(linked)-1]
	if base.Parent == "" {
		return nil
	}
	if name == "" {
		name = baseLayerOf(top)
	}
	switch {
	case c.isOCI():
		return fmt.Errorf("OCI has no images on a Windows base layer, such as %s: %w", base.Parent, berth.ErrUnsupported)
	case name == "":
		return invalid("layer %s is on the Windows base layer %s, whose name is not known", base.ID, base.Parent)
	case baseLayerID(name) != base.Parent:
		return invalid("layer %s is on the Windows base layer %s, which is not %.100q", base.ID, base.Parent, name)
	}
	c.rootFS.Type, c.rootFS.BaseLayer = layersWithBase, name
	return nil
}

// baseLayerOf returns the base layer of a v1 JSON that has a rootfs, else nothing.
func baseLayerOf(layer Layer) string {
	var raw json.RawMessage
	if err := readObject(layer.V1JSON, field{"rootfs", &raw}); err != nil || isNull(raw) {
		return ""
	}
	var kind, name string
	if err := readObject(raw, field{"type", &kind}, field{"base_layer", &name}); err != nil || kind != layersWithBase {
		return ""
	}
	return name
}

func (c *conversion) add(layer Layer, blobs func(digest.Digest) (Blob, error)) error {
	c.history = append(c.history, historyOf(layer.V1))
	if layer.V1.Throwaway {
		return nil
	}
	blob, err := blobs(layer.BlobSum)
	if err != nil {
		return fmt.Errorf("layer %s: %w", layer.BlobSum, err)
	}
	if err := berth.ValidateDigest(blob.DiffID); err != nil {
		return fmt.Errorf("layer %s: diff id: %w", layer.BlobSum, err)
	}
	if blob.Size < 0 {
		return fmt.Errorf("layer %s: size %d: %w", layer.BlobSum, blob.Size, berth.ErrSizeInvalid)
	}
	c.rootFS.DiffIDs = append(c.rootFS.DiffIDs, blob.DiffID)
	c.layers = append(c.layers, v1.Descriptor{
		MediaType: c.layerType(blob.DiffID == layer.BlobSum),
		Digest:    layer.BlobSum,
		Size:      blob.Size,
	})
	return nil
}

func historyOf(image V1Image) v1.History {
	entry := v1.History{
		CreatedBy:  strings.Join(image.Command, " "),
		Author:     image.Author,
		Comment:    image.Comment,
		EmptyLayer: image.Throwaway,
	}
	if !image.Created.IsZero() {
		entry.Created = &image.Created
	}
	return entry
}

func (c *conversion) layerType(plain bool) string {
	switch {
	case c.isOCI() && plain:
		return v1.MediaTypeImageLayer
	case c.isOCI():
		return v1.MediaTypeImageLayerGzip
	case plain:
		return dockerLayer
	}
	return dockerLayerGzip
}

func (c *conversion) finish(top Layer) (*Image, error) {
	config, err := c.config(top)
	if err != nil {
		return nil, invalid("the config of layer %s: %v", top.V1.ID, err)
	}
	configType := dockerConfig
	if c.isOCI() {
		configType = v1.MediaTypeImageConfig
	}
	raw, err := encode(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: c.mediaType,
		Config:    manifest.Descriptor(configType, config),
		Layers:    append([]v1.Descriptor{}, c.layers...),
	})
	if err != nil {
		return nil, invalid("%s", describe(err))
	}
	return &Image{MediaType: c.mediaType, Manifest: raw, Config: config}, nil
}

// config makes the config of the topmost v1 JSON.
func (c *conversion) config(top Layer) ([]byte, error) {
	var o object
	if err := json.Unmarshal(top.V1JSON, &o); err != nil {
		return nil, err
	}
	for _, member := range []string{"id", "parent", "parent_id", "layer_id", "throwaway", "Size"} {
		delete(o, member)
	}
	if c.isOCI() {
		o.keepOCI()
	}
	image := top.V1
	members := []field{
		{"os", firstOf(image.OS, defaultOS)},
		{"architecture", firstOf(image.Architecture, c.manifest.Architecture, defaultArchitecture)},
		{"rootfs", c.rootFS},
		{"history", c.history},
	}
	for _, m := range members {
		if err := o.set(m.name, m.into); err != nil {
			return nil, err
		}
	}
	return encode(o)
}

// keepOCI drops what an OCI image configuration does not have.
func (o object) keepOCI() {
	known := []string{"created", "author", "architecture", "os", "os.version", "os.features", "variant", "config"}
	for name, value := range o {
		if !slices.Contains(known, name) || isNull(value) {
			delete(o, name)
		}
	}
}

func firstOf(words ...string) string {
	for _, word := range words {
		if word != "" {
			return word
		}
	}
	return ""
}
