package sync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// Fetcher opens what a descriptor describes. The caller closes it. It may be called at once.
type Fetcher interface {
	Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error)
}

// Target is where an image goes. Its methods may be called at once.
type Target interface {
	// Has reports whether the content is there already.
	Has(ctx context.Context, desc v1.Descriptor) (bool, error)
	// PutBlob stores a blob, and says how it came. open gives its bytes from the start, each time.
	PutBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (Action, error)
	// PutManifest stores a manifest whose children are there. root is set for the last one, which
	// is what the image's names shall point to.
	PutManifest(ctx context.Context, desc v1.Descriptor, raw []byte, root bool) error
}

// Action is what was done for one blob or manifest.
type Action string

// The actions.
const (
	// Existing: it was there. A root is put all the same, which sets its names.
	Existing Action = "existing"
	// Mounted: another repository of the target has it, nothing was sent.
	Mounted = Action(berth.Mounted)
	// Sent: its bytes were sent.
	Sent Action = "sent"
	// Cloned, Copied and Linked: it came from a file of this machine, and nothing was sent.
	Cloned = Action(berth.Cloned)
	Copied = Action(berth.Copied)
	Linked = Action(berth.Linked)
)

// Event tells how a copy goes. While a blob's bytes travel, Action is empty and Bytes is how many
// have so far; a smaller number than before means that they are sent again. Zero, before the first of them, tells of a blob
// that is to travel, as far as that is known.
type Event struct {
	// Host and Repository are where it goes, where that is a registry that is synced.
	Host, Repository string
	Descriptor       v1.Descriptor
	Action           Action
	Bytes            int64
}

// CopyOptions restrict a copy. Nil is the zero value.
type CopyOptions struct {
	// Parallel is how many blobs travel at once. Zero: 4.
	Parallel int
	// Progress is called as the copy goes, from several goroutines at once. May be nil.
	Progress func(Event)
}

// Stats are what a copy did.
type Stats struct {
	// Blobs and manifests, by what was done for them.
	Existing int `json:"existing"`
	Mounted  int `json:"mounted"`
	Sent     int `json:"sent"`
	Cloned   int `json:"cloned,omitempty"`
	Copied   int `json:"copied,omitempty"`
	// Linked also where the source's files are its own, as those that source.Build makes.
	Linked int `json:"linked,omitempty"`
	// Bytes that were sent.
	Bytes int64 `json:"bytes"`
	// LocalBytes came from files of this machine.
	LocalBytes int64 `json:"localBytes,omitempty"`
}

// Unchanged reports that all was there already: nothing came or went, though names may have been set.
func (s Stats) Unchanged() bool { return s.Mounted+s.Sent+s.Cloned+s.Copied+s.Linked == 0 }

// count adds one blob or manifest, without its bytes.
func (s *Stats) count(action Action) {
	switch action {
	case Existing:
		s.Existing++
	case Mounted:
		s.Mounted++
	case Cloned:
		s.Cloned++
	case Copied:
		s.Copied++
	case Linked:
		s.Linked++
	default:
		s.Sent++
	}
}

// Add sums up two copies.
func (s Stats) Add(o Stats) Stats {
	return Stats{
		s.Existing + o.Existing, s.Mounted + o.Mounted, s.Sent + o.Sent, s.Cloned + o.Cloned, s.Copied + o.Copied, s.Linked + o.Linked,
		s.Bytes + o.Bytes, s.LocalBytes + o.LocalBytes,
	}
}

const (
	defaultParallel = 4
	// maxDepth bounds how deep indexes may be nested.
	maxDepth = 8

	octetStream = "application/octet-stream"
)

// Copy brings an image to a target: blobs first, then manifests from the leaves to the root, each
// once. A manifest is believed only if it is what its descriptor says; a blob is verified by the
// target. When Copy fails nothing names what it has brought.
//
// Errors: berth.ErrBlobUnknown and berth.ErrDigestInvalid with the descriptor's digest, where the
// source lacks something or gives something else; those of the target.
func Copy(ctx context.Context, from Fetcher, to Target, root v1.Descriptor, opts *CopyOptions) (Stats, error) {
	c := &copier{from: from, to: to, seen: map[digest.Digest]bool{}, seenBlobs: map[digest.Digest]bool{}}
	if opts != nil {
		c.opts = *opts
	}
	if c.opts.Parallel <= 0 {
		c.opts.Parallel = defaultParallel
	}
	err := berth.ValidateDigest(root.Digest)
	if err == nil {
		err = c.gather(ctx, root, 0)
	}
	if err == nil {
		err = c.copyBlobs(ctx)
	}
	if err == nil {
		err = c.copyManifests(ctx)
	}
	return c.stats, err
}

// copier is one copy on its way.
type copier struct {
	from Fetcher
	to   Target
	opts CopyOptions

	blobs     []v1.Descriptor
	manifests []berth.Manifest // children before parents, the root last
	seen      map[digest.Digest]bool
	seenBlobs map[digest.Digest]bool // apart, for the same bytes can be both

	mu    sync.Mutex // guards the fields below
	stats Stats
}

// gather reads all manifests below desc, and lists the blobs that they need.
func (c *copier) gather(ctx context.Context, desc v1.Descriptor, depth int) error {
	if c.seen[desc.Digest] {
		return nil
	}
	c.seen[desc.Digest] = true
	if depth > maxDepth {
		return fmt.Errorf("%s: %w: indexes are nested deeper than %d", desc.Digest, berth.ErrManifestInvalid, maxDepth)
	}
	raw, err := c.read(ctx, desc)
	if err != nil {
		return err
	}
	doc, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	for _, child := range doc.Required() {
		if doc.Kind == manifest.Index && manifest.KindOf(child.MediaType) != 0 {
			err = c.gather(ctx, child, depth+1)
		} else {
			c.gatherBlob(child)
		}
		if err != nil {
			return err
		}
	}
	desc.MediaType = doc.MediaType
	c.manifests = append(c.manifests, berth.Manifest{Descriptor: desc, Raw: raw})
	return nil
}

// blobType is the media type of a blob. A layer that is a manifest, which an artifact may wrap, is a blob all the
// same, and must not be looked for among the manifests.
func blobType(desc v1.Descriptor) string {
	if manifest.KindOf(desc.MediaType) != 0 {
		return octetStream
	}
	return desc.MediaType
}

// gatherBlob lists a blob.
func (c *copier) gatherBlob(child v1.Descriptor) {
	if c.seenBlobs[child.Digest] {
		return
	}
	c.seenBlobs[child.Digest] = true
	child.MediaType = blobType(child)
	c.blobs = append(c.blobs, child)
}

// read reads a manifest whole and verifies it.
func (c *copier) read(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	if desc.Size > berth.MaxManifestSize {
		return nil, fmt.Errorf("manifest %s has %d bytes: %w", desc.Digest, desc.Size, berth.ErrSizeInvalid)
	}
	content, err := c.from.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	raw, err := io.ReadAll(io.LimitReader(content, desc.Size+1))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return raw, manifest.Verify(desc, raw)
}

func (c *copier) copyBlobs(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.opts.Parallel)
	for _, desc := range c.blobs {
		group.Go(func() error {
			if err := c.copyBlob(ctx, desc); err != nil {
				return fmt.Errorf("blob %s: %w", desc.Digest, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (c *copier) copyBlob(ctx context.Context, desc v1.Descriptor) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	there, err := c.to.Has(ctx, desc)
	if err != nil {
		return err
	}
	if there {
		c.done(desc, Existing)
		return nil
	}
	c.tell(Event{Descriptor: desc})
	action, err := c.to.PutBlob(ctx, desc, func() (io.ReadCloser, error) {
		content, err := c.from.Fetch(ctx, desc)
		if err != nil {
			return nil, err
		}
		return &watched{ReadCloser: content, copier: c, desc: desc}, nil
	})
	if err == nil {
		c.done(desc, action)
	}
	return err
}

// copyManifests puts the root even where it is there: its names may not point to it.
func (c *copier) copyManifests(ctx context.Context) error {
	for i, m := range c.manifests {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.copyManifest(ctx, m, i == len(c.manifests)-1); err != nil {
			return fmt.Errorf("manifest %s: %w", m.Descriptor.Digest, err)
		}
	}
	return nil
}

// copyManifest asks for a root only where all below it was there: else it is a new one.
func (c *copier) copyManifest(ctx context.Context, m berth.Manifest, root bool) (err error) {
	action, there := Sent, false
	if !root || c.stats.Unchanged() {
		there, err = c.to.Has(ctx, m.Descriptor)
	}
	if there {
		action = Existing
	}
	if err == nil && (root || !there) {
		err = c.put(ctx, m, root)
	}
	if err == nil {
		c.done(m.Descriptor, action)
	}
	return err
}

func (c *copier) put(ctx context.Context, m berth.Manifest, root bool) error {
	if root {
		late, done := settling(ctx)
		defer done()
		ctx = late
	}
	return c.to.PutManifest(ctx, m.Descriptor, m.Raw, root)
}

// settleTime is how long a copy that is cancelled waits for what it has asked for already.
const settleTime = 5 * time.Second

// settling returns a context that ends settleTime later than ctx. The request that sets the tags is
// not cut off: whether it was obeyed would not be known then.
func settling(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(settleTime):
			cancel()
		case <-late.Done():
		}
	})
	return late, func() { stop(); cancel() }
}

func (c *copier) done(desc v1.Descriptor, action Action) {
	one := Stats{}
	one.count(action)
	switch action {
	case Existing, Mounted:
	case Cloned, Copied, Linked:
		one.LocalBytes = desc.Size
	default:
		one.Bytes = desc.Size
	}
	c.mu.Lock()
	c.stats = c.stats.Add(one)
	c.mu.Unlock()
	c.tell(Event{Descriptor: desc, Action: action, Bytes: desc.Size})
}

func (c *copier) tell(e Event) {
	if c.opts.Progress != nil {
		c.opts.Progress(e)
	}
}

// watched tells about a blob's bytes as they are read, and counts them: a target that was told how
// many come need not know what to make of others.
type watched struct {
	io.ReadCloser
	copier *copier
	desc   v1.Descriptor
	bytes  int64
}

// LocalFile is where the source has the blob: a target that takes it from there reads nothing.
func (w *watched) LocalFile() (berth.LocalFile, bool) {
	if located, ok := w.ReadCloser.(berth.Located); ok {
		return located.LocalFile()
	}
	return berth.LocalFile{}, false
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.bytes += int64(n)
	ended := errors.Is(err, io.EOF)
	if w.bytes > w.desc.Size || (ended && w.bytes < w.desc.Size) {
		return n, fmt.Errorf("%w: %d bytes came, its descriptor says %d", berth.ErrDigestInvalid, w.bytes, w.desc.Size)
	}
	if n > 0 {
		w.copier.tell(Event{Descriptor: w.desc, Bytes: w.bytes})
	}
	return n, err
}

// Repository is a repository as a source of images.
func Repository(repo berth.Repository) Fetcher { return repositorySource{repo} }

type repositorySource struct{ repo berth.Repository }

func (s repositorySource) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	if manifest.KindOf(desc.MediaType) == 0 {
		return s.repo.OpenBlob(ctx, desc.Digest)
	}
	m, err := s.repo.FetchManifest(ctx, string(desc.Digest), nil)
	if errors.Is(err, berth.ErrManifestUnknown) {
		return nil, fmt.Errorf("%w: %w", berth.ErrBlobUnknown, err)
	}
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(m.Raw)), nil
}
