package pin

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// ErrInvalid is every error about what a lock file, or a Pin for it, says.
var ErrInvalid = errors.New("lock file invalid")

// refusal is what is wrong with a value, wherever it came from.
type refusal string

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// Error says what is wrong and what to do.
func (r refusal) Error() string { return string(r) }

// Unwrap makes every refusal an ErrInvalid.
func (r refusal) Unwrap() error { return ErrInvalid }

// Pin is one entry of the lock file.
type Pin struct {
	// Reference in the form that Normalize returns.
	Reference string `json:"reference"`
	// Digest of the index or image manifest.
	Digest digest.Digest `json:"digest"`
	// MediaType of that manifest.
	MediaType string `json:"mediaType"`
	// Size of that manifest in bytes.
	Size int64 `json:"size"`
	// Platforms are the children of an index; nil where there are none.
	Platforms map[string]digest.Digest `json:"platforms,omitempty"`
	// Comment is the user's. May be empty.
	Comment string `json:"comment,omitempty"`
}

// These take a third of a millisecond to compile, which the start of each process would pay for.
var (
	mediaTypePattern = lazily(`^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}$`)
	platformPattern  = lazily(`^[a-zA-Z0-9_.-]{1,64}(\([a-zA-Z0-9_.+ -]{1,64}\))?(/[a-zA-Z0-9_.-]{1,64}){1,2}$`)
)

func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

func (p Pin) equal(q Pin) bool {
	return p.Reference == q.Reference && p.Digest == q.Digest && p.MediaType == q.MediaType &&
		p.Size == q.Size && p.Comment == q.Comment && maps.Equal(p.Platforms, q.Platforms)
}

func (p Pin) clone() Pin {
	p.Platforms = maps.Clone(p.Platforms)
	return p
}

// validate checks all but the reference, and returns the first error.
func (p Pin) validate() error {
	errs := []error{checkDigest(string(p.Digest)), checkMediaType(p.MediaType), checkSize(p.Size), p.checkKind()}
	for _, platform := range slices.Sorted(maps.Keys(p.Platforms)) {
		errs = append(errs, checkPlatform(platform), checkDigest(string(p.Platforms[platform])))
	}
	if !utf8.ValidString(p.Comment) {
		errs = append(errs, refuse("comment %.40q is not UTF-8: write it as UTF-8", p.Comment))
	}
	return firstError(errs...)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (p Pin) checkKind() error {
	if len(p.Platforms) > 0 && manifest.KindOf(p.MediaType) != manifest.Index {
		return refuse("only an index has platforms, and media type %.100q is none: remove the platforms", p.MediaType)
	}
	return nil
}

func checkDigest(s string) error {
	if err := berth.ValidateDigest(digest.Digest(s)); err != nil {
		return refuse("%.150q is no digest: write algorithm and hash in full, as in \"sha256:<64 hex digits>\"", s)
	}
	return nil
}

func checkMediaType(s string) error {
	if !mediaTypePattern().MatchString(s) {
		return refuse("%.100q is no media type: write it as in \"application/vnd.oci.image.index.v1+json\"", s)
	}
	return nil
}

func checkSize(n int64) error {
	if n < 1 || n > berth.MaxManifestSize {
		return refuse("%d is no size of a manifest: write its bytes, 1 to %d", n, berth.MaxManifestSize)
	}
	return nil
}

// parseSize takes the one spelling that a size is written in, so that a file has one form.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s {
		return 0, refuse("%.40q is no size: write the manifest's bytes in decimal digits", s)
	}
	return n, checkSize(n)
}

func checkPlatform(s string) error {
	if !platformPattern().MatchString(s) {
		return refuse("%.100q is no platform: write os/arch or os/arch/variant, as in \"linux/arm64/v8\"", s)
	}
	return nil
}
