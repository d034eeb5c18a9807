package manifest

import (
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Report is what an image is, in whatever format it came. Encoded as JSON it is what tools read: a
// member keeps its name and meaning, new ones may come, and what is not known is left out.
type Report struct {
	// Name of the repository, without a host.
	Name string `json:"name,omitempty"`
	// Tag that the image was asked for by, or that a schema 1 manifest has.
	Tag string `json:"tag,omitempty"`
	// RepoTags are all tags of the repository.
	RepoTags []string `json:"repoTags,omitempty"`

	// Digest of the manifest; of a schema 1 manifest, of its payload.
	Digest digest.Digest `json:"digest"`
	// MediaType of the manifest.
	MediaType string `json:"mediaType"`
	// IndexDigest is that of the index that the manifest was found in.
	IndexDigest digest.Digest `json:"indexDigest,omitempty"`
	// ArtifactType is what the manifest says of itself, or else, where the config is no image's, the
	// config's media type.
	ArtifactType string `json:"artifactType,omitempty"`
	// Subject is the manifest that this one refers to.
	Subject *v1.Descriptor `json:"subject,omitempty"`
	// Annotations of the manifest.
	Annotations map[string]string `json:"annotations,omitempty"`

	// Created is when the image was made. A date that is not of RFC 3339 is left out.
	Created       *time.Time `json:"created,omitempty"`
	Author        string     `json:"author,omitempty"`
	Architecture  string     `json:"architecture,omitempty"`
	OS            string     `json:"os,omitempty"`
	OSVersion     string     `json:"osVersion,omitempty"`
	Variant       string     `json:"variant,omitempty"`
	DockerVersion string     `json:"dockerVersion,omitempty"`

	// Labels of the config, and what a container of the image starts with.
	Labels     map[string]string `json:"labels,omitempty"`
	Env        []string          `json:"env,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	User       string            `json:"user,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
	StopSignal string            `json:"stopSignal,omitempty"`
	// ExposedPorts and Volumes are in byte order.
	ExposedPorts []string `json:"exposedPorts,omitempty"`
	Volumes      []string `json:"volumes,omitempty"`

	// Layers of an image, base first, or what an artifact has in their place.
	Layers []ReportedLayer `json:"layers,omitempty"`
	// TotalSize is how many bytes a pull transfers after the manifest: the config and the layers, each
	// digest once. Schema 1 says no sizes.
	TotalSize int64 `json:"totalSize,omitempty"`
	// Manifests of an index of which no platform was selected.
	Manifests []ReportedManifest `json:"manifests,omitempty"`
}

// ReportedLayer is one layer of a Report.
type ReportedLayer struct {
	Digest digest.Digest `json:"digest"`
	// Size in bytes, as it is stored.
	Size      int64  `json:"size,omitempty"`
	MediaType string `json:"mediaType,omitempty"`
	// Command is what made the layer. It is known if the config's history has as many entries that
	// are not marked as empty as the manifest has layers.
	Command string `json:"command,omitempty"`
}

// ReportedManifest is one child of an index.
type ReportedManifest struct {
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size,omitempty"`
	MediaType string        `json:"mediaType,omitempty"`
	// Platform is as ParsePlatform reads it, or empty.
	Platform     string `json:"platform,omitempty"`
	ArtifactType string `json:"artifactType,omitempty"`
}

// readManifest fills in what the manifest says.
func (r *Report) readManifest(doc *Document) {
	r.MediaType, r.Subject, r.Annotations = doc.MediaType, doc.Subject, doc.Annotations
	if doc.ArtifactType != "" || !doc.HasImageConfig() {
		r.ArtifactType = doc.ReferrerType()
	}
	for _, layer := range doc.Layers {
		r.Layers = append(r.Layers, ReportedLayer{Digest: layer.Digest, Size: layer.Size, MediaType: layer.MediaType})
	}
	if doc.Kind == Image {
		r.TotalSize = totalSize(doc.Successors())
	}
	for i := range doc.Manifests {
		r.Manifests = append(r.Manifests, reportManifest(&doc.Manifests[i]))
	}
}

// totalSize adds up. 10 000 sizes of the largest allowed would overflow, and are no real ones.
func totalSize(blobs []v1.Descriptor) int64 {
	var total int64
	seen := make(map[digest.Digest]bool, len(blobs))
	for _, blob := range blobs {
		if !seen[blob.Digest] {
			total = min(total+blob.Size, 1<<62)
		}
		seen[blob.Digest] = true
	}
	return total
}

func reportManifest(child *v1.Descriptor) ReportedManifest {
	m := ReportedManifest{Digest: child.Digest, Size: child.Size, MediaType: child.MediaType, ArtifactType: child.ArtifactType}
	if child.Platform != nil && child.Platform.OS != "" {
		m.Platform = formatPlatform(child.Platform)
	}
	return m
}
