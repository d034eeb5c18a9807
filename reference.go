package berth

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	// The digest algorithms that names may use.
	_ "crypto/sha256"
	_ "crypto/sha512"
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
	case !isRepository(name):
		return fmt.Errorf("%w: %q: use lower case letters, digits, and . _ - / between them", ErrNameInvalid, name)
	}
	return nil
}

// ValidateTag returns ErrTagInvalid, with the reason, if tag is no tag.
func ValidateTag(tag string) error {
	if !isTag(tag) {
		return fmt.Errorf("%w: %.140q: use up to 128 letters, digits, and . _ - after the first", ErrTagInvalid, tag)
	}
	return nil
}

// ValidateDigest returns ErrDigestInvalid, with the reason, if d is no digest of an algorithm that
// is available here: sha256, sha384 or sha512.
func ValidateDigest(d digest.Digest) error {
	if isSHA256(string(d)) {
		return nil
	}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: %.150q: %w", ErrDigestInvalid, string(d), err)
	}
	return nil
}

// isRepository is the grammar of the distribution specification, section "Pulling manifests", without
// its expressions: every request comes by here. Runs of letters and digits are parted by a slash or by one
// of the separators, which are few enough to look at what has come of the one that is open.
func isRepository(name string) bool {
	begin := 0 // of the separator that is open
	for i := range len(name) {
		switch c := name[i]; {
		case isLowerOrDigit(c):
			if begin < i && !isSeparator(name[begin:i]) {
				return false
			}
			begin = i + 1
		case i == 0 || c != '/' && c != '.' && c != '_' && c != '-':
			return false
		}
	}
	return begin == len(name)
}

func isLowerOrDigit(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isSeparator(s string) bool {
	switch s {
	case "/", ".", "_", "__":
		return true
	}
	return strings.Trim(s, "-") == ""
}

const maxTagLength = 128

func isTag(tag string) bool {
	for i := range len(tag) {
		c := tag[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !word && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return tag != "" && len(tag) <= maxTagLength
}

// isSHA256 knows the digests that nearly all are.
func isSHA256(d string) bool {
	encoded, found := strings.CutPrefix(d, "sha256:")
	if !found || len(encoded) != 64 {
		return false
	}
	for i := range len(encoded) {
		if c := encoded[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
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
