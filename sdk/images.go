package sdk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/pin"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
)

// Images finds images by reference: those of a layout that is open, and those of remote registries,
// whose references begin with a host. All methods may run at the same time.
type Images struct {
	remotes *Remotes
	layout  *remote.Registry // nil: none is open
	dir     string           // where the layout lies
}

// NewImages finds images of remote registries alone, and opens no layout. It uses the options'
// Credentials, and what they say of remote registries. A reference without a host is berth.ErrUnsupported.
func NewImages(opts *Options) *Images { return &Images{remotes: NewRemotes(opts)} }

// PullOptions say how a pull goes. Nil is the zero value.
type PullOptions struct {
	// Platform brings the image for one platform, of an index that has several: see manifest.ParsePlatform. Nil: all
	// that there are.
	Platform *v1.Platform
	// Progress is told how it goes, from several goroutines at once. May be nil.
	Progress func(sync.Event)
}

// Pull brings an image to another place, and commits it there: an image of the layout, or of a
// remote registry where ref has a host. The caller closes to.
//
// Errors: berth.ErrManifestUnknown, also where there is no image for the platform; berth.ErrBlobUnknown
// where a part of the image is missing; those of the destination.
func (m *Images) Pull(ctx context.Context, ref string, to source.Destination, opts *PullOptions) (Pushed, error) {
	if opts == nil {
		opts = &PullOptions{}
	}
	from, err := m.Source(ref)
	if err != nil {
		return Pushed{}, err
	}
	defer from.Close()
	from = forPlatform(from, opts.Platform)
	desc, err := from.Root(ctx)
	if err != nil {
		return Pushed{}, err
	}
	if chooser, ok := to.(source.Chooser); ok {
		if err := chooser.Accepts(desc); err != nil {
			return Pushed{}, fmt.Errorf("pull %s: %w%s", ref, err, m.choices(ctx, ref))
		}
	}
	stats, err := sync.Copy(ctx, from, asTarget(to), desc, &sync.CopyOptions{Progress: opts.Progress})
	if err == nil {
		err = to.Commit(ctx, desc)
	}
	if err != nil {
		return Pushed{}, fmt.Errorf("pull %s: %w", ref, err)
	}
	return Pushed{Descriptor: desc, Stats: stats}, nil
}

// choices tells what platforms an index has images for, to who has to choose.
func (m *Images) choices(ctx context.Context, ref string) string {
	index, err := m.FetchReference(ctx, ref)
	if err != nil {
		return ""
	}
	doc, err := manifest.Parse(index.Descriptor.MediaType, index.Raw)
	if err != nil || doc.Kind != manifest.Index {
		return ""
	}
	return "; choose, by PullOptions.Platform or --platform, one of " + manifest.Platforms(doc)
}

// Resolve returns the descriptor of an image: in the layout, or in a remote registry where ref has a
// host. Without tag and digest the tag is "latest".
//
// Errors: berth.ErrManifestUnknown.
func (m *Images) Resolve(ctx context.Context, ref string) (v1.Descriptor, error) {
	found, err := m.locate(ref)
	if err != nil {
		return v1.Descriptor{}, err
	}
	desc, err := found.repo.Resolve(ctx, found.target)
	return desc, found.wrap(err)
}

// Tags lists the tags of a repository, in byte order: in the layout, or in a remote registry where
// the name has a host.
//
// Errors: berth.ErrNameUnknown; berth.ErrNameInvalid for a reference to one tag or digest.
func (m *Images) Tags(ctx context.Context, repository string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		found, err := m.locate(repository)
		if err == nil && !found.whole {
			err = fmt.Errorf("%q: %w: want a repository, without tag and digest", repository, berth.ErrNameInvalid)
		}
		if err != nil {
			yield("", err)
			return
		}
		for tag, err := range found.repo.Tags(ctx, "") {
			if !yield(tag, found.wrap(err)) {
				return
			}
		}
	}
}

// Pin writes what references name now into a lock file, which is made if it is not there. What could
// be resolved is written, what could not is told. Several may pin into one file at once.
//
// Errors: pin.ErrInvalid with file and line; for each reference, why it could not be resolved.
func (m *Images) Pin(ctx context.Context, lockFile string, references ...string) ([]pin.Change, error) {
	return pin.AddTo(ctx, lockFile, m, references...)
}

// VerifyPins compares a lock file with what its references name now: in the layout, or in the remote
// registry where the reference has a host. What differs is told also where an error is.
//
// Errors: fs.ErrNotExist; pin.ErrInvalid with file and line; for each reference that could not be asked
// about, why.
func (m *Images) VerifyPins(ctx context.Context, lockFile string) ([]pin.Drift, error) {
	if _, err := os.Stat(lockFile); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lock file %s: %w; berth pin add makes one", lockFile, fs.ErrNotExist)
	}
	f, err := pin.Load(lockFile)
	if err != nil {
		return nil, err
	}
	return pin.Verify(ctx, f, m)
}

// FetchReference returns the manifest that a reference names: in the layout, or in the remote
// registry where it has a host.
func (m *Images) FetchReference(ctx context.Context, reference string) (berth.Manifest, error) {
	found, err := m.locate(reference)
	if err != nil {
		return berth.Manifest{}, err
	}
	got, err := found.repo.FetchManifest(ctx, found.target, nil)
	return got, found.plain(err)
}

// location is a reference, and the repository that it leads to.
type location struct {
	reference string
	ref       berth.Reference // the reference without its host
	local     bool
	layout    string // its directory, where it is local
	repo      *remote.Repository
	target    string // tag or digest
	whole     bool   // the reference has neither tag nor digest: it may mean the repository
}

// locate decides where a reference is to be looked up. It does no I/O.
func (m *Images) locate(reference string) (location, error) {
	hostname, rest := pin.SplitHost(reference)
	ref, err := berth.ParseReference(rest)
	if err != nil {
		return location{}, err
	}
	registry := m.layout
	if hostname != "" {
		if registry, err = m.remotes.Registry(hostname); err != nil {
			return location{}, err
		}
	}
	if registry == nil {
		return location{}, fmt.Errorf("%s: %w: no layout is open, and the reference has no host", reference, berth.ErrUnsupported)
	}
	repo, err := registry.Open(ref.Repository)
	found := location{reference: reference, ref: ref, repo: repo, target: ref.WithDefaultTag().Target(), whole: ref.Target() == ""}
	if hostname == "" {
		found.local, found.layout = true, m.dir
	}
	return found, err
}

// plain tells what is missing in the layout as its user would say it.
func (l location) plain(err error) error {
	if l.local && l.whole && errors.Is(err, berth.ErrManifestUnknown) {
		return fmt.Errorf("%w in the layout %s: no tag is named, and there is no %s; berth ls shows what there is", berth.ErrManifestUnknown, l.layout, l.target)
	}
	for _, known := range []error{berth.ErrManifestUnknown, berth.ErrNameUnknown} {
		if l.local && errors.Is(err, known) {
			return fmt.Errorf("%w in the layout %s; berth ls shows what there is", known, l.layout)
		}
	}
	return err
}

// wrap is plain, with the reference in front.
func (l location) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", l.reference, l.plain(err))
}
