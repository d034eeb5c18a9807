package source

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// ErrDockerArchive: a file that should be what docker save writes is not, or is damaged.
var ErrDockerArchive = errors.New("not an archive of docker save")

// savedList is the file of such an archive that lists its images.
const savedList = "manifest.json"

// maxSaved is how many images of an archive are looked at.
const maxSaved = 10_000

// savedImage is an entry of the list.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string // tar files, in the order in which they are applied
}

// DockerArchive is the image of that name in a tar file of docker save, of any version. The name is one that it was
// saved under, as Docker reads names; an empty one is the only image there is. The file is read where it lies.
//
// An archive that is an image layout as well, as newer ones are, has the image's manifest. For one that has none, a
// manifest of OCI's types is made, of the config and the layers as they are: other programs that read layouts know no
// other types.
func DockerArchive(file, name string) Source {
	return &dockerArchive{what: FormDocker + ":" + file, file: file, name: name}
}

type dockerArchive struct {
	what, file, name string

	mu    sync.Mutex // guards the fields below
	tar   *tarFS
	image *dockerImage
}

// dockerImage is the image that was chosen.
type dockerImage struct {
	root  v1.Descriptor
	fetch func(context.Context, v1.Descriptor) (io.ReadCloser, error)
}

// String is the source as Parse reads it.
func (a *dockerArchive) String() string { return withName(a.what, a.name) }

func (a *dockerArchive) Root(ctx context.Context) (v1.Descriptor, error) {
	image, err := a.load(ctx)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return image.root, nil
}

func (a *dockerArchive) Fetch(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	image, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	content, err := image.fetch(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", a.what, desc.Digest, err)
	}
	return content, nil
}

func (a *dockerArchive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tar == nil {
		return nil
	}
	closing := a.tar
	a.tar, a.image = nil, nil
	return closing.Close()
}

// load reads what the archive says about its image, once.
func (a *dockerArchive) load(ctx context.Context) (*dockerImage, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.image != nil {
		return a.image, nil
	}
	var err error
	if a.tar == nil {
		a.tar, err = openTar(ctx, a.file)
	}
	if errors.Is(err, ErrArchive) {
		err = fmt.Errorf("%w: %w", ErrDockerArchive, err)
	}
	if err == nil {
		a.image, err = a.read(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.what, sayPath(err))
	}
	return a.image, nil
}

func (a *dockerArchive) read(ctx context.Context) (*dockerImage, error) {
	raw, err := a.tar.content(savedList, berth.MaxManifestSize)
	if _, layout := a.tar.entries[v1.ImageIndexFile]; layout && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is an image layout, which oci-archive: reads", ErrDockerArchive)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it has no %s; docker before 1.10 wrote none, and a newer one can load and save it again", ErrDockerArchive, savedList)
	}
	if err != nil {
		return nil, err
	}
	var images []savedImage
	err = eachOf(json.NewDecoder(bytes.NewReader(raw)), func(one savedImage) {
		if len(images) < maxSaved {
			images = append(images, one)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%w: its %s does not parse: %w", ErrDockerArchive, savedList, err)
	}
	image, err := chooseSaved(images, a.name)
	if err != nil {
		return nil, err
	}
	config, err := a.tar.content(image.Config, berth.MaxManifestSize)
	if err != nil {
		return nil, fmt.Errorf("%w: its config %.200q: %w", ErrDockerArchive, image.Config, err)
	}
	if own := a.ownManifest(ctx, digest.FromBytes(config)); own != nil {
		return own, nil
	}
	return a.assemble(ctx, image, config)
}

// chooseSaved picks the image that a name means.
func chooseSaved(images []savedImage, name string) (savedImage, error) {
	var known []string
	for _, image := range images {
		for _, tag := range image.RepoTags {
			if name != "" && fullName(tag) == fullName(name) {
				return image, nil
			}
			if len(known) < maxKnown {
				known = append(known, printable(tag))
			}
		}
	}
	if name == "" && len(images) == 1 {
		return images[0], nil
	}
	names := strings.Join(known, ", ")
	switch {
	case len(images) == 0:
		return savedImage{}, fmt.Errorf("%w: it holds no image", berth.ErrManifestUnknown)
	case name == "":
		return savedImage{}, fmt.Errorf("%w: it has %d images; choose one by its name: %s", berth.ErrManifestUnknown, len(images), names)
	}
	return savedImage{}, fmt.Errorf("%w: it has no image %q; it has %s", berth.ErrManifestUnknown, name, cmp.Or(names, "none with a name"))
}

// fullName completes a name as Docker does.
func fullName(name string) string {
	if last := name[strings.LastIndex(name, "/")+1:]; !strings.Contains(last, ":") {
		name += ":latest"
	}
	host, _, found := strings.Cut(name, "/")
	if !found {
		return "docker.io/library/" + name
	}
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "docker.io/" + name
	}
	return name
}

// ownManifest finds the image in the layout that the archive may be as well, or returns nil.
func (a *dockerArchive) ownManifest(ctx context.Context, config digest.Digest) *dockerImage {
	layout := &files{what: a.what, fs: a.tar}
	var entries []v1.Descriptor
	err := layout.eachEntry(ctx, func(entry v1.Descriptor) {
		if len(entries) < maxLooks {
			entries = append(entries, entry)
		}
	})
	if err != nil {
		return nil
	}
	root := findConfig(ctx, layout, entries, config)
	if root == nil {
		return nil
	}
	return &dockerImage{clean(*root), layout.Fetch}
}

// maxLooks bounds how many manifests are read to find one.
const maxLooks = 1000

// findConfig finds the manifest of a config among entries, and in the indexes among them.
func findConfig(ctx context.Context, layout *files, entries []v1.Descriptor, config digest.Digest) *v1.Descriptor {
	seen := map[digest.Digest]bool{}
	for looks := 0; len(entries) > 0 && looks < maxLooks && ctx.Err() == nil; {
		entry := entries[0]
		entries = entries[1:]
		if seen[entry.Digest] {
			continue
		}
		seen[entry.Digest] = true
		looks++
		raw, err := readVerified(ctx, layout, entry)
		if err != nil {
			continue
		}
		doc, err := manifest.Parse(entry.MediaType, raw)
		switch {
		case err != nil:
		case doc.Kind == manifest.Image && doc.Config.Digest == config:
			return &entry
		case doc.Kind == manifest.Index:
			entries = append(entries, doc.Manifests...)
		}
	}
	return nil
}

// assemble makes a manifest of what was saved.
func (a *dockerArchive) assemble(ctx context.Context, image savedImage, config []byte) (*dockerImage, error) {
	var wanted struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &wanted); err != nil {
		return nil, fmt.Errorf("%w: its config %.200q does not parse: %w", ErrDockerArchive, image.Config, err)
	}
	if len(wanted.RootFS.DiffIDs) != len(image.Layers) {
		return nil, fmt.Errorf("%w: its config %.200q is of %d layers, and it has %d", ErrDockerArchive, image.Config, len(wanted.RootFS.DiffIDs), len(image.Layers))
	}
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: manifest.Descriptor(v1.MediaTypeImageConfig, config), Layers: []v1.Descriptor{}}
	m.SchemaVersion = 2
	at := map[digest.Digest]string{}
	for i, name := range image.Layers {
		layer, err := a.tar.describe(ctx, name, wanted.RootFS.DiffIDs[i])
		if err != nil {
			return nil, fmt.Errorf("%w: its layer %.200q: %w", ErrDockerArchive, name, err)
		}
		m.Layers = append(m.Layers, layer)
		at[layer.Digest] = a.tar.follow(name)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	root, archive := manifest.Descriptor(m.MediaType, raw), a.tar // which Close takes away from a
	inMemory := map[digest.Digest][]byte{root.Digest: raw, m.Config.Digest: config}
	return &dockerImage{root, func(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
		if content, ok := inMemory[desc.Digest]; ok {
			return io.NopCloser(bytes.NewReader(content)), nil
		}
		if name, ok := at[desc.Digest]; ok {
			return archive.Open(name)
		}
		return nil, fmt.Errorf("%w: it is no part of the image", berth.ErrBlobUnknown)
	}}, nil
}

// content reads a small file whole.
func (t *tarFS) content(name string, most int64) ([]byte, error) {
	file, info, err := openFile(t, t.follow(name))
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read: %w", name, info.Size(), most, berth.ErrSizeInvalid)
	}
	return io.ReadAll(file)
}

// describe is a layer's descriptor. One that is not compressed is what its diff ID says, or it is damaged, which is
// found out when it is stored.
func (t *tarFS) describe(ctx context.Context, name string, diffID digest.Digest) (v1.Descriptor, error) {
	if err := berth.ValidateDigest(diffID); err != nil {
		return v1.Descriptor{}, err
	}
	file, info, err := openFile(t, t.follow(name))
	if err != nil {
		return v1.Descriptor{}, err
	}
	content := file.(tarFile)
	if isPlain(content) {
		return v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: diffID, Size: info.Size()}, nil
	}
	sums, err := sumLayer(steady{ctx, content}, diffID.Algorithm(), func(extracted io.Reader) error {
		if _, err := io.Copy(io.Discard, extracted); err != nil {
			return fmt.Errorf("it is damaged, or cut short: %w", err)
		}
		return nil
	})
	if err == nil && sums.diffID != diffID {
		err = fmt.Errorf("%w: it is extracted to %s, its config says %s", berth.ErrDigestInvalid, sums.diffID, diffID)
	}
	return sums.desc, err
}

// steady reads until a context ends.
type steady struct {
	ctx context.Context
	io.Reader
}

func (s steady) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}
