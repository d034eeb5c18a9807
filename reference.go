package berth

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"

	// The digest algorithms that names may use.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// The grammar of the distribution specification, section "Pulling manifests".
var (
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// maxRepositoryLength is what clients commonly allow for host and name together.
const maxRepositoryLength = 255

// ValidateRepository returns ErrNameInvalid, with the reason, if name is no repository name.
func ValidateRepository(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrNameInvalid)
	case len(name) > maxRepositoryLength:
		return fmt.Errorf("%w: %.40q… has %d characters, at most %d are allowed", ErrNameInvalid, name, len(name), maxRepositoryLength)
	case !repositoryPattern.MatchString(name):
		return fmt.Errorf("%w: %q: use lower case letters, digits, and . _ - / between them", ErrNameInvalid, name)
	}
	return nil
}

// ValidateTag returns ErrTagInvalid, with the reason, if tag is no tag.
func ValidateTag(tag string) error {
	if !tagPattern.MatchString(tag) {
		return fmt.Errorf("%w: %.140q: use up to 128 letters, digits, and . _ - after the first", ErrTagInvalid, tag)
	}
	return nil
}

// ValidateDigest returns ErrDigestInvalid, with the reason, if d is no digest of an algorithm that
// is available here: sha256, sha384 or sha512.
func ValidateDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: %.150q: %w", ErrDigestInvalid, string(d), err)
	}
	return nil
}

// Reference names a manifest in a registry: Repository[:Tag][@Digest]. It has no host; where a
// registry is remote, the host is a separate thing.
type Reference struct {
	Repository string
	// Tag may be empty.
	Tag string
	// Digest may be empty; where it is not, it decides, and Tag is only told.
	Digest digest.Digest
}

// ParseReference parses "repository", "repository:tag", "repository@digest" or
// "repository:tag@digest". It adds no default tag.
//
// Errors: ErrNameInvalid, ErrTagInvalid, ErrDigestInvalid.
func ParseReference(s string) (Reference, error) {
	var ref Reference
	rest, dgst, hasDigest := strings.Cut(s, "@")
	name, tag, hasTag := strings.Cut(rest, ":")
	ref = Reference{Repository: name, Tag: tag, Digest: digest.Digest(dgst)}
	if err := ValidateRepository(name); err != nil {
		return Reference{}, fmt.Errorf("reference %q: %w", s, err)
	}
	if hasTag {
		if err := ValidateTag(tag); err != nil {
			return Reference{}, fmt.Errorf("reference %q: %w", s, err)
		}
	}
	if hasDigest {
		if err := ValidateDigest(ref.Digest); err != nil {
			return Reference{}, fmt.Errorf("reference %q: %w", s, err)
		}
	}
	return ref, nil
}

// String returns the reference as ParseReference reads it.
func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// WithDefaultTag returns the reference with the tag "latest" if it has neither tag nor digest.
func (r Reference) WithDefaultTag() Reference {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = "latest"
	}
	return r
}

// Target is what [ManifestStore.Resolve] takes: the digest if there is one, else the tag.
func (r Reference) Target() string {
	if r.Digest != "" {
		return string(r.Digest)
	}
	return r.Tag
}
