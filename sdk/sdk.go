// Package sdk is what a build tool imports: a registry in one call, images into it, digests out of it,
// and selected tags on to remote registries.
//
//	registry, err := sdk.Open(ctx, &sdk.Options{Layout: ".cache/images"})
//	if err != nil {
//		return err
//	}
//	defer registry.Close()
//	image := source.Layout("out/image", "")
//	defer image.Close()
//	pushed, err := registry.Push(ctx, image, "app/hello:v1", nil)
//	_, err = registry.Pin(ctx, "berth.lock", "app/hello:v1")
//	report, err := registry.Sync(ctx, &sdk.SyncOptions{To: "registry.example.com/team", Patterns: []string{"app/hello:v1"}})
//
// # Where the registry runs
//
// One process serves a layout, and all who open it share that. [Open] joins it, or starts it; it ends by itself
// when nobody has the layout open any more, however they ended, and a while has passed. What is started is decided
// by [Options.Launcher]: a berth binary that is found on PATH, this program's own binary (host.Self, where main
// begins with embedded.Main), or no process at all (embedded.InProcess). Only sdk/embedded links the store; this
// package does not.
//
// Should that process crash, or be ended, another one takes its place: what was under way is repeated where it may
// be, and what was acknowledged is there.
//
// # References
//
// An image in the layout is REPOSITORY:TAG or REPOSITORY@DIGEST. A reference whose first part is a
// host, as Docker tells hosts by a dot, a colon or the name localhost, is one of a remote registry.
//
// # Concurrency
//
// All methods of Registry may run at the same time, from many goroutines.
package sdk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk/pin"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
)

// LayoutVariable is the environment variable that names the layout where nothing else does.
const LayoutVariable = "BERTH_LAYOUT"

// IdleVariable is the environment variable that says how long what serves a layout stays when nobody has it open
// any more, like "30s"; "0" is not at all.
const IdleVariable = "BERTH_IDLE_TIMEOUT"

// tokenUser is the user name that goes with a session's token. Any would do.
const tokenUser = "berth"

// maxLocalRequests is how many requests the layout's registry is sent at once: as many as anybody has to send.
const maxLocalRequests = 1 << 10

// Options say which layout is served and how. Nil is the zero value.
type Options struct {
	// Layout is the layout directory. Empty: DefaultLayout.
	Layout string
	// Launcher starts what serves it, where nobody does yet. Nil: the binary "berth" on PATH.
	Launcher host.Launcher
	// Private wants the layout for this registry alone. What serves it ends with Close, or with this process,
	// however it ends.
	Private bool
	// IdleTimeout is how long what serves the layout stays when nobody has it open any more, at least. Zero:
	// $BERTH_IDLE_TIMEOUT, else ten seconds. Negative: it ends immediately.
	IdleTimeout time.Duration
	// Socket opens a Unix socket beside the address, where only this user gets in: see [Endpoint].
	Socket bool
	// Anonymous lets any program on this machine use the endpoint. Otherwise it needs the token.
	Anonymous bool
	// AllowMissing takes images and indexes whose children are missing.
	AllowMissing bool
	// Durability is what an answer promises. "process", which empty means too: what was pushed outlives
	// the process, however that ends, and a second later a power cut as well. "power": each answer
	// waits for the disk.
	Durability string
	// Credentials for remote registries. Nil: what Docker and podman have stored (auth.Docker).
	Credentials auth.CredentialFunc
	// PlainHTTP speaks http to these remote hosts (HOST:PORT), beside those of the loopback interface.
	PlainHTTP []string
	// UserAgent names the tool and its version to remote registries. Empty: "berth".
	UserAgent string
	// CertDirs are directories of CAs and client certificates of remote registries, as Docker's certs.d. None: where Docker
	// and podman have theirs.
	CertDirs []string
	// AnonymousRetry reads without the stored credential where a remote registry turns that down, so that a stale one does not
	// get in the way of what is public.
	AnonymousRetry bool
	// Requests and RequestsPerSecond bound what a remote registry is asked, and Patience how long it is asked again: see
	// remote.Options.
	Requests          int
	RequestsPerSecond float64
	Patience          time.Duration
	// Logger is told what the process that serves the layout logs. Nil: nobody.
	Logger *slog.Logger
}

// Registry is a layout that is being served. It implements [berth.Registry], for the layout alone;
// what it has of [Images] also takes references to remote registries.
type Registry struct {
	*remote.Registry
	*Images
	session *host.Session
	config  dockerConfig
}

// Open serves a layout, which is made if it is not there. When it returns, the registry answers.
//
// Errors: berth.ErrLayoutInUse, naming who has it and does not share it; berth.ErrLayoutInvalid if the directory
// holds something else; berth.ErrDenied if it is another user's; plugin.ErrIncompatible if what serves it already
// is too old or too new.
func Open(ctx context.Context, opts *Options) (*Registry, error) {
	if opts == nil {
		opts = &Options{}
	}
	hosting, err := opts.hosting()
	if err != nil {
		return nil, err
	}
	session, err := host.Open(ctx, hosting)
	if err != nil {
		return nil, err
	}
	registry, err := remote.New(session.Endpoint().Address, &remote.Options{
		Name:      "the layout's registry",
		Transport: newTransport(session, hosting.Listen.Token),
		Requests:  maxLocalRequests,
		Patience:  -1, // the transport knows better what may be repeated
	})
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return &Registry{Registry: registry, Images: &Images{NewRemotes(opts), registry, session.Current().Info().Layout}, session: session}, nil
}

// hosting are the options for package host.
func (o *Options) hosting() (h host.Options, err error) {
	h = host.Options{Launcher: o.Launcher, Private: o.Private, IdleTimeout: o.IdleTimeout, Durability: o.Durability, Logger: o.Logger}
	if h.Layout, err = layoutOr(o.Layout); err != nil {
		return h, err
	}
	if h.Launcher == nil {
		h.Launcher = host.Binary("berth")
	}
	if h.IdleTimeout == 0 {
		if h.IdleTimeout, err = DefaultIdleTimeout(); err != nil {
			return h, err
		}
	}
	h.Listen.AllowMissing = o.AllowMissing
	if !o.Anonymous {
		h.Listen.Token = rand.Text()
	}
	if o.Socket {
		h.Listen.Socket = rand.Text()
	}
	return h, nil
}

// DefaultIdleTimeout is the idle timeout that is meant where none is named, as host.Options has it:
// $BERTH_IDLE_TIMEOUT, else zero.
func DefaultIdleTimeout() (time.Duration, error) {
	value := os.Getenv(IdleVariable)
	if value == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	switch {
	case err != nil || d < 0:
		return 0, fmt.Errorf("environment variable %s: %q is no duration, like 30s or 5m", IdleVariable, value)
	case d == 0:
		return -1, nil
	}
	return d, nil
}

func layoutOr(layout string) (string, error) {
	if layout != "" {
		return layout, nil
	}
	return DefaultLayout()
}

// DefaultLayout is the layout that is meant where none is named: $BERTH_LAYOUT, else "berth/layout"
// in the user's data directory.
func DefaultLayout() (string, error) {
	if layout := os.Getenv(LayoutVariable); layout != "" {
		return layout, nil
	}
	dir, err := dataDir()
	if err != nil {
		return "", fmt.Errorf("no layout is named, and there is no data directory: %w; set %s", err, LayoutVariable)
	}
	return filepath.Join(dir, "berth", "layout"), nil
}

// dataDir is where a user's programs keep their data: on Linux by the XDG base directory
// specification.
func dataDir() (string, error) {
	switch runtime.GOOS {
	case "windows", "darwin":
		return os.UserConfigDir()
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "share"), err
}

// Flush brings the layout's index.json up to date with all that was pushed before, for programs that
// read the directory. It happens by itself, a moment after each change.
func (r *Registry) Flush(ctx context.Context) error { return r.session.Flush(ctx) }

// GC removes what no manifest leads to, and what the options' rules say: see [berth.Collector].
func (r *Registry) GC(ctx context.Context, opts *berth.GCOptions) (berth.GCReport, error) {
	return r.session.GC(ctx, opts)
}

// Fsck checks all that the layout holds: see [berth.Checker].
func (r *Registry) Fsck(ctx context.Context, opts *berth.FsckOptions) (berth.FsckReport, error) {
	return r.session.Fsck(ctx, opts)
}

// Checkout keeps the directory still until its function is called, for a program that changes it: see
// [berth.Checkouter].
func (r *Registry) Checkout(ctx context.Context) (done func(context.Context) error, err error) {
	return r.session.Checkout(ctx)
}

// Status tells how what serves the layout is, and who has it open.
func (r *Registry) Status(ctx context.Context) (plugin.Status, error) { return r.session.Status(ctx) }

// Watch yields what happens to the layout, whoever does it, as [berth.Watcher] says. It goes on where the process
// that serves the layout is replaced, and misses nothing: the sequence ends with an error, or with its consumer.
func (r *Registry) Watch(ctx context.Context, opts *berth.WatchOptions) iter.Seq2[berth.Event, error] {
	return r.session.Watch(ctx, opts)
}

// Close ends the registry. When it returns, the layout holds all that was pushed, index.json
// included, and nothing answers at the endpoint. What served it has ended if it was private, and ends by itself
// otherwise.
func (r *Registry) Close() error {
	r.remotes.closeIdle()
	r.CloseIdleConnections() // the server's end waits for connections that have asked nothing yet
	return errors.Join(r.session.Close(), r.config.remove())
}

// PushOptions say how a push goes. Nil is the zero value.
type PushOptions struct {
	// Platform brings the image for one platform, of an index that has several. Nil: all that there are.
	Platform *v1.Platform
	// Progress is told how it goes, from several goroutines at once. May be nil.
	Progress func(sync.Event)
	// Link lets the layout keep the source's own files, by hard links, where both are on one file system. Who asks
	// for that gives their word that nobody will ever change these files.
	Link bool
}

// Pushed is what a push or a pull has brought.
type Pushed struct {
	Descriptor v1.Descriptor `json:"descriptor"`
	// Tags that point to it now.
	Tags []string `json:"tags,omitempty"`
	// Stats tell what moved; of an image that was there, Unchanged is true.
	Stats sync.Stats `json:"stats"`
}

// minParallel is how many blobs come into a layout at once, at least: as many as there are cores to hash them, and enough
// of those that are waited for.
const minParallel = 4

// Push brings an image into the layout. ref is REPOSITORY[:TAG][,TAG…]; without a tag the tag is
// "latest". All tags are set in one commit, after everything they need is there: a push that fails
// or is cancelled names nothing. What it has named outlives every process; a power cut, as Options.Durability
// says. The caller closes from.
//
// What the layout has already, in whatever repository, is not read. What lies in files of this machine is taken from
// there by who serves the layout, which hashes what it has taken; all else is sent.
//
// Errors: those of the source, with what it was; berth.ErrDigestInvalid where a blob is not what its
// descriptor says; berth.ErrNameInvalid and berth.ErrTagInvalid for what cannot be set: a digest, or
// a name that begins with a host.
func (r *Registry) Push(ctx context.Context, from source.Source, ref string, opts *PushOptions) (Pushed, error) {
	name, tags, err := parseTags(ref)
	if err != nil {
		return Pushed{}, err
	}
	if opts == nil {
		opts = &PushOptions{}
	}
	from = forPlatform(from, opts.Platform)
	root, err := from.Root(ctx)
	if err != nil {
		return Pushed{}, err
	}
	repo, err := r.Open(name)
	if err != nil {
		return Pushed{}, err
	}
	to := &rootKeeper{Target: &layoutTarget{sync.ToRepository(repo, tags, nil), r.session, name, opts.Link}}
	var stats sync.Stats
	err = r.steadily(ctx, func() (err error) {
		stats, err = sync.Copy(ctx, from, to, root, &sync.CopyOptions{Parallel: max(minParallel, runtime.GOMAXPROCS(0)), Progress: opts.Progress})
		return err
	})
	if err != nil {
		return Pushed{}, fmt.Errorf("push %sto %s: %w", called(from), ref, err)
	}
	return Pushed{Descriptor: to.root, Tags: tags, Stats: stats}, nil
}

// rootKeeper remembers what the tags were set to. To ask the registry afterwards would be to fail,
// or to be told of somebody else's push, when all is done.
type rootKeeper struct {
	sync.Target
	root v1.Descriptor
}

func (k *rootKeeper) PutManifest(ctx context.Context, desc v1.Descriptor, raw []byte, root bool) error {
	if root {
		k.root = v1.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	}
	return k.Target.PutManifest(ctx, desc, raw, root)
}

// called is a source's name, where it has one, for the middle of a sentence.
func called(from source.Source) string {
	if named, ok := from.(fmt.Stringer); ok && named.String() != "" {
		return named.String() + " "
	}
	return ""
}

// parseTags reads REPOSITORY[:TAG][,TAG…].
func parseTags(text string) (repository string, tags []string, err error) {
	parts := strings.Split(text, ",")
	if host, _ := pin.SplitHost(parts[0]); host != "" {
		return "", nil, fmt.Errorf("reference %q: %w: %s is a host, and a push goes into the layout; sync brings its tags to registries", text, berth.ErrNameInvalid, host)
	}
	ref, err := berth.ParseReference(parts[0])
	switch {
	case err != nil && len(parts) > 1:
		return "", nil, fmt.Errorf("reference %q: %w", text, err)
	case err != nil:
		return "", nil, err
	case ref.Digest != "":
		return "", nil, fmt.Errorf("reference %q: %w: a push sets tags; leave out the digest", text, berth.ErrTagInvalid)
	}
	tags = []string{ref.WithDefaultTag().Tag}
	for _, tag := range parts[1:] {
		if err := berth.ValidateTag(tag); err != nil {
			return "", nil, fmt.Errorf("reference %q: %w%s", text, err, shorter(ref.Repository, parts))
		}
		tags = append(tags, tag)
	}
	return ref.Repository, tags, nil
}

// shorter tells what to write where the repository is named before each tag.
func shorter(repository string, parts []string) string {
	for i, part := range parts {
		parts[i] = strings.TrimPrefix(part, repository+":")
		if berth.ValidateTag(parts[i]) != nil {
			return ""
		}
	}
	return fmt.Sprintf("; write %s:%s", repository, strings.Join(parts, ","))
}

// CheckTags reports what Push would say of a reference like REPOSITORY[:TAG][,TAG…]. It does no I/O.
func CheckTags(ref string) error {
	_, _, err := parseTags(ref)
	return err
}
