package schema1

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// Layer is one layer of a manifest: a blob, and what its history says of it.
type Layer struct {
	// BlobSum is the digest of the layer's blob, an archive that may be compressed.
	BlobSum digest.Digest
	// V1 is what V1JSON says.
	V1 V1Image
	// V1JSON is the layer's v1Compatibility, byte for byte. It must not be changed.
	V1JSON []byte
}

// V1Image is what is read of a v1 JSON, the description of an image in Docker's image specification
// v1.0. All but ID may be missing.
type V1Image struct {
	// ID is 64 hexadecimal digits.
	ID string
	// Parent is the ID of the layer below, or empty.
	Parent string
	// Created is the zero time if it is missing.
	Created time.Time
	Author  string
	Comment string
	// Command is what made the layer: container_config.Cmd.
	Command []string
	// Throwaway is set if the layer changes no file.
	Throwaway     bool
	OS            string
	Architecture  string
	DockerVersion string
	// Size in bytes of the files that the layer changes, as its maker counted them.
	Size int64
	// Config is how to run the image, as JSON; its members are named as those of an OCI image
	// configuration's config. Nil if it is missing.
	Config json.RawMessage
}

// NewLayer makes a layer for Build, from the digest of its blob and its v1 JSON.
//
// Errors: berth.ErrManifestInvalid where the digest is none, or the v1 JSON is none: its id and
// parent must be 64 hexadecimal digits, and no object may have a key twice.
func NewLayer(blobSum digest.Digest, v1JSON []byte) (Layer, error) {
	layer, err := newLayer(blobSum, []byte(string(v1JSON)))
	if err != nil {
		return Layer{}, invalid("layer %.150s: %v", blobSum, err)
	}
	return layer, nil
}

func newLayer(blobSum digest.Digest, v1JSON []byte) (Layer, error) {
	if err := berth.ValidateDigest(blobSum); err != nil {
		return Layer{}, fmt.Errorf("blobSum: %w", err)
	}
	layer := Layer{BlobSum: blobSum, V1JSON: v1JSON}
	if err := manifest.CheckJSON(v1JSON); err != nil {
		return Layer{}, fmt.Errorf("v1Compatibility: %w", err)
	}
	if err := layer.V1.read(v1JSON); err != nil {
		return Layer{}, fmt.Errorf("v1Compatibility: %w", err)
	}
	return layer, nil
}

func (v *V1Image) read(raw []byte) error {
	var container json.RawMessage
	err := readObject(raw,
		field{"id", &v.ID}, field{"parent", &v.Parent}, field{"created", &v.Created},
		field{"author", &v.Author}, field{"comment", &v.Comment}, field{"throwaway", &v.Throwaway},
		field{"os", &v.OS}, field{"architecture", &v.Architecture}, field{"docker_version", &v.DockerVersion},
		field{"config", &v.Config}, field{"container_config", &container})
	if err != nil {
		return err
	}
	if err := v.readSize(raw); err != nil {
		return err
	}
	if !isID(v.ID) {
		return fmt.Errorf("id %.70q is not 64 hexadecimal digits", v.ID)
	}
	if v.Parent != "" && !isID(v.Parent) {
		return fmt.Errorf("parent %.70q is not 64 hexadecimal digits", v.Parent)
	}
	return v.readCommand(container)
}

// readSize takes the size in any case: nothing is decided by it.
func (v *V1Image) readSize(raw []byte) error {
	var sized struct{ Size int64 }
	if err := json.Unmarshal(raw, &sized); err != nil {
		return fmt.Errorf("member Size: %s", describe(err))
	}
	v.Size = sized.Size
	return nil
}

func (v *V1Image) readCommand(container json.RawMessage) error {
	if isNull(container) {
		return nil
	}
	var cmd command
	if err := readObject(container, field{"Cmd", &cmd}); err != nil {
		return fmt.Errorf("container_config: %w", err)
	}
	v.Command = cmd
	return nil
}

// command is a list of strings, or one string, which Docker also took.
type command []string

// UnmarshalJSON reads either.
func (c *command) UnmarshalJSON(raw []byte) error {
	var list []string
	if err := json.Unmarshal(raw, &list); err == nil {
		*c = list
		return nil
	}
	var one string
	if err := json.Unmarshal(raw, &one); err != nil {
		return errors.New("it is neither a string nor a list of strings")
	}
	*c = command{one}
	return nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// isID tells a v1 id: 32 bytes in lower case hexadecimal.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
