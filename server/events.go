package server

import (
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest/schema1"
)

// EventKind is what happened.
type EventKind int

// The kinds of event.
const (
	Pushed  EventKind = iota + 1 // a manifest was stored, or stored again
	Pulled                       // a manifest is about to be sent
	Deleted                      // a manifest, or a tag, was removed
)

// Event is what a client did to a manifest, after it was done; of one that is pulled, before any of its bytes
// are sent: so no client has bytes whose event a crash has kept from being told.
type Event struct {
	Kind       EventKind
	Repository string
	// Descriptor of the manifest; empty where a tag was deleted, and the digest alone where a manifest
	// was.
	Descriptor v1.Descriptor
	// Tags that now point at the manifest, that it was asked for by, or that were deleted. May be empty.
	Tags []string
	// Blobs that a pushed manifest names, its config among them, each once: what has to be there
	// wherever the manifest is brought to. A manifest that another one lists is not among them.
	Blobs []digest.Digest
}

func (c *call) notify(e Event) {
	if c.opts.Notify == nil {
		return
	}
	e.Repository = c.req.Repository
	c.opts.Notify(e)
}

// blobsOf lists the blobs of a manifest.
func blobsOf(e *schema1.Entry) (blobs []digest.Digest) {
	seen := map[digest.Digest]bool{}
	for _, desc := range e.Successors() {
		if !seen[desc.Digest] && len(e.Manifests) == 0 {
			blobs = append(blobs, desc.Digest)
		}
		seen[desc.Digest] = true
	}
	return blobs
}
