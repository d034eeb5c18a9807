package pin

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// maxReferenceLength is more than any registry takes, and less than the 1024 characters that YAML
// allows for a key.
const maxReferenceLength = 1000

// hostPattern is what may stand before the first slash as a host: labels with dots between them, or an IPv6
// address in brackets, and maybe a port. Docker allows no more.
var hostPattern = lazily(`^(?:` + label + `(?:\.` + label + `)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$`)

const label = `[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?`

// Normalize returns the full form of a reference, the key of its pin: repository:tag, with a host
// in front if it had one. As everywhere with images, the part before the first slash is a host if it
// has a dot or a colon in it, or is "localhost". A missing tag becomes "latest"; a host is
// written in lower case; Docker Hub is docker.io, and its short names get their "library/". A
// digest behind a tag is dropped: the pin of "app/hello:v1@sha256:…" is that of "app/hello:v1".
//
// Errors: berth.ErrNameInvalid, berth.ErrTagInvalid, berth.ErrDigestInvalid; ErrInvalid for a digest
// without a tag, which is pinned already.
func Normalize(reference string) (string, error) {
	key, _, err := split(reference)
	return key, err
}

// SplitHost divides a normalised reference into the host, empty for the local layout, and the rest,
// which [berth.ParseReference] reads.
func SplitHost(reference string) (host, rest string) {
	first, rest, found := strings.Cut(reference, "/")
	if found && (strings.ContainsAny(first, ".:") || strings.EqualFold(first, "localhost")) {
		return first, rest
	}
	return "", reference
}

// split returns the key for a reference, and the digest that the reference also has, or none.
func split(reference string) (string, digest.Digest, error) {
	if len(reference) > maxReferenceLength {
		return "", "", fmt.Errorf("reference %.40q…: %w: it has %d characters, at most %d are allowed", reference, berth.ErrNameInvalid, len(reference), maxReferenceLength)
	}
	host, rest := SplitHost(reference)
	ref, err := berth.ParseReference(rest)
	switch {
	case err != nil && host != "":
		return "", "", fmt.Errorf("at host %q: %w", host, err)
	case err != nil:
		return "", "", err
	case ref.Digest != "" && ref.Tag == "":
		return "", "", refuse("reference %q has a digest and no tag, so it is pinned already: name a tag to pin", reference)
	case host != "" && !hostPattern().MatchString(host):
		return "", "", fmt.Errorf("reference %q: %w: %q is no host", reference, berth.ErrNameInvalid, host)
	}
	ref = ref.WithDefaultTag()
	found := ref.Digest
	ref.Digest = ""
	return withHost(strings.ToLower(host), ref), found, nil
}

func withHost(host string, ref berth.Reference) string {
	switch host {
	case "":
		return ref.String()
	case "docker.io", "index.docker.io":
		host = "docker.io"
		if !strings.Contains(ref.Repository, "/") {
			ref.Repository = "library/" + ref.Repository
		}
	}
	return host + "/" + ref.String()
}
