package main

import (
	"crypto/sha256"
	_ "crypto/sha512" // some layers are named by it
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxLayer     = 200 << 10
	maxLayers    = 3
	sharedLayers = 48
	artifactType = "application/vnd.example.torture"
)

// content is a blob before it is uploaded.
type content struct {
	desc v1.Descriptor
	data []byte
}

func newContent(mediaType string, algorithm digest.Algorithm, data []byte) content {
	return content{v1.Descriptor{MediaType: mediaType, Digest: algorithm.FromBytes(data), Size: int64(len(data))}, data}
}

// newLayer makes a layer of random size, small ones being as likely as large ones.
func newLayer(random *rand.Rand) content {
	size := int(math.Exp(random.Float64() * math.Log(maxLayer)))
	data := make([]byte, size)
	fill(data, random)
	return newContent(v1.MediaTypeImageLayer, algorithm(random), data)
}

// algorithm is sha256 mostly.
func algorithm(random *rand.Rand) digest.Algorithm {
	if random.IntN(8) == 0 {
		return digest.SHA512
	}
	return digest.SHA256
}

func fill(data []byte, random *rand.Rand) {
	seed := sha256.Sum256(fmt.Append(nil, random.Uint64()))
	rand.NewChaCha8(seed).Read(data)
}

// newShared makes the layers that all writers of all rounds know.
func newShared(seed uint64) []content {
	all := make([]content, sharedLayers)
	for i := range all {
		all[i] = newLayer(rand.New(rand.NewPCG(seed, uint64(i))))
	}
	return all
}

// newConfig makes a config that no other image has, and so a manifest that no other image has.
func newConfig(name string) content {
	data, _ := json.Marshal(v1.Image{
		Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
		Config:   v1.ImageConfig{Labels: map[string]string{"org.example.name": name}},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	})
	return newContent(v1.MediaTypeImageConfig, digest.SHA256, data)
}

// newManifest makes an image's manifest; with a subject it is a referrer.
func newManifest(config content, layers []content, subject *v1.Descriptor) []byte {
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config.desc, Subject: subject}
	if subject != nil {
		m.ArtifactType = artifactType
	}
	for _, layer := range layers {
		m.Layers = append(m.Layers, layer.desc)
	}
	raw, _ := json.Marshal(m)
	return raw
}

// newIndex makes a list of images that no other list equals.
func newIndex(name string, images []v1.Descriptor) []byte {
	raw, _ := json.Marshal(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex,
		Manifests: images, Annotations: map[string]string{"org.example.name": name}})
	return raw
}
