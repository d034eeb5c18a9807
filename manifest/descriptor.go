package manifest

import (
	"fmt"
	"net/url"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

const (
	// maxSize is the largest whole number that every reader of JSON reads exactly (RFC 7493, 2.2).
	maxSize = 1<<53 - 1
	// maxTypeLength is that of a type, a slash and a subtype (RFC 6838, 4.2).
	maxTypeLength = 127 + 1 + 127
	maxURLs       = 64
	maxURLLength  = 8 << 10
)

func (d *Document) checkDescriptors() error {
	if err := checkType(d.ArtifactType); err != nil {
		return invalid("artifactType: %v", err)
	}
	lists := []struct {
		name string
		all  []v1.Descriptor
	}{{"layer", d.Layers}, {"manifest", d.Manifests}}
	for _, list := range lists {
		for i := range list.all {
			if err := checkDescriptor(&list.all[i]); err != nil {
				return invalid("%s %d: %v", list.name, i, err)
			}
		}
	}
	if err := checkOptional(d.Config); err != nil {
		return invalid("config: %v", err)
	}
	if err := checkOptional(d.Subject); err != nil {
		return invalid("subject: %v", err)
	}
	return nil
}

func checkOptional(desc *v1.Descriptor) error {
	if desc == nil {
		return nil
	}
	return checkDescriptor(desc)
}

func checkDescriptor(desc *v1.Descriptor) error {
	if err := berth.ValidateDigest(desc.Digest); err != nil {
		return err
	}
	if err := checkType(desc.MediaType); err != nil {
		return fmt.Errorf("%s: mediaType: %w", desc.Digest, err)
	}
	if err := checkType(desc.ArtifactType); err != nil {
		return fmt.Errorf("%s: artifactType: %w", desc.Digest, err)
	}
	if err := checkContent(desc); err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	return nil
}

// checkContent checks what a descriptor says of its content but for the type.
func checkContent(desc *v1.Descriptor) error {
	switch {
	case desc.Size < 0:
		return fmt.Errorf("its size is negative")
	case desc.Size > maxSize:
		return fmt.Errorf("its size is beyond %d", int64(maxSize))
	case desc.Data != nil && Verify(*desc, desc.Data) != nil:
		return fmt.Errorf("its data is not the content that its digest and size name")
	}
	return checkURLs(desc.URLs)
}

// checkType takes an empty type, and any that is short and can be printed. Real ones are not all of
// the form that RFC 6838 gives them: some have parameters, some are made up by a user.
func checkType(mediaType string) error {
	if len(mediaType) > maxTypeLength {
		return fmt.Errorf("it has %d characters, at most %d are allowed", len(mediaType), maxTypeLength)
	}
	for i := range len(mediaType) {
		if mediaType[i] < ' ' || mediaType[i] > '~' {
			return fmt.Errorf("%.100q is not printable ASCII", mediaType)
		}
	}
	return nil
}

// checkURLs takes any scheme: there are layers at ipfs: URIs. The registry follows none of them.
func checkURLs(urls []string) error {
	if len(urls) > maxURLs {
		return fmt.Errorf("it has %d urls, at most %d are allowed", len(urls), maxURLs)
	}
	for i, s := range urls {
		if len(s) > maxURLLength {
			return fmt.Errorf("url %d has %d characters, at most %d are allowed", i, len(s), maxURLLength)
		}
		if u, err := url.Parse(s); err != nil || !u.IsAbs() {
			return fmt.Errorf("url %d is not an absolute URI", i)
		}
	}
	return nil
}
