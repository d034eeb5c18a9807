package containerd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/containerd"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// From containerd's files into berth, and out of it into others.
func TestImagesGoInAndComeOutTheSame(t *testing.T) {
	registry := open(t)
	for name, built := range map[string]source.Source{"platforms": platforms(t), "single": single(t, "one")} {
		t.Run(name, func(t *testing.T) {
			from := files(t)
			root := fill(t, from, built)
			pushed, err := registry.Push(t.Context(), containerd.Source(from, root), "app/"+name+":v1,latest", nil)
			must(t, err)
			if pushed.Descriptor.Digest != root.Digest {
				t.Errorf("it was pushed as %s, and is %s", pushed.Descriptor.Digest, root.Digest)
			}
			store := containerd.NewStore(repository(t, registry, "app/"+name))
			same(t, contents(t, store, root), contents(t, from, root))
			to := files(t)
			fill(t, to, containerd.Source(store, root))
			same(t, contents(t, to, root), contents(t, from, root))
		})
	}
}

// A store takes content in any order, as containerd brings it, parents first; it becomes an image by a push that moves
// no blob.
func TestWhatWasWrittenBecomesAnImage(t *testing.T) {
	registry := open(t)
	from := files(t)
	root := fill(t, from, platforms(t))
	store := containerd.NewStore(repository(t, registry, "app/written"))
	copyTo := images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		at, err := from.ReaderAt(ctx, desc)
		if err != nil {
			return nil, err
		}
		defer at.Close()
		return nil, content.WriteBlob(ctx, store, "copy-"+string(desc.Digest), content.NewReader(at), desc)
	})
	must(t, images.Dispatch(t.Context(), images.Handlers(copyTo, images.ChildrenHandler(from)), nil, root))
	want := contents(t, from, root)
	same(t, contents(t, store, root), want)
	if _, err := registry.Resolve(t.Context(), "app/written@"+string(root.Digest)); err == nil {
		t.Error("what nobody has pushed is an image")
	}
	pushed, err := registry.Push(t.Context(), containerd.Source(store, root), "app/written:v1", nil)
	must(t, err)
	const manifests = 3
	if pushed.Descriptor.Digest != root.Digest || pushed.Stats.Sent != manifests || pushed.Stats.Existing != len(want)-manifests {
		t.Errorf("pushed %s, want %s, with %+v; its %d parts were there", pushed.Descriptor.Digest, root.Digest, pushed.Stats, len(want))
	}
}

// Archives are written and read by containerd.
func TestArchivesOfContainerd(t *testing.T) {
	registry := open(t)
	pushed, err := registry.Push(t.Context(), platforms(t), "app/all:v1", nil)
	must(t, err)
	store := containerd.NewStore(repository(t, registry, "app/all"))
	name := filepath.Join(t.TempDir(), "all.tar")
	file, err := os.Create(name)
	must(t, err)
	defer file.Close()
	must(t, archive.Export(t.Context(), store, file, archive.WithManifest(pushed.Descriptor, "app/all:v1"), archive.WithAllPlatforms(), archive.WithReferrersProvider(store)))
	read := source.Archive(name, "")
	defer read.Close()
	again, err := registry.Push(t.Context(), read, "app/again:v1", nil)
	must(t, err)
	if again.Descriptor.Digest != pushed.Descriptor.Digest {
		t.Errorf("the archive has %s, want %s", again.Descriptor.Digest, pushed.Descriptor.Digest)
	}

	_, err = file.Seek(0, 0)
	must(t, err)
	imported := containerd.NewStore(repository(t, registry, "app/imported"))
	index, err := archive.ImportIndex(t.Context(), imported, file)
	must(t, err)
	all, err := registry.Push(t.Context(), containerd.Source(imported, index), "app/imported:all", nil)
	must(t, err)
	if all.Descriptor.Digest != index.Digest {
		t.Errorf("the index of the archive is %s, and was pushed as %s", index.Digest, all.Descriptor.Digest)
	}
	same(t, contents(t, imported, pushed.Descriptor), contents(t, store, pushed.Descriptor))
}

func TestContentThatADescriptorBringsAlong(t *testing.T) {
	registry := open(t)
	from := files(t)
	const config = "{}"
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromString(config), Size: 2, Data: []byte(config)}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2,"data":"e30="},"layers":[]}`,
		ocispec.MediaTypeImageManifest, desc.MediaType, desc.Digest)
	writeBlob(t, from, raw)
	root := manifest.Descriptor(ocispec.MediaTypeImageManifest, []byte(raw))
	_, err := registry.Push(t.Context(), containerd.Source(from, root), "app/data:v1", nil)
	must(t, err)
	store := containerd.NewStore(repository(t, registry, "app/data"))
	if got := readBlob(t, store, desc.Digest); got != config {
		t.Errorf("the config is %q", got)
	}
	desc.Data = []byte("[]") // and is not what the digest says
	if _, err := containerd.Source(files(t), root).Fetch(t.Context(), desc); err == nil {
		t.Error("data that is something else is believed")
	}
}

func TestWhatASourceLacks(t *testing.T) {
	registry := open(t)
	from := files(t)
	root := fill(t, from, single(t, "one"))
	src := containerd.Source(from, root)
	nothing := digest.FromString("nothing")
	_, err := src.Fetch(t.Context(), ocispec.Descriptor{Digest: nothing, Size: 1})
	wants(t, "content that is not there", err, berth.ErrBlobUnknown, errNotFound)
	if !strings.Contains(err.Error(), string(nothing)) {
		t.Errorf("the error does not say what is missing: %v", err)
	}
	longer := root
	longer.Size++
	_, err = src.Fetch(t.Context(), longer)
	wants(t, "content of another size", err, berth.ErrBlobUnknown)
	for d := range contents(t, from, root) {
		if d != root.Digest {
			must(t, from.Delete(t.Context(), d))
		}
	}
	_, err = registry.Push(t.Context(), src, "app/lacking:v1", nil)
	wants(t, "an image without its parts", err, berth.ErrBlobUnknown, errNotFound)
	must(t, src.Close())
}

func TestManyUseOneStore(t *testing.T) {
	registry := open(t)
	from := files(t)
	root := fill(t, from, platforms(t))
	src := containerd.Source(from, root)
	store := containerd.NewStore(repository(t, registry, "app/many"))
	want := contents(t, from, root)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			if _, err := registry.Push(t.Context(), src, fmt.Sprintf("app/many:v%d", i), nil); err != nil {
				t.Error(err)
			}
			same(t, contents(t, store, root), want)
		})
		group.Go(func() {
			text := strings.Repeat(fmt.Sprint("blob ", i), 100_000)
			if got := readBlob(t, store, writeBlob(t, store, text)); got != text {
				t.Errorf("blob %d has %d bytes, want %d, or others", i, len(got), len(text))
			}
		})
	}
	// One ref for all: they take turns, and all but the first find the blob.
	for range 4 {
		group.Go(func() { writeBlob(t, store, strings.Repeat("one blob", 10_000)) })
	}
	group.Wait()
	if statuses, err := store.ListStatuses(t.Context()); len(statuses) != 0 || err != nil {
		t.Errorf("nothing is being written, and there is %v: %v", statuses, err)
	}
}
