package server

import (
	"strings"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/manifest"
)

// negotiate returns what the client is served: what is stored, or what can stand in for it.
func (c *call) negotiate(m berth.Manifest) (berth.Manifest, error) {
	values := c.r.Header.Values("Accept")
	if len(values) == 0 || names(values, m.Descriptor.MediaType) {
		return m, nil
	}
	accept := manifest.ParseAccept(values)
	decision, err := manifest.Negotiate(accept, m.Descriptor, !ocirequest.IsDigest(c.req.Reference))
	if err != nil {
		return m, err
	}
	if decision == manifest.DefaultChild {
		if m, decision, err = c.defaultChild(accept, m); err != nil {
			return m, err
		}
	}
	if decision == manifest.AsSchema1 {
		return c.asSchema1(m)
	}
	return m, nil
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
func (c *call) defaultChild(accept manifest.Accept, list berth.Manifest) (berth.Manifest, manifest.Decision, error) {
	if list.Descriptor.Size > smallBody {
		end, err := c.work()
		if err != nil {
			return list, 0, err
		}
		defer end()
	}
	list, err := c.whole(list)
	if err != nil {
		return list, 0, err
	}
	doc, err := manifest.Parse(list.Descriptor.MediaType, list.Raw)
	if err != nil {
		return list, 0, err
	}
	child, decision, err := manifest.NegotiateChild(accept, doc)
	if err != nil {
		return list, 0, err
	}
	m, err := c.stored(string(child.Digest))
	return m, decision, err
}
