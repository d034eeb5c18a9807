package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/berthoci/berth"
)

// Policy says which classes of manifests a registry takes. A class is what manifest.Document.Class
// returns: the artifact type, else the config's media type, else the manifest's own. The zero value
// takes all.
//
//	server.Policy{Allow: []string{"application/vnd.oci.image.*.v1+json"}}     images, and indexes of them
//	server.Policy{Deny: []string{"application/vnd.docker.plugin.*"}}          no plugins of Docker
//
// The patterns are globs as doublestar has them: * stands for anything but a slash, ** for anything. They
// are compared without case, as media types are. An index is a class of its own: whoever allows images
// and wants those of several platforms allows indexes too. A class is what a manifest's author says, so
// only Allow holds against somebody who wants to get around it.
type Policy struct {
	// Allow are the classes that are taken. None: all.
	Allow []string
	// Deny are the classes that are not taken, even where Allow has them.
	Deny []string
}

// Validate says which pattern does not parse. Of such a one, check refuses what it could be about.
func (p Policy) Validate() error {
	for _, pattern := range slices.Concat(p.Allow, p.Deny) {
		if err := validatePattern(pattern); err != nil {
			return err
		}
	}
	return nil
}

// check returns berth.ErrDenied, and what is taken, for a class that is not.
func (p Policy) check(class string) error {
	broken := func(pattern string) bool { return validatePattern(pattern) != nil }
	switch {
	case matchesClass(p.Deny, class) || slices.ContainsFunc(p.Deny, broken):
		return fmt.Errorf("%w: manifests of class %.200q are not taken here; denied are %s", berth.ErrDenied, class, list(p.Deny))
	case len(p.Allow) > 0 && !matchesClass(p.Allow, class):
		return fmt.Errorf("%w: manifests of class %.200q are not taken here; allowed are %s", berth.ErrDenied, class, list(p.Allow))
	}
	return nil
}

// maxPattern bounds a pattern, in bytes.
const maxPattern = 512

func validatePattern(pattern string) error {
	if pattern == "" || len(pattern) > maxPattern || !doublestar.ValidatePattern(pattern) {
		return fmt.Errorf("%.100q is no pattern: want one like 'app/**' or 'application/vnd.oci.*'", pattern)
	}
	return nil
}

func matchesClass(patterns []string, class string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(strings.ToLower(p), strings.ToLower(class)) })
}

// matchesAny reports whether a name is one of those that patterns stand for.
func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}

// matches takes a pattern that does not parse for one that stands for nothing.
func matches(pattern, name string) bool {
	ok, err := doublestar.Match(pattern, name)
	return ok && err == nil
}

// maxListed bounds the patterns that an error lists.
const maxListed = 8

// list writes patterns for people.
func list(patterns []string) string {
	if len(patterns) > maxListed {
		return strings.Join(patterns[:maxListed], ", ") + " and more"
	}
	return strings.Join(patterns, ", ")
}
