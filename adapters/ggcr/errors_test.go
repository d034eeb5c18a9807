package ggcr_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/ggcr"
)

// isStatus reports whether go-containerregistry's users take an error for an answer of that status.
func isStatus(err error, status int) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == status
}

func TestWhatASourceLacks(t *testing.T) {
	src := ggcr.Source(image(t, amd64, layer(t, "one")))
	_, err := src.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.FromString("nothing")})
	if !errors.Is(err, berth.ErrBlobUnknown) || !strings.Contains(err.Error(), string(digest.FromString("nothing"))) {
		t.Errorf("what is no part of the image is %v", err)
	}
	must(t, src.Close())
}

// A file that is gone is what it is in both worlds, and keeps nobody from the rest.
func TestAFileThatIsGone(t *testing.T) {
	registry := open(t)
	idx, images := platforms(t)
	path, err := layout.Write(t.TempDir(), idx)
	must(t, err)
	read, err := path.ImageIndex()
	must(t, err)
	m, err := images[0].Manifest()
	must(t, err)
	must(t, path.RemoveBlob(m.Layers[1].Digest))
	src := ggcr.IndexSource(read)
	if _, err := registry.Push(t.Context(), src, "app/gone:v1", nil); !errors.Is(err, berth.ErrBlobUnknown) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image without a layer is pushed: %v", err)
	}
	first, err := images[0].Digest()
	must(t, err)
	must(t, path.RemoveBlob(first))
	src = ggcr.IndexSource(read)
	other, err := images[1].Manifest()
	must(t, err)
	content, err := src.Fetch(t.Context(), ocispec.Descriptor{Digest: digestFrom(other.Config.Digest)})
	must(t, err)
	must(t, content.Close())
	_, err = src.Fetch(t.Context(), ocispec.Descriptor{Digest: digestFrom(first)})
	if !errors.Is(err, berth.ErrBlobUnknown) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a manifest without its file is %v", err)
	}
	_, err = src.Fetch(t.Context(), ocispec.Descriptor{Digest: digestFrom(m.Config.Digest)})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what only a manifest that is gone could tell is %v", err)
	}
}

func TestALayerThatIsNotReadYet(t *testing.T) {
	streamed := stream.NewLayer(io.NopCloser(strings.NewReader("bytes that come once")))
	src := ggcr.Source(image(t, amd64, streamed))
	if _, err := src.Root(t.Context()); !errors.Is(err, stream.ErrNotComputed) {
		t.Errorf("its manifest is not known, and Root says %v", err)
	}
	if _, err := src.Fetch(t.Context(), ocispec.Descriptor{}); !errors.Is(err, stream.ErrNotComputed) {
		t.Errorf("its manifest is not known, and Fetch says %v", err)
	}
}

func TestALayerIsOpenedLateAndClosed(t *testing.T) {
	one := &counted{Layer: plainLayer(t, "one")}
	img := image(t, amd64, one)
	m, err := img.Manifest()
	must(t, err)
	desc := ocispec.Descriptor{Digest: digestFrom(m.Layers[0].Digest)}
	one.opened.Store(0)
	src := ggcr.Source(img)
	content, err := src.Fetch(t.Context(), desc)
	must(t, err)
	must(t, content.Close())
	if _, err := content.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) || one.opened.Load() != 0 {
		t.Errorf("a layer that was closed is read: %v; it was opened %d times", err, one.opened.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	content, err = src.Fetch(ctx, desc)
	must(t, err)
	_, err = content.Read(make([]byte, 1))
	must(t, err)
	cancel()
	if _, err := content.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context a layer is read on: %v", err)
	}
	if _, err := src.Fetch(ctx, desc); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context a layer is fetched: %v", err)
	}
	must(t, content.Close())
	must(t, content.Close())
}

func TestWhatARepositoryLacks(t *testing.T) {
	registry := open(t)
	repo := repository(t, registry, "app/lacking")
	none := string(digest.FromString("nothing"))
	for _, ref := range []string{"v1", none} {
		if _, err := ggcr.Image(t.Context(), repo, ref); !errors.Is(err, berth.ErrManifestUnknown) || !isStatus(err, http.StatusNotFound) {
			t.Errorf("image %s, which is not there: %v", ref, err)
		}
		if _, err := ggcr.Index(t.Context(), repo, ref); !errors.Is(err, berth.ErrManifestUnknown) || !isStatus(err, http.StatusNotFound) {
			t.Errorf("index %s, which is not there: %v", ref, err)
		}
	}
	one := layer(t, "one")
	pushed, err := registry.Push(t.Context(), ggcr.Source(image(t, amd64, one)), "app/lacking:v1", nil)
	must(t, err)
	img, err := ggcr.Image(t.Context(), repo, "v1")
	must(t, err)
	hash, err := one.Digest()
	must(t, err)
	must(t, repo.DeleteBlob(t.Context(), digestFrom(hash)))
	read, err := img.LayerByDigest(hash)
	must(t, err)
	if _, err := read.Compressed(); !errors.Is(err, berth.ErrBlobUnknown) || !isStatus(err, http.StatusNotFound) {
		t.Errorf("a layer that was deleted: %v", err)
	}
	if there, err := partial.Exists(read); there || err != nil {
		t.Errorf("a layer that was deleted exists: %v, %v", there, err)
	}
	if _, err := img.LayerByDigest(v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("a layer of another image: %v", err)
	}
	// And back into berth, as what is missing there.
	if _, err := registry.Push(t.Context(), ggcr.Source(img), "app/other:v1", nil); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("an image without a layer is pushed: %v", err)
	}
	if _, err := ggcr.Index(t.Context(), repo, string(pushed.Descriptor.Digest)); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("an image is read as an index: %v", err)
	}
}

func TestWhatAnIndexLacks(t *testing.T) {
	registry := open(t)
	idx, images := platforms(t)
	_, err := registry.Push(t.Context(), ggcr.IndexSource(idx), "app/all:v1", nil)
	must(t, err)
	repo := repository(t, registry, "app/all")
	if _, err := ggcr.Image(t.Context(), repo, "v1"); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("an index is read as an image: %v", err)
	}
	back, err := ggcr.Index(t.Context(), repo, "v1")
	must(t, err)
	first, err := images[0].Digest()
	must(t, err)
	must(t, repo.DeleteManifest(t.Context(), digestFrom(first)))
	if _, err := back.Image(first); !errors.Is(err, berth.ErrManifestUnknown) || !isStatus(err, http.StatusNotFound) {
		t.Errorf("an image that was deleted: %v", err)
	}
	none := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	if _, err := back.Image(none); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("an image that is not listed: %v", err)
	}
	if _, err := back.ImageIndex(none); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("an index that is not listed: %v", err)
	}
}

// damaged is a repository that gives other bytes than it has.
type damaged struct {
	berth.Repository
	change func([]byte) []byte
}

func (d damaged) FetchManifest(ctx context.Context, ref string, opts *berth.FetchOptions) (berth.Manifest, error) {
	m, err := d.Repository.FetchManifest(ctx, ref, opts)
	m.Raw = d.change(m.Raw)
	return m, err
}

// damagedBlobs gives manifests as they are.
type damagedBlobs struct {
	berth.Repository
	change func([]byte) []byte
}

type changedBlob struct {
	*bytes.Reader
	berth.Blob
}

func (c changedBlob) Read(p []byte) (int, error)                 { return c.Reader.Read(p) }
func (c changedBlob) Seek(offset int64, from int) (int64, error) { return c.Reader.Seek(offset, from) }

func (d damagedBlobs) OpenBlob(ctx context.Context, of digest.Digest) (berth.Blob, error) {
	blob, err := d.Repository.OpenBlob(ctx, of)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(blob)
	return changedBlob{bytes.NewReader(d.change(raw)), blob}, err
}

func TestWhatIsDamagedIsNotBelieved(t *testing.T) {
	registry := open(t)
	one := plainLayer(t, "one")
	_, err := registry.Push(t.Context(), ggcr.Source(image(t, amd64, one)), "app/damaged:v1", nil)
	must(t, err)
	repo := repository(t, registry, "app/damaged")
	for name, change := range map[string]func([]byte) []byte{
		"other bytes": func(raw []byte) []byte { return append([]byte("x"), raw[1:]...) },
		"fewer":       func(raw []byte) []byte { return raw[:len(raw)-1] },
		"more":        func(raw []byte) []byte { return append(bytes.Clone(raw), ' ') },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ggcr.Image(t.Context(), damaged{repo, change}, "v1"); !errors.Is(err, berth.ErrDigestInvalid) {
				t.Errorf("the manifest: %v", err)
			}
			img, err := ggcr.Image(t.Context(), damagedBlobs{repo, change}, "v1")
			must(t, err)
			if _, err := img.RawConfigFile(); !errors.Is(err, berth.ErrDigestInvalid) {
				t.Errorf("the config: %v", err)
			}
			layers, err := img.Layers()
			must(t, err)
			content, err := layers[0].Compressed()
			must(t, err)
			if _, err := io.Copy(io.Discard, content); !errors.Is(err, berth.ErrDigestInvalid) {
				t.Errorf("the layer: %v", err)
			}
		})
	}
}

func TestAHugeConfigIsNotRead(t *testing.T) {
	registry := open(t)
	img := image(t, amd64)
	config, err := img.ConfigFile()
	must(t, err)
	config = config.DeepCopy()
	config.Author = strings.Repeat("a", berth.MaxManifestSize)
	img, err = mutate.ConfigFile(img, config)
	must(t, err)
	_, err = registry.Push(t.Context(), ggcr.Source(img), "app/huge:v1", nil)
	must(t, err)
	back, err := ggcr.Image(t.Context(), repository(t, registry, "app/huge"), "v1")
	must(t, err)
	if _, err := back.RawConfigFile(); !errors.Is(err, berth.ErrSizeInvalid) {
		t.Errorf("a config beyond the limit is %v", err)
	}
}

func TestWhatIsNoImageForGGCR(t *testing.T) {
	registry := open(t)
	repo := repository(t, registry, "app/sha384")
	config := ocispec.Descriptor{MediaType: string(types.OCIConfigJSON), Digest: digest.SHA384.FromString("{}"), Size: 2}
	up, err := repo.NewUpload(t.Context(), &berth.UploadOptions{Algorithm: digest.SHA384})
	must(t, err)
	_, err = io.WriteString(up, "{}")
	must(t, err)
	_, err = up.Commit(t.Context(), config.Digest)
	must(t, err)
	raw := `{"schemaVersion":2,"mediaType":"` + string(types.OCIManifestSchema1) + `","config":{"mediaType":"` + config.MediaType + `","digest":"` + string(config.Digest) + `","size":2},"layers":[]}`
	_, err = repo.PushManifest(t.Context(), []byte(raw), &berth.PushOptions{Tags: []string{"v1"}})
	must(t, err)
	if _, err := ggcr.Image(t.Context(), repo, "v1"); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("a digest that go-containerregistry does not know: %v", err)
	}
}
