package source

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// chosenImage is one image of a source, as far as it is read to know what it is for.
type chosenImage struct {
	desc   v1.Descriptor
	doc    *manifest.Document
	config []byte
}

// choosePlatform reads the manifest of an image, or, of an index, of its child for a platform, and its config.
func choosePlatform(ctx context.Context, from Source, root v1.Descriptor, platform v1.Platform) (chosenImage, error) {
	for range maxLinks {
		raw, err := readVerified(ctx, from, root)
		if err != nil {
			return chosenImage{}, err
		}
		doc, err := manifest.Parse(root.MediaType, raw)
		if err != nil {
			return chosenImage{}, fmt.Errorf("%s: %w", root.Digest, err)
		}
		if doc.Kind == manifest.Image {
			chosen := chosenImage{desc: root, doc: doc}
			return chosen, chosen.check(ctx, from, platform)
		}
		child, err := manifest.Select(doc, platform)
		if err != nil {
			return chosenImage{}, fmt.Errorf("%s: %w", root.Digest, err)
		}
		root = clean(child)
	}
	return chosenImage{}, fmt.Errorf("%s: its indexes are nested deeper than %d", root.Digest, maxLinks)
}

// check refuses an image whose config says that it is for another platform. A config that says nothing of platforms, as
// that of an artifact, is for all.
func (c *chosenImage) check(ctx context.Context, from Source, platform v1.Platform) (err error) {
	if c.config, err = readVerified(ctx, from, *c.doc.Config); err != nil {
		return fmt.Errorf("config %s: %w", c.doc.Config.Digest, err)
	}
	config, err := c.parsed()
	if err != nil {
		return err
	}
	is := config.Platform
	if is.OS == "" || is.Architecture == "" || manifest.RunsOn(is, platform) {
		return nil
	}
	return fmt.Errorf("%w: it is for %s alone, %s is asked for", berth.ErrManifestUnknown, manifest.FormatPlatform(is), manifest.FormatPlatform(platform))
}

// parsed is the config of an image. What is no image's is empty.
func (c *chosenImage) parsed() (config v1.Image, err error) {
	if !c.doc.HasImageConfig() {
		return config, nil
	}
	if err := json.Unmarshal(c.config, &config); err != nil {
		return config, fmt.Errorf("config %s: %w", c.doc.Config.Digest, err)
	}
	return config, nil
}

// readVerified reads a manifest or a config, and makes sure that it is what its descriptor says.
func readVerified(ctx context.Context, from Source, desc v1.Descriptor) ([]byte, error) {
	if desc.Size > berth.MaxManifestSize {
		return nil, berth.ErrSizeInvalid
	}
	content, err := from.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	raw, err := io.ReadAll(io.LimitReader(content, berth.MaxManifestSize))
	if err != nil {
		return nil, err
	}
	return raw, manifest.Verify(desc, raw)
}
