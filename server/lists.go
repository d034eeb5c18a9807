package server

import (
	"fmt"
	"iter"
	"math"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

const (
	// maxTagPage bounds a page of tags or repositories; more is found behind a Link.
	maxTagPage = 10_000
	// maxReferrerPage and maxReferrerBytes bound a page of referrers, whose entries carry annotations.
	maxReferrerPage  = 1_000
	maxReferrerBytes = 4 << 20
)

func (c *call) tagList() error {
	return c.json("application/json", func() (any, error) {
		tags, err := page(c, ofNames, c.repo.Tags(c.r.Context(), c.req.Last))
		return struct {
			Name string   `json:"name"`
			Tags []string `json:"tags"`
		}{c.req.Repository, tags}, err
	})
}

func (c *call) catalog() error {
	return c.json("application/json", func() (any, error) {
		repositories, err := page(c, ofNames, c.registry.Repositories(c.r.Context(), c.req.Last))
		return struct {
			Repositories []string `json:"repositories"`
		}{repositories}, err
	})
}

func (c *call) referrerList() error {
	return c.json(v1.MediaTypeImageIndex, func() (any, error) {
		opts := &berth.ReferrersOptions{ArtifactType: c.req.ArtifactType, After: digest.Digest(c.req.Last)}
		found, err := page(c, referrers, c.repo.Referrers(c.r.Context(), c.req.Digest, opts))
		if err == nil && c.req.ArtifactType != "" {
			c.w.Header().Set("OCI-Filters-Applied", "artifactType")
		}
		return v1.Index{
			Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: v1.MediaTypeImageIndex,
			Manifests: found,
		}, err
	})
}

// paging says how a list is cut into pages.
type paging[T any] struct {
	entries int            // at most
	bytes   int            // at most, unless one entry alone has more
	key     func(T) string // what the next page begins after
	size    func(T) int    // about how many bytes an entry makes
}

var ofNames = paging[string]{
	entries: maxTagPage,
	bytes:   math.MaxInt,
	key:     func(name string) string { return name },
	size:    func(name string) int { return len(name) },
}

var referrers = paging[v1.Descriptor]{
	entries: maxReferrerPage,
	bytes:   maxReferrerBytes,
	key:     func(d v1.Descriptor) string { return string(d.Digest) },
	size: func(d v1.Descriptor) int {
		size := len(d.Digest) + len(d.MediaType) + len(d.ArtifactType)
		for k, v := range d.Annotations {
			size += len(k) + len(v)
		}
		return size
	},
}

// page takes one page of a list, and sets the Link to the next (RFC 8288) if there is one. A page
// size of zero is an empty page without a Link ("Listing Tags").
func page[T any](c *call, p paging[T], all iter.Seq2[T, error]) ([]T, error) {
	limit := p.entries
	if c.req.N != ocirequest.NoLimit {
		limit = min(limit, c.req.N)
	}
	entries, bytes := []T{}, 0
	if limit == 0 {
		return entries, nil
	}
	for entry, err := range all {
		if err != nil {
			return nil, err
		}
		bytes += p.size(entry)
		if n := len(entries); n == limit || (n > 0 && bytes > p.bytes) {
			c.link(p.key(entries[n-1]), limit)
			break
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

func (c *call) link(last string, n int) {
	next := *c.req
	next.Last, next.N = last, n
	c.w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, next.Path(), next.Query().Encode()))
}
