package manifest

import (
	"fmt"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// Decision is what a client is served in place of what is stored, or that itself.
type Decision int

// The decisions of Negotiate.
const (
	// AsStored serves what is stored, byte for byte.
	AsStored Decision = iota + 1
	// DefaultChild serves the image for linux/amd64 of a list: see NegotiateChild.
	DefaultChild
	// AsSchema1 serves a schema 1 manifest that is generated of the stored image: see
	// schema1.Generate.
	AsSchema1
)

// String returns "as stored", "default child" or "as schema 1", and "refused" for zero.
func (d Decision) String() string {
	switch d {
	case AsStored:
		return "as stored"
	case DefaultChild:
		return "default child"
	case AsSchema1:
		return "as schema 1"
	}
	return "refused"
}

// Negotiate decides what a GET or HEAD of a manifest is answered with. stored is what the tag or
// digest of the request names; byTag says which of them it is.
//
//	the client                       what is stored         by tag         by digest
//	reads what is stored             anything               as stored      as stored
//	reads schema 1 only              Docker's image         as schema 1    as stored
//	reads schema 1 only              OCI's image            as schema 1    refused
//	does not read what is stored     Docker's list          default child  as stored
//	does not read what is stored     Docker's image         as stored      as stored
//	does not read what is stored     OCI's image, or index  refused        refused
//	does not read what is stored     schema 1               as stored      as stored
//
// A digest names bytes, so nothing else is ever served by digest. What is OCI's is kept from clients
// that do not ask for it, as the reference registry does: programs of Docker's time fail on it, and
// the reason tells their users why. Docker's own formats were served to everybody before there was
// anything else, and still are: RFC 9110 (12.5.1) lets a server disregard the field. An OCI index is
// not replaced by a child of it: who cannot read the index was never promised images of OCI.
//
// Errors: berth.ErrManifestUnknown, with what is stored and what the client reads.
func Negotiate(accept Accept, stored v1.Descriptor, byTag bool) (Decision, error) {
	kind := KindOf(stored.MediaType)
	switch {
	case accept.Takes(stored.MediaType):
		return AsStored, nil
	case byTag && kind == Image && accept.takesOnlySchema1():
		return AsSchema1, nil
	case byTag && stored.MediaType == MediaTypeDockerManifestList:
		return DefaultChild, nil
	case isDockers(stored.MediaType):
		return AsStored, nil
	}
	return 0, refuse(accept, "the manifest", stored)
}

func isDockers(mediaType string) bool {
	return mediaType == MediaTypeDockerManifest || mediaType == MediaTypeDockerManifestList || IsSchema1(mediaType)
}

func refuse(accept Accept, what string, desc v1.Descriptor) error {
	return fmt.Errorf("%w: %s is of type %.100q, the request accepts %v", berth.ErrManifestUnknown, what, desc.MediaType, accept)
}

// NegotiateChild picks the child to serve in place of a list, after Negotiate said DefaultChild: the
// first for linux/amd64, of which the decision then says how to serve it, AsStored or AsSchema1. A
// child that the client does not read either is refused: to replace one manifest that it cannot read
// with another helps nobody.
//
// Errors: berth.ErrManifestUnknown where there is no such child, or the client reads no form of it;
// berth.ErrUnsupported where list is not an Index.
func NegotiateChild(accept Accept, list *Document) (v1.Descriptor, Decision, error) {
	child, err := pick(list, v1.Platform{OS: "linux", Architecture: "amd64"}, exactly)
	if err != nil {
		return v1.Descriptor{}, 0, fmt.Errorf("%w; the list itself is of type %s, the request accepts %v", err, list.MediaType, accept)
	}
	switch {
	case accept.Takes(child.MediaType):
		return child, AsStored, nil
	case KindOf(child.MediaType) == Image && accept.takesOnlySchema1():
		return child, AsSchema1, nil
	}
	return v1.Descriptor{}, 0, refuse(accept, "the list's image for linux/amd64", child)
}
