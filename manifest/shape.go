package manifest

import (
	"fmt"
	"strings"
)

// shape says which keys of an object are read here, and the shapes of what they hold. A nil shape
// reads none.
type shape struct{ members []member }

type member struct {
	name  string
	shape *shape
}

// The shapes of manifests and of image configs. They are never changed. Annotations, labels and what
// is not read have none: their keys are their authors' own.
var (
	platformShape   = fields("architecture", "os", "os.version", "os.features", "variant")
	descriptorShape = fields("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType").
			with("platform", platformShape)
	manifestShape = fields("schemaVersion", "mediaType", "artifactType", "annotations", "fsLayers").
			with("config", descriptorShape).with("layers", descriptorShape).
			with("manifests", descriptorShape).with("subject", descriptorShape)
	configShape = fields("created", "author", "architecture", "os", "os.version", "variant", "docker_version").
			with("config", fields("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal")).
			with("history", fields("created_by", "empty_layer"))
)

func fields(names ...string) *shape {
	s := &shape{}
	for _, name := range names {
		s.members = append(s.members, member{name: name})
	}
	return s
}

func (s *shape) with(name string, held *shape) *shape {
	s.members = append(s.members, member{name, held})
	return s
}

// member returns the shape of what a key holds. It refuses a key that differs only in case from one
// that is read: encoding/json among others takes it for that one, and most readers do not.
func (s *shape) member(key string) (*shape, error) {
	if s == nil {
		return nil, nil
	}
	for i := range s.members {
		if s.members[i].name == key {
			return s.members[i].shape, nil
		}
	}
	for i := range s.members {
		if name := s.members[i].name; strings.EqualFold(name, key) {
			return nil, fmt.Errorf("it has the key %.40q, which is %q to some", key, name)
		}
	}
	return nil, nil
}
