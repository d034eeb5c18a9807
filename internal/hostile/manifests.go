package hostile

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/internal/ocirequest"
)

// maxManifest is what a manifest may have, in bytes.
const maxManifest = 4 << 20

// find returns what a tag or a digest leads to. The caller holds the mutex.
func (r *repository) find(ref string) (stored, digest.Digest, bool) {
	d := digest.Digest(ref)
	if !ocirequest.IsDigest(ref) {
		d = r.tags[ref]
	}
	m, ok := r.manifests[d]
	return m, d, ok
}

// remove takes a manifest away, with its tags. The caller holds the mutex.
func (r *repository) remove(d digest.Digest) {
	delete(r.manifests, d)
	maps.DeleteFunc(r.tags, func(_ string, at digest.Digest) bool { return at == d })
}

func (c *call) getManifest() {
	c.mu.Lock()
	m, d, found := c.repository(c.req.Repository).find(c.req.Reference)
	c.mu.Unlock()
	head := c.req.Kind == ocirequest.ManifestHead
	switch {
	case head && c.HeadManifest != 0:
		c.w.WriteHeader(c.HeadManifest)
	case !found && head && c.HeadAbsent != 0:
		c.w.WriteHeader(c.HeadAbsent)
	case !found:
		c.refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	default:
		h := c.w.Header()
		h.Set("Content-Type", m.mediaType)
		h.Set("Content-Length", fmt.Sprint(len(m.raw)))
		h.Set("Docker-Content-Digest", string(d))
		h.Set("ETag", `"`+string(d)+`"`)
		if !head {
			c.w.Write(m.raw)
		}
	}
}

// parts is what a manifest of any kind names.
type parts struct {
	MediaType    string            `json:"mediaType"`
	Config       *v1.Descriptor    `json:"config"`
	Layers       []v1.Descriptor   `json:"layers"`
	Manifests    []v1.Descriptor   `json:"manifests"`
	Subject      *v1.Descriptor    `json:"subject"`
	ArtifactType string            `json:"artifactType"`
	Annotations  map[string]string `json:"annotations"`
}

func (c *call) putManifest() {
	raw, err := io.ReadAll(io.LimitReader(c.r.Body, maxManifest+1))
	var p parts
	if err != nil || len(raw) > maxManifest || json.Unmarshal(raw, &p) != nil {
		c.refuse(http.StatusBadRequest, "MANIFEST_INVALID", "manifest invalid")
		return
	}
	d := digest.FromBytes(raw)
	if ref := digest.Digest(c.req.Reference); ocirequest.IsDigest(c.req.Reference) {
		if d = ref.Algorithm().FromBytes(raw); d != ref {
			c.refuse(http.StatusBadRequest, "DIGEST_INVALID", "the manifest is another one")
			return
		}
	}
	mediaType, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil {
		mediaType = p.MediaType
	}
	if status, code := c.keep(d, stored{mediaType, raw}, p); status != 0 {
		c.refuse(status, code, fmt.Sprintf("%s: refused", d))
		return
	}
	if p.Subject != nil && !c.NoReferrers {
		c.w.Header().Set("OCI-Subject", string(p.Subject.Digest))
	}
	c.created("/manifests/" + string(d))
}

// keep stores a manifest and sets its tag, or says with what it is refused.
func (c *call) keep(d digest.Digest, m stored, p parts) (status int, code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	repo := c.repository(c.req.Repository)
	if !c.conditionsHold(repo) {
		return http.StatusPreconditionFailed, "PRECONDITION_FAILED"
	}
	if !c.Sparse {
		if code := missing(repo, p); code != "" {
			return http.StatusBadRequest, code
		}
	}
	repo.manifests[d] = m
	if !ocirequest.IsDigest(c.req.Reference) {
		repo.tags[c.req.Reference] = d
	}
	return 0, ""
}

// missing is the code for a manifest whose children are not all there; "" if they are.
func missing(repo *repository, p parts) string {
	blobs := p.Layers
	if p.Config != nil {
		blobs = append(slices.Clone(blobs), *p.Config)
	}
	for _, child := range blobs {
		if _, ok := repo.blobs[child.Digest]; !ok && len(child.URLs) == 0 {
			return "MANIFEST_BLOB_UNKNOWN"
		}
	}
	for _, child := range p.Manifests {
		if _, ok := repo.manifests[child.Digest]; !ok {
			return "MANIFEST_BLOB_UNKNOWN"
		}
	}
	return ""
}

// conditionsHold reports whether the reference is as the request wants it to be (RFC 9110, 13.1). The
// caller holds the mutex.
func (c *call) conditionsHold(repo *repository) bool {
	if c.IgnoreConditions {
		return true
	}
	_, now, found := repo.find(c.req.Reference)
	if want := c.r.Header.Get("If-Match"); want != "" && (!found || want != `"`+string(now)+`"`) {
		return false
	}
	return c.r.Header.Get("If-None-Match") != "*" || !found
}

func (c *call) deleteManifest() {
	c.mu.Lock()
	repo := c.repository(c.req.Repository)
	_, d, found := repo.find(c.req.Reference)
	held := c.conditionsHold(repo)
	switch {
	case !found || !held:
	case ocirequest.IsDigest(c.req.Reference):
		repo.remove(d)
	default:
		delete(repo.tags, c.req.Reference)
	}
	c.mu.Unlock()
	switch {
	case !found:
		c.refuse(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	case !held:
		c.refuse(http.StatusPreconditionFailed, "PRECONDITION_FAILED", "it has changed")
	default:
		c.w.WriteHeader(http.StatusAccepted)
	}
}

// referrers returns the index of those who refer to a subject.
func (c *call) referrers() v1.Index {
	c.w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
	c.mu.Lock()
	defer c.mu.Unlock()
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	index.SchemaVersion = 2
	repo := c.repository(c.req.Repository)
	for _, d := range sortedKeys(repo.manifests) {
		desc, subject := describe(d, repo.manifests[d])
		if subject != c.req.Digest || d <= digest.Digest(c.req.Last) {
			continue
		}
		if want := c.req.ArtifactType; want == "" || want == desc.ArtifactType {
			index.Manifests = append(index.Manifests, desc)
		}
	}
	if c.req.ArtifactType != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return index
}

func describe(d digest.Digest, m stored) (desc v1.Descriptor, subject digest.Digest) {
	var p parts
	json.Unmarshal(m.raw, &p) // it has been parsed before
	desc = v1.Descriptor{MediaType: m.mediaType, Digest: d, Size: int64(len(m.raw)), ArtifactType: p.ArtifactType, Annotations: p.Annotations}
	if desc.ArtifactType == "" && p.Config != nil {
		desc.ArtifactType = p.Config.MediaType
	}
	if p.Subject != nil {
		subject = p.Subject.Digest
	}
	return desc, subject
}
