package source

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// annotationImageName is by which containerd, and docker with it, knows an image of a layout.
const annotationImageName = "io.containerd.image.name"

// ToDockerArchive is a tar file that docker load and podman load take, with one image under a name like
// "app/hello:v1"; an empty name is none. It is an image layout as well: manifest and layers are in it byte for byte. It
// appears as that of [ToArchive] does.
//
// Such a file holds an image for one platform: Commit fails with berth.ErrUnsupported for an index.
//
// Errors: berth.ErrNameInvalid and berth.ErrTagInvalid for a name that docker load would refuse.
func ToDockerArchive(file, name string) (Destination, error) {
	if err := checkDockerName(name); err != nil {
		return nil, fmt.Errorf("%s:%s: name %q: %w", FormDocker, file, name, err)
	}
	w, err := newArchiveWriter(FormDocker, file, name)
	if err != nil {
		return nil, err
	}
	return &dockerWriter{w}, nil
}

// checkDockerName refuses what docker load would refuse.
func checkDockerName(name string) error {
	if name == "" {
		return nil
	}
	full := fullName(name)
	ref, err := berth.ParseReference(full[strings.Index(full, "/")+1:])
	if err == nil && ref.Digest != "" {
		err = fmt.Errorf("%w: an archive has names and no digests", berth.ErrNameInvalid)
	}
	return err
}

type dockerWriter struct{ *archiveWriter }

func (w *dockerWriter) Commit(ctx context.Context, root v1.Descriptor) error {
	image, err := w.saved(root)
	if err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	return w.commitWith(ctx, root, w.listed(root), savedList, []savedImage{image})
}

// Accepts refuses an index.
func (w *dockerWriter) Accepts(root v1.Descriptor) error {
	if manifest.KindOf(root.MediaType) == manifest.Image {
		return nil
	}
	return fmt.Errorf("%s: %w: it is an index, and the archive holds an image for one platform", root.Digest, berth.ErrUnsupported)
}

// saved is the image as docker lists it.
func (w *dockerWriter) saved(root v1.Descriptor) (image savedImage, err error) {
	w.mu.Lock()
	put, ok := w.has[root.Digest]
	w.mu.Unlock()
	if !ok || put.size != root.Size {
		return image, fmt.Errorf("%s: %w: it was not put", root.Digest, berth.ErrBlobUnknown)
	}
	if put.size > berth.MaxManifestSize {
		return image, fmt.Errorf("%s: %w: it is too large for a manifest", root.Digest, berth.ErrSizeInvalid)
	}
	raw := make([]byte, put.size)
	if _, err := w.temp.ReadAt(raw, put.offset); err != nil {
		return image, err
	}
	doc, err := manifest.Parse(root.MediaType, raw)
	if err != nil {
		return image, fmt.Errorf("%s: %w", root.Digest, err)
	}
	if err := w.Accepts(root); err != nil {
		return image, err
	}
	image.Config = blobPath(*doc.Config)
	for _, layer := range doc.Layers {
		image.Layers = append(image.Layers, blobPath(layer))
	}
	if w.name != "" {
		image.RepoTags = []string{w.name}
	}
	return image, nil
}

// listed is the image's entry in index.json, with the names that docker gives it there.
func (w *dockerWriter) listed(root v1.Descriptor) v1.Descriptor {
	root.Annotations = nil
	if w.name != "" {
		full := fullName(w.name)
		root.Annotations = map[string]string{annotationImageName: full, v1.AnnotationRefName: full[strings.LastIndex(full, ":")+1:]}
	}
	return root
}

// newIndexOf is an index.json with one entry.
func newIndexOf(entry v1.Descriptor) (layoutIndex, error) {
	index := newIndex()
	var err error
	index[keyManifests], err = json.Marshal([]v1.Descriptor{entry})
	return index, err
}
