package source

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// imageConfig is the config of an image, with what its base has in it besides: programs have put more there than the
// specification knows.
type imageConfig struct {
	v1.Image
	rest map[string]json.RawMessage // of the base's; nil: there is none
}

const keyConfig = "config"

// knownKeys and knownConfigKeys are what v1.Image and v1.ImageConfig have of a config, and of what runs in it.
var (
	knownKeys       = []string{"created", "author", "architecture", "os", "os.version", "os.features", "variant", keyConfig, "rootfs", "history"}
	knownConfigKeys = []string{"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "ArgsEscaped"}
)

// MarshalJSON puts what is known in the place of what the base had of it.
func (c imageConfig) MarshalJSON() ([]byte, error) {
	own, err := json.Marshal(c.Image)
	if err != nil || c.rest == nil {
		return own, err
	}
	all, err := overlay(c.rest, knownKeys, own)
	if err != nil {
		return nil, err
	}
	var old map[string]json.RawMessage
	if raw := c.rest[keyConfig]; raw != nil {
		if err := json.Unmarshal(raw, &old); err != nil {
			return nil, err
		}
	}
	runs, err := overlay(old, knownConfigKeys, all[keyConfig])
	if err != nil {
		return nil, err
	}
	if all[keyConfig], err = json.Marshal(runs); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// overlay is an object with some of its keys as another one has them, or not at all.
func overlay(base map[string]json.RawMessage, keys []string, over []byte) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	maps.Copy(all, base)
	for _, key := range keys {
		delete(all, key)
	}
	return all, json.Unmarshal(over, &all)
}

// baseConfig is the config of a base, which is to be that of an image of as many layers.
func (c *chosenImage) baseConfig() (config imageConfig, err error) {
	if config.Image, err = c.parsed(); err != nil {
		return config, err
	}
	if !c.doc.HasImageConfig() || len(config.RootFS.DiffIDs) != len(c.doc.Layers) {
		return config, fmt.Errorf("%w: it is no image that another could be put upon: its config is of %d layers, and it has %d", berth.ErrUnsupported, len(config.RootFS.DiffIDs), len(c.doc.Layers))
	}
	config.History = completed(config.History, len(c.doc.Layers))
	return config, json.Unmarshal(c.config, &config.rest)
}

// completed is a history that tells of all layers, where it tells of some or none.
func completed(history []v1.History, layers int) []v1.History {
	for _, step := range history {
		if !step.EmptyLayer {
			layers--
		}
	}
	for range layers {
		history = append(history, v1.History{})
	}
	return history
}

// settled is a platform with what its base says of it besides.
func settled(platform, base v1.Platform) v1.Platform {
	if platform.OS != base.OS || platform.Architecture != base.Architecture {
		return platform
	}
	platform.Variant = cmp.Or(platform.Variant, base.Variant)
	platform.OSVersion = cmp.Or(platform.OSVersion, base.OSVersion)
	if platform.OSFeatures == nil {
		platform.OSFeatures = base.OSFeatures
	}
	return platform
}

// merged is a config with what another one sets. A new entry point ends the arguments of the old one.
func merged(base, over v1.ImageConfig) v1.ImageConfig {
	all := base
	all.User = cmp.Or(over.User, base.User)
	all.WorkingDir = cmp.Or(over.WorkingDir, base.WorkingDir)
	all.StopSignal = cmp.Or(over.StopSignal, base.StopSignal)
	if over.Entrypoint != nil {
		all.Entrypoint, all.Cmd = over.Entrypoint, nil
	}
	if over.Cmd != nil {
		all.Cmd = over.Cmd
	}
	all.Env = mergedEnv(base.Env, over.Env)
	all.Labels = mergedMaps(base.Labels, over.Labels)
	all.ExposedPorts = mergedMaps(base.ExposedPorts, over.ExposedPorts)
	all.Volumes = mergedMaps(base.Volumes, over.Volumes)
	return all
}

func mergedMaps[V any](base, over map[string]V) map[string]V {
	if len(base) == 0 {
		return over
	}
	all := maps.Clone(base)
	maps.Copy(all, over)
	return all
}

// mergedEnv sets variables in their places, and adds what was not set before.
func mergedEnv(base, over []string) []string {
	all := slices.Clone(base)
	for _, variable := range over {
		name, _, _ := strings.Cut(variable, "=")
		is := func(old string) bool { return strings.HasPrefix(old, name+"=") }
		at := slices.IndexFunc(all, is)
		if at < 0 {
			all = append(all, variable)
			continue
		}
		all[at] = variable
		all = append(all[:at+1], slices.DeleteFunc(all[at+1:], is)...) // one of several that are the same would count as well
	}
	return all
}
