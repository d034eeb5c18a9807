package source

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
)

// choosePlatform reads the manifest of an image, or, of an index, of its child for a platform.
func choosePlatform(ctx context.Context, from Source, root v1.Descriptor, platform v1.Platform) (*manifest.Document, error) {
	for range maxLinks {
		raw, err := readAll(ctx, from, root)
		if err != nil {
			return nil, err
		}
		if err := manifest.Verify(root, raw); err != nil {
			return nil, err
		}
		doc, err := manifest.Parse(root.MediaType, raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", root.Digest, err)
		}
		if doc.Kind == manifest.Image {
			return doc, nil
		}
		if root, err = manifest.Select(doc, platform); err != nil {
			return nil, fmt.Errorf("%s: %w", root.Digest, err)
		}
	}
	return nil, fmt.Errorf("%s: its indexes are nested deeper than %d", root.Digest, maxLinks)
}

// merged is a config with what another one sets. A new entry point ends the arguments of the old one.
func merged(base, over v1.ImageConfig) v1.ImageConfig {
	all := base
	set(&all.User, over.User)
	set(&all.WorkingDir, over.WorkingDir)
	set(&all.StopSignal, over.StopSignal)
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

func set(to *string, value string) {
	if value != "" {
		*to = value
	}
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
		at := slices.IndexFunc(all, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		if at < 0 {
			all = append(all, variable)
		} else {
			all[at] = variable
		}
	}
	return all
}
