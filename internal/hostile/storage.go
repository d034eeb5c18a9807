package hostile

import (
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/internal/ocirequest"
)

// Storage is a host beside a registry, a CDN or a bucket, that has its blobs and takes its uploads from
// who knows the address (rows 12 and 13). It is an [http.Handler], and keeps what it was asked.
type Storage struct {
	journal

	// Challenge is the WWW-Authenticate header of a 401 with which it answers everything (row 12).
	// Zero: it wants nobody's authorisation.
	Challenge string

	registry *Registry
}

// NewStorage returns the storage of a registry, whose options BlobsAt and UploadsAt lead to it.
func NewStorage(registry *Registry) *Storage { return &Storage{registry: registry} }

// ServeHTTP answers /blob/REPOSITORY/DIGEST and /upload/ID.
func (s *Storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.note(r)
	if s.Challenge != "" {
		w.Header().Set("WWW-Authenticate", s.Challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	opts, fault := s.registry.begin(r)
	w, r, over := fault.strike(w, r, s.registry.closing)
	if over {
		return
	}
	opts.BlobsAt = ""
	c := &call{Registry: s.registry, Options: opts, w: w, r: r}
	if id, ok := strings.CutPrefix(r.URL.Path, "/upload/"); ok {
		c.req = s.uploadRequest(r, id)
		c.continueUpload()
		return
	}
	rest, _ := strings.CutPrefix(r.URL.Path, "/blob/")
	slash := max(0, strings.LastIndexByte(rest, '/'))
	c.req = &ocirequest.Request{Kind: ocirequest.BlobGet, Repository: rest[:slash], Digest: digest.Digest(strings.TrimPrefix(rest[slash:], "/"))}
	c.getBlob()
}

func (s *Storage) uploadRequest(r *http.Request, id string) *ocirequest.Request {
	kinds := map[string]ocirequest.Kind{
		http.MethodPatch: ocirequest.UploadChunk, http.MethodPut: ocirequest.UploadFinish, http.MethodDelete: ocirequest.UploadCancel,
	}
	kind, ok := kinds[r.Method]
	if !ok {
		kind = ocirequest.UploadStatus
	}
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	req := &ocirequest.Request{Kind: kind, UploadID: id, Digest: digest.Digest(r.URL.Query().Get("digest"))}
	if u := s.registry.uploads[id]; u != nil {
		req.Repository = u.repo
	}
	return req
}
