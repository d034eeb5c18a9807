package source

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// choosePlatform reads the manifest of an image, or, of an index, of its child for a platform.
func choosePlatform(ctx context.Context, from Source, root v1.Descriptor, platform v1.Platform) (*manifest.Document, v1.Descriptor, error) {
	for range maxLinks {
		raw, err := readAll(ctx, from, root)
		if err != nil {
			return nil, root, err
		}
		if err := manifest.Verify(root, raw); err != nil {
			return nil, root, err
		}
		doc, err := manifest.Parse(root.MediaType, raw)
		if err != nil {
			return nil, root, fmt.Errorf("%s: %w", root.Digest, err)
		}
		if doc.Kind == manifest.Image {
			return doc, root, checkPlatform(ctx, from, doc, platform)
		}
		child, err := manifest.Select(doc, platform)
		if err != nil {
			return nil, root, fmt.Errorf("%s: %w", root.Digest, err)
		}
		root = clean(child)
	}
	return nil, root, fmt.Errorf("%s: its indexes are nested deeper than %d", root.Digest, maxLinks)
}

// checkPlatform refuses an image whose config says that it is for another platform. A config that says nothing of
// platforms, as that of an artifact, is for all.
func checkPlatform(ctx context.Context, from Source, doc *manifest.Document, platform v1.Platform) error {
	config, err := readConfig(ctx, from, doc)
	if err != nil {
		return err
	}
	is := config.Platform
	if is.OS == "" || is.Architecture == "" || manifest.RunsOn(is, platform) {
		return nil
	}
	return fmt.Errorf("%w: it is for %s alone, %s is asked for", berth.ErrManifestUnknown, manifest.FormatPlatform(is), manifest.FormatPlatform(platform))
}

// readConfig reads the config of an image. What is no image's is empty.
func readConfig(ctx context.Context, from Source, doc *manifest.Document) (config v1.Image, err error) {
	if doc.Config == nil {
		return config, nil
	}
	raw, err := readAll(ctx, from, *doc.Config)
	if err == nil {
		err = manifest.Verify(*doc.Config, raw)
	}
	if err == nil && isImageConfig(doc.Config.MediaType) {
		err = json.Unmarshal(raw, &config)
	}
	if err != nil {
		return config, fmt.Errorf("config %s: %w", doc.Config.Digest, err)
	}
	return config, nil
}

func isImageConfig(mediaType string) bool {
	return mediaType == v1.MediaTypeImageConfig || mediaType == "application/vnd.docker.container.image.v1+json"
}
