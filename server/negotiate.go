package server

import (
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/manifest"
)

// negotiate returns what the client is served: what is stored, or what can stand in for it.
func (c *call) negotiate(stored v1.Descriptor) (v1.Descriptor, error) {
	values := c.r.Header["Accept"]
	if len(values) == 0 || names(values, stored.MediaType) {
		return stored, nil
	}
	accept := manifest.ParseAccept(values)
	decision, err := manifest.Negotiate(accept, stored, !ocirequest.IsDigest(c.req.Reference))
	if err != nil {
		return stored, err
	}
	if decision == manifest.DefaultChild {
		if stored, decision, err = c.defaultChild(accept, stored); err != nil {
			return stored, err
		}
	}
	if decision == manifest.AsSchema1 {
		return c.asSchema1(stored)
	}
	return stored, nil
}

// names reports whether an Accept field simply names a media type, as nearly all do. No other element
// takes that back, because a client that names a type twice takes it.
func names(values []string, mediaType string) bool {
	for _, value := range values {
		if strings.Contains(value, ";") {
			continue
		}
		for element := range strings.SplitSeq(value, ",") {
			if strings.TrimSpace(element) == mediaType {
				return true
			}
		}
	}
	return false
}

// defaultChild returns the image that a client gets which cannot read the list that it asked for.
func (c *call) defaultChild(accept manifest.Accept, list v1.Descriptor) (v1.Descriptor, manifest.Decision, error) {
	if list.Size > smallBody {
		turn, err := c.work()
		if err != nil {
			return list, 0, err
		}
		defer turn.leave()
	}
	m, err := c.fetch(list)
	if err != nil {
		return list, 0, err
	}
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	if err != nil {
		return list, 0, err
	}
	child, decision, err := manifest.NegotiateChild(accept, doc)
	if err != nil {
		return list, 0, err
	}
	stored, err := c.repo.Resolve(c.r.Context(), string(child.Digest))
	return stored, decision, err
}
