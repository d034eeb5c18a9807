package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/pin"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
)

// FormRegistry is how the name of an image in a remote registry begins, beside the forms of package source.
const FormRegistry = "docker://"

// ParseSource returns the source that a text means: one of the forms of package source, or docker://REF for an image of
// a remote registry, where a REF without a host is Docker Hub's. It does no I/O.
//
// Errors: source.ErrForm; berth.ErrNameInvalid and its like for what is no reference.
func (m *Images) ParseSource(text string) (source.Source, error) {
	ref, remote, err := RemoteReference(text)
	switch {
	case err != nil:
		return nil, err
	case remote:
		return m.Source(ref)
	}
	from, err := source.Parse(text)
	return from, orRegistry(err)
}

// ParseDestination returns the place that a text means, in the same forms. An image that goes to a remote registry gets
// the tag that its reference has, or "latest".
//
// Errors: those of ParseSource; what keeps the place from being made.
func (m *Images) ParseDestination(text string) (source.Destination, error) {
	ref, remote, err := RemoteReference(text)
	switch {
	case err != nil:
		return nil, err
	case remote:
		return m.destination(ref)
	}
	to, err := source.ParseDestination(text)
	return to, orRegistry(err)
}

// CheckForm reports what ParseSource and ParseDestination would say of a text's form. It does no I/O.
func CheckForm(text string) error {
	ref, remote, err := RemoteReference(text)
	switch {
	case err != nil:
		return err
	case remote:
		_, rest := pin.SplitHost(ref)
		_, err = berth.ParseReference(rest)
		return err
	}
	_, _, _, err = source.Split(text)
	return orRegistry(err)
}

func orRegistry(err error) error {
	if errors.Is(err, source.ErrForm) {
		return fmt.Errorf("%w or docker://REF", err)
	}
	return err
}

// RemoteReference is the reference of a text like docker://REF, with the host that Docker means where none is named: "docker://alpine"
// is docker.io/library/alpine. It reports false for a text of another form.
//
// Errors: berth.ErrNameInvalid for a host without a repository.
func RemoteReference(text string) (ref string, ok bool, err error) {
	ref, ok = strings.CutPrefix(text, FormRegistry)
	if host, _ := pin.SplitHost(ref); !ok || host != "" {
		return ref, ok, nil
	}
	host, _, _ := strings.Cut(ref, ":")
	switch {
	case strings.Contains(ref, "/"):
		return "docker.io/" + ref, true, nil
	case ref == "" || strings.Contains(host, ".") || host == "localhost":
		return "", true, fmt.Errorf("%.200q: %w: want docker://HOST/REPOSITORY[:TAG]", text, berth.ErrNameInvalid)
	}
	return "docker.io/library/" + ref, true, nil
}

// Source is an image of the layout, or of a remote registry where ref has a host, as a source for another place. What
// it reads of the layout comes from its files, where they are at hand. It does no I/O.
//
// Root's errors: berth.ErrManifestUnknown.
func (m *Images) Source(ref string) (source.Source, error) {
	found, err := m.locate(ref)
	if err != nil {
		return nil, err
	}
	from := &image{location: found, over: sync.Repository(found.repo)}
	if found.local {
		from.files = source.Layout(m.dir, "")
	}
	return from, nil
}

// image is an image of a registry as a source.
type image struct {
	location
	over  sync.Fetcher
	files source.Source // nil: they are elsewhere
}

// String is its reference.
func (i *image) String() string { return i.reference }

func (i *image) Root(ctx context.Context) (v1.Descriptor, error) {
	desc, err := i.repo.Resolve(ctx, i.target)
	return desc, i.wrap(err)
}

func (i *image) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if i.files != nil && desc.Size >= minImport {
		if content, err := i.files.Fetch(ctx, desc); err == nil {
			return content, nil
		}
	}
	return i.over.Fetch(ctx, desc)
}

func (i *image) Close() error {
	if i.files == nil {
		return nil
	}
	return i.files.Close()
}

// forPlatform is a source, or its image for a platform.
func forPlatform(from source.Source, platform *v1.Platform) source.Source {
	if platform == nil {
		return from
	}
	return source.ForPlatform(from, *platform)
}
