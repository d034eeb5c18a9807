package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// HasImageConfig reports whether the config is an image's, and not that of an artifact. Docker 1.10 and some registries of its time
// wrote other types into Docker's manifests, and Docker still takes those for images
// (distribution/distribution#1621, moby/moby#22378, moby/moby#30083).
func (d *Document) HasImageConfig() bool {
	if d.Config == nil {
		return false
	}
	switch d.Config.MediaType {
	case v1.MediaTypeImageConfig, mediaTypeDockerConfig:
		return true
	case "", "application/octet-stream", "application/json", "text/html":
		return d.MediaType == MediaTypeDockerManifest
	}
	return false
}

// imageConfig is what is read of the config of an image. configShape has the same names.
type imageConfig struct {
	Created       date           `json:"created"`
	Author        string         `json:"author"`
	Architecture  string         `json:"architecture"`
	OS            string         `json:"os"`
	OSVersion     string         `json:"os.version"`
	Variant       string         `json:"variant"`
	DockerVersion string         `json:"docker_version"`
	Config        runConfig      `json:"config"`
	History       []historyEntry `json:"history"`
}

type runConfig struct {
	User         string
	ExposedPorts map[string]json.RawMessage
	Env          []string
	Entrypoint   words
	Cmd          words
	Volumes      map[string]json.RawMessage
	WorkingDir   string
	Labels       map[string]string
	StopSignal   string
}

type historyEntry struct {
	CreatedBy  string `json:"created_by"`
	EmptyLayer bool   `json:"empty_layer"`
}

// words are a list of strings, or one string, as Docker wrote it when it was young.
type words []string

// UnmarshalJSON reads either.
func (w *words) UnmarshalJSON(raw []byte) error {
	if raw[0] != '"' {
		return json.Unmarshal(raw, (*[]string)(w))
	}
	*w = words{""}
	return json.Unmarshal(raw, &(*w)[0])
}

// date is a time, or nothing where the text is none: a report is worth more than its date.
type date struct{ at *time.Time }

// UnmarshalJSON reads RFC 3339, and does not fail.
func (d *date) UnmarshalJSON(raw []byte) error {
	var at time.Time
	if json.Unmarshal(raw, &at) == nil && string(raw) != "null" {
		d.at = &at
	}
	return nil
}

// ReadConfig fills in what the config of an image says, OCI's or Docker's, and what made each of the
// layers that the report has by then. The bytes are taken as they are; Inspect verifies them first.
//
// Errors: berth.ErrManifestInvalid; berth.ErrSizeInvalid beyond berth.MaxManifestSize.
func (r *Report) ReadConfig(raw []byte) error {
	if len(raw) > berth.MaxManifestSize {
		return fmt.Errorf("config has %d bytes, at most %d are allowed: %w", len(raw), berth.MaxManifestSize, berth.ErrSizeInvalid)
	}
	var c imageConfig
	if err := readStrictly(raw, &c, configShape); err != nil {
		return invalid("config: %v", err)
	}
	r.Created, r.Author, r.DockerVersion = c.Created.at, c.Author, c.DockerVersion
	r.Architecture, r.OS, r.OSVersion, r.Variant = c.Architecture, c.OS, c.OSVersion, c.Variant
	r.Labels, r.Env, r.User = c.Config.Labels, c.Config.Env, c.Config.User
	r.Entrypoint, r.Cmd = c.Config.Entrypoint, c.Config.Cmd
	r.WorkingDir, r.StopSignal = c.Config.WorkingDir, c.Config.StopSignal
	r.ExposedPorts = slices.Sorted(maps.Keys(c.Config.ExposedPorts))
	r.Volumes = slices.Sorted(maps.Keys(c.Config.Volumes))
	r.align(c.History)
	return nil
}

// readStrictly decodes an object that all readers read alike.
func readStrictly(raw []byte, into any, s *shape) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return errors.New(describe(err))
	}
	if string(bytes.TrimSpace(raw)) == "null" {
		return errors.New("it cannot be a JSON null")
	}
	return checkValid(raw, s)
}

// align tells each layer what made it, if history and layers fit.
func (r *Report) align(history []historyEntry) {
	var commands []string
	for _, entry := range history {
		if !entry.EmptyLayer {
			commands = append(commands, entry.CreatedBy)
		}
	}
	if len(commands) != len(r.Layers) {
		return
	}
	for i := range r.Layers {
		r.Layers[i].Command = commands[i]
	}
}
