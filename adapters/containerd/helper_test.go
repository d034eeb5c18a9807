package containerd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/containerd"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/source"
	berthsync "github.com/berthoci/berth/sdk/sync"
)

// open serves a new layout from within the test.
func open(tb testing.TB) *sdk.Registry {
	tb.Helper()
	registry, err := sdk.Open(tb.Context(), &sdk.Options{
		Layout:   filepath.Join(tb.TempDir(), "layout"),
		Launcher: embedded.InProcess(),
		Private:  true,
	})
	must(tb, err)
	tb.Cleanup(func() { must(tb, registry.Close()) })
	return registry
}

func repository(tb testing.TB, registry berth.Registry, name string) berth.Repository {
	tb.Helper()
	repo, err := registry.Repository(name)
	must(tb, err)
	return repo
}

// newStore is a repository of a new layout as a store.
func newStore(tb testing.TB) (*containerd.Store, berth.Repository) {
	tb.Helper()
	repo := repository(tb, open(tb), "app/store")
	return containerd.NewStore(repo), repo
}

// files is containerd's own store, in a directory.
func files(tb testing.TB) content.Store {
	tb.Helper()
	store, err := local.NewStore(tb.TempDir())
	must(tb, err)
	return store
}

func layer(name string, compression source.Compression) source.Layer {
	return source.Layer{FS: fstest.MapFS{name: {Data: []byte(strings.Repeat(name+"\n", 20_000))}}, Compression: compression}
}

// platforms is an index of two images with layers of all kinds.
func platforms(tb testing.TB) source.Source {
	tb.Helper()
	built := source.Build(&source.BuildOptions{TempDir: tb.TempDir()},
		source.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Layers: []source.Layer{layer("base", source.Gzip), layer("amd64", source.Zstd)}},
		source.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}, Layers: []source.Layer{layer("base", source.Gzip), layer("arm64", source.None)}},
	)
	tb.Cleanup(func() { must(tb, built.Close()) })
	return built
}

// single is one image of one layer.
func single(tb testing.TB, text string) source.Source {
	tb.Helper()
	built := source.Build(&source.BuildOptions{TempDir: tb.TempDir()}, source.Image{Layers: []source.Layer{layer(text, source.Gzip)}})
	tb.Cleanup(func() { must(tb, built.Close()) })
	return built
}

// fill copies an image into a store of containerd's.
func fill(tb testing.TB, to content.Ingester, from source.Source) ocispec.Descriptor {
	tb.Helper()
	root, err := from.Root(tb.Context())
	must(tb, err)
	_, err = berthsync.Copy(tb.Context(), from, ingester{to}, root, nil)
	must(tb, err)
	return root
}

// ingester is a store of containerd's as the target of a copy.
type ingester struct{ content.Ingester }

func (ingester) Has(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func (i ingester) PutBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) (berthsync.Action, error) {
	from, err := open()
	if err != nil {
		return "", err
	}
	defer from.Close()
	return berthsync.Sent, content.WriteBlob(ctx, i, string(desc.Digest), from, desc)
}

func (i ingester) PutManifest(ctx context.Context, desc ocispec.Descriptor, raw []byte, _ bool) error {
	return content.WriteBlob(ctx, i, string(desc.Digest), bytes.NewReader(raw), desc)
}

// contents reads all that an image leads to, with containerd's own walk.
func contents(tb testing.TB, from content.Provider, root ocispec.Descriptor) map[digest.Digest]string {
	tb.Helper()
	var mu sync.Mutex
	all := map[digest.Digest]string{}
	read := images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		raw, err := content.ReadBlob(ctx, from, desc)
		mu.Lock()
		defer mu.Unlock()
		all[desc.Digest] = string(raw)
		return nil, err
	})
	must(tb, images.Dispatch(tb.Context(), images.Handlers(read, images.ChildrenHandler(from)), nil, root))
	for d, raw := range all {
		if got := d.Algorithm().FromString(raw); got != d {
			tb.Errorf("%s has %d bytes, which hash to %s", d, len(raw), got)
		}
	}
	return all
}

func same(tb testing.TB, got, want map[digest.Digest]string) {
	tb.Helper()
	if len(got) != len(want) {
		tb.Errorf("it has %d parts, want %d", len(got), len(want))
	}
	for d, raw := range want {
		if got[d] != raw {
			tb.Errorf("%s has %d bytes, want %d, or others", d, len(got[d]), len(raw))
		}
	}
}

// writeBlob writes content under a ref of its own.
func writeBlob(tb testing.TB, to content.Ingester, text string) digest.Digest {
	tb.Helper()
	d := digest.FromString(text)
	must(tb, content.WriteBlob(tb.Context(), to, "write "+string(d), strings.NewReader(text), ocispec.Descriptor{Digest: d, Size: int64(len(text))}))
	return d
}

func readBlob(tb testing.TB, from content.Provider, d digest.Digest) string {
	tb.Helper()
	raw, err := content.ReadBlob(tb.Context(), from, ocispec.Descriptor{Digest: d})
	must(tb, err)
	return string(raw)
}

// writer opens the writer of a ref.
func writer(tb testing.TB, store content.Ingester, ref string, opts ...content.WriterOpt) content.Writer {
	tb.Helper()
	w, err := store.Writer(tb.Context(), append(opts, content.WithRef(ref))...)
	must(tb, err)
	return w
}

func write(tb testing.TB, w content.Writer, text string) {
	tb.Helper()
	if n, err := io.WriteString(w, text); n != len(text) || err != nil {
		tb.Fatalf("%d of %d bytes were written: %v", n, len(text), err)
	}
}

func offset(tb testing.TB, w content.Writer) int64 {
	tb.Helper()
	status, err := w.Status()
	must(tb, err)
	return status.Offset
}

// wants reports what an error should be and is not.
func wants(tb testing.TB, what string, err error, is ...error) {
	tb.Helper()
	for _, want := range is {
		if !errorIs(err, want) {
			tb.Errorf("%s: %v, which is not: %v", what, err, want)
		}
	}
}

// errorIs lets containerd say what an error is, as its users do.
func errorIs(err, want error) bool {
	for known, is := range map[error]func(error) bool{
		errdefs.ErrNotFound: errdefs.IsNotFound, errdefs.ErrAlreadyExists: errdefs.IsAlreadyExists,
		errdefs.ErrUnavailable: errdefs.IsUnavailable, errdefs.ErrNotImplemented: errdefs.IsNotImplemented,
		errdefs.ErrFailedPrecondition: errdefs.IsFailedPrecondition, errdefs.ErrInvalidArgument: errdefs.IsInvalidArgument,
		errdefs.ErrDataLoss: errdefs.IsDataLoss, errdefs.ErrAborted: errdefs.IsAborted,
	} {
		if want == known {
			return is(err)
		}
	}
	return errors.Is(err, want)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
