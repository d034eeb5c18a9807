package berth

// Usage is how much a registry holds.
type Usage struct {
	Repositories int `json:"repositories"`
	Tags         int `json:"tags"`
	Manifests    int `json:"manifests"`
	// Blobs counts the files, those of manifests included, and Bytes is their size on disk together.
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}
