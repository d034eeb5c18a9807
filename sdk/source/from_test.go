package source_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// shelf is a program's own store of blobs.
type shelf map[string]string

func (s shelf) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	content, ok := s[blobFile(desc)]
	if !ok {
		return nil, berth.ErrBlobUnknown
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

func TestASourceOfAnythingThatFetches(t *testing.T) {
	files, root := oneImage()
	from := source.New(root, shelf(files))
	got, err := from.Root(t.Context())
	must(t, err)
	if got.Digest != root.Digest {
		t.Errorf("the root is %s, want %s", got.Digest, root.Digest)
	}
	if raw, err := read(t, from, root); err != nil || raw != files[blobFile(root)] {
		t.Errorf("got %q, %v", raw, err)
	}
	must(t, from.Close())
}

// twoPlatforms is an index of images for amd64 and arm64, the second within an index of its own.
func twoPlatforms() (tree, v1.Descriptor, map[string]v1.Descriptor) {
	files := newTree()
	images := map[string]v1.Descriptor{}
	for _, architecture := range []string{"amd64", "arm64"} {
		m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: files.add(v1.MediaTypeImageConfig, `{"os":"linux","architecture":"`+architecture+`"}`)}
		m.SchemaVersion = 2
		desc := files.add(v1.MediaTypeImageManifest, encode(m))
		desc.Platform = &v1.Platform{OS: "linux", Architecture: architecture}
		images[architecture] = desc
	}
	index := func(children ...v1.Descriptor) v1.Descriptor {
		list := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: children}
		list.SchemaVersion = 2
		return files.add(v1.MediaTypeImageIndex, encode(list))
	}
	inner := index(images["arm64"])
	inner.Platform = images["arm64"].Platform
	root := index(images["amd64"], inner)
	return files.list(root), root, images
}

func TestOnePlatformOfASource(t *testing.T) {
	files, root, images := twoPlatforms()
	for form, from := range files.forms(t, "") {
		for architecture, want := range images {
			one := source.ForPlatform(from, v1.Platform{OS: "linux", Architecture: architecture})
			got, err := one.Root(t.Context())
			if err != nil || got.Digest != want.Digest || got.Platform != nil && got.Platform.Architecture != architecture {
				t.Errorf("%s, %s: got %v, %v; want %s", form, architecture, got, err, want.Digest)
			}
		}
		if got, err := from.Root(t.Context()); err != nil || got.Digest != root.Digest {
			t.Errorf("%s: got %v, %v; want %s", form, got, err, root.Digest)
		}
	}
}

func TestAPlatformThatASourceHasNot(t *testing.T) {
	files, _, images := twoPlatforms()
	both := source.Layout(files.dir(t), "")
	one := source.New(images["amd64"], shelf(files))
	for _, from := range []source.Source{both, one} {
		_, err := source.ForPlatform(from, v1.Platform{OS: "linux", Architecture: "riscv64"}).Root(t.Context())
		if !errors.Is(err, berth.ErrManifestUnknown) || !strings.Contains(err.Error(), "linux/amd64") {
			t.Errorf("got %v", err)
		}
	}
	must(t, both.Close())
}

// What is no image is for every platform.
func TestAnArtifactIsForEveryPlatform(t *testing.T) {
	files := newTree()
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/x.chart", Config: files.add("application/x.chart", `{"os":1}`)}
	m.SchemaVersion = 2
	want := files.add(v1.MediaTypeImageManifest, encode(m))
	got, err := source.ForPlatform(source.New(want, shelf(files)), v1.Platform{OS: "linux", Architecture: "arm64"}).Root(t.Context())
	if err != nil || got.Digest != want.Digest {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAPlatformOfAnImageThatLies(t *testing.T) {
	files, _, images := twoPlatforms()
	files[blobFile(images["amd64"])] = strings.Replace(files[blobFile(images["amd64"])], "{", " ", 1)
	_, err := source.ForPlatform(source.New(images["amd64"], shelf(files)), v1.Platform{OS: "linux", Architecture: "amd64"}).Root(t.Context())
	if !errors.Is(err, berth.ErrDigestInvalid) {
		t.Errorf("got %v, want %v", err, berth.ErrDigestInvalid)
	}
}

// A file that is not as it was seen is not taken, and nothing is left of it.
func TestPutFileOfAnotherFile(t *testing.T) {
	files, root := oneImage()
	from := source.Layout(files.dir(t), "v1")
	defer from.Close()
	content, err := from.Fetch(t.Context(), root)
	must(t, err)
	defer content.Close()
	seen, ok := content.(berth.Located).LocalFile()
	if !ok {
		t.Skip("this system has no numbers that tell files apart")
	}
	to, err := source.ToLayout(t.TempDir(), "v1")
	must(t, err)
	defer to.Close()
	for what, change := range map[string]func(*berth.LocalFile){
		"another inode":  func(f *berth.LocalFile) { f.Inode++ },
		"another device": func(f *berth.LocalFile) { f.Device++ },
		"a part of it":   func(f *berth.LocalFile) { f.Offset++; f.Size-- },
		"no file":        func(f *berth.LocalFile) { f.Path += "-" },
	} {
		one := seen
		change(&one)
		if _, err := to.(source.Importer).PutFile(t.Context(), root, one); !errors.Is(err, berth.ErrUnsupported) {
			t.Errorf("%s: got %v, want %v", what, err, berth.ErrUnsupported)
		}
	}
	if there, err := to.Has(t.Context(), manifest.Descriptor(root.MediaType, []byte(files[blobFile(root)]))); err != nil || there {
		t.Errorf("it is there: %t, %v", there, err)
	}
}
