package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// layoutIndex is index.json with all that is not ours kept as it stands.
type layoutIndex map[string]json.RawMessage

// keyManifests is where the entries are.
const keyManifests = "manifests"

func newIndex() layoutIndex {
	return layoutIndex{
		"schemaVersion": json.RawMessage(`2`),
		"mediaType":     json.RawMessage(`"` + v1.MediaTypeImageIndex + `"`),
	}
}

// readIndex reads the layout's index.json, or begins one.
func (w *layoutWriter) readIndex() (layoutIndex, error) {
	info, err := w.dir.Root().Stat(v1.ImageIndexFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newIndex(), nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxIndex:
		return nil, fmt.Errorf("%w: its %s is no file of at most %d bytes", berth.ErrLayoutInvalid, v1.ImageIndexFile, maxIndex)
	}
	data, err := w.dir.Root().ReadFile(v1.ImageIndexFile)
	if err != nil {
		return nil, err
	}
	var index layoutIndex
	err = json.Unmarshal(data, &index)
	if err == nil {
		_, err = index.entries()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its %s does not parse: %w", berth.ErrLayoutInvalid, v1.ImageIndexFile, err)
	}
	return index, nil
}

func (x layoutIndex) entries() (entries []json.RawMessage, err error) {
	if x == nil {
		return nil, errors.New("it is null")
	}
	if raw := x[keyManifests]; raw != nil {
		err = json.Unmarshal(raw, &entries)
	}
	return entries, err
}

// replace puts root into the list of entries, in the place of the one that has its name; without a
// name, of the one that is the same image without a name.
func (x layoutIndex) replace(root v1.Descriptor, name string) error {
	if name != "" {
		root.Annotations = map[string]string{v1.AnnotationRefName: name}
	}
	entry, err := json.Marshal(root)
	if err != nil {
		return err
	}
	old, err := x.entries()
	if err != nil {
		return err
	}
	entries, placed := []json.RawMessage{}, false
	for _, raw := range old {
		if !isSame(raw, root, name) {
			entries = append(entries, raw)
		} else if !placed {
			entries, placed = append(entries, entry), true
		}
	}
	if !placed {
		entries = append(entries, entry)
	}
	x[keyManifests], err = json.Marshal(entries)
	return err
}

// isSame reports whether an entry is what root is to replace.
func isSame(raw json.RawMessage, root v1.Descriptor, name string) bool {
	var old v1.Descriptor
	if json.Unmarshal(raw, &old) != nil || old.Annotations[v1.AnnotationRefName] != name {
		return false
	}
	return name != "" || old.Digest == root.Digest
}
