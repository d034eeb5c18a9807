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
func ToDockerArchive(file, name string) (Destination, error) {
	w, err := newArchiveWriter(FormDocker, file, name)
	if err != nil {
		return nil, err
	}
	return &dockerWriter{w}, nil
}

type dockerWriter struct{ *archiveWriter }

func (w *dockerWriter) Commit(ctx context.Context, root v1.Descriptor) error {
	image, err := w.saved(root)
	if err != nil {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	return w.commitWith(ctx, root, w.listed(root), savedList, []savedImage{image})
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
	if doc.Kind != manifest.Image {
		return image, fmt.Errorf("%s: %w: it is an index, and the archive holds an image for one platform; choose one", root.Digest, berth.ErrUnsupported)
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
