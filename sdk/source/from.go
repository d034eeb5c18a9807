package source

import (
	"context"
	"fmt"
	"io"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fetcher opens what a descriptor describes. It may be called from many goroutines.
type Fetcher interface {
	// Fetch opens what desc describes. The caller closes it.
	Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error)
}

// New is the image of a root that a fetcher has, whatever that may be: a store of another library, or a program's own.
// The caller looks after the fetcher, and Close does nothing.
func New(root v1.Descriptor, from Fetcher) Source { return fetched{from, root} }

type fetched struct {
	Fetcher
	root v1.Descriptor
}

func (f fetched) Root(context.Context) (v1.Descriptor, error) { return f.root, nil }
func (f fetched) Close() error                                { return nil }

// ForPlatform is a source's image for one platform, where the source is an index of several. An image that says that it
// is for another platform is refused.
//
// Root's errors: berth.ErrManifestUnknown, with the platforms that there are.
func ForPlatform(from Source, platform v1.Platform) Source { return chosen{from, platform} }

type chosen struct {
	Source
	platform v1.Platform
}

// String is what the source is called, which may be nothing.
func (c chosen) String() string { return strings.TrimPrefix(called(c.Source), " ") }

// called is what a source is called, behind a space, or nothing.
func called(from Source) string {
	if named, ok := from.(fmt.Stringer); ok && named.String() != "" {
		return " " + named.String()
	}
	return ""
}

func (c chosen) Root(ctx context.Context) (v1.Descriptor, error) {
	root, err := c.Source.Root(ctx)
	if err != nil {
		return root, err
	}
	one, err := choosePlatform(ctx, c.Source, root, c.platform)
	if name := c.String(); name != "" && err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return one.desc, err
}
