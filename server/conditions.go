package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// maxRaces bounds how often a request looks again where a tag points, after it lost a race for it.
const maxRaces = 16

// notModified answers 304 if the client has the content already. Some clients leave out the quotes
// that RFC 9110, 8.8.3 asks for.
func (c *call) notModified(desc v1.Descriptor) bool {
	for _, tag := range entityTags(c.r.Header["If-None-Match"]) {
		if tag = strings.TrimPrefix(tag, "W/"); tag == "*" || unquote(tag) == string(desc.Digest) {
			c.w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// entityTags splits a field of entity tags, none of which here holds a comma.
func entityTags(values []string) (tags []string) {
	for _, value := range values {
		for tag := range strings.SplitSeq(value, ",") {
			if tag = strings.TrimSpace(tag); tag != "" {
				tags = append(tags, tag)
			}
		}
	}
	return tags
}

func unquote(tag string) string { return strings.Trim(tag, `"`) }

// conditions are those under which a request may change something (RFC 9110, 13.1.1 and 13.1.2).
type conditions struct {
	match     []string // nil: no condition
	noneMatch []string
}

func (c *call) conditions() conditions {
	return conditions{entityTags(c.r.Header.Values("If-Match")), entityTags(c.r.Header.Values("If-None-Match"))}
}

func (c conditions) none() bool { return c.match == nil && c.noneMatch == nil }

// hold reports whether the conditions hold for what is there now, or for nothing: "". A weak tag never
// matches, for If-Match compares strongly.
func (c conditions) hold(now digest.Digest) bool {
	is := func(tag string) bool { return now != "" && (tag == "*" || unquote(tag) == string(now)) }
	return (c.match == nil || slices.ContainsFunc(c.match, is)) && !slices.ContainsFunc(c.noneMatch, is)
}

// push stores a manifest under the request's conditions. What they say of a tag is settled by a look at
// it; that the tag has not moved since is settled by the registry.
func (c *call) push(raw []byte, opts *berth.PushOptions) (v1.Descriptor, error) {
	if cond := c.conditions(); !cond.none() {
		return c.pushIf(cond, raw, opts)
	}
	return c.repo.PushManifest(c.r.Context(), raw, opts)
}

func (c *call) pushIf(cond conditions, raw []byte, opts *berth.PushOptions) (desc v1.Descriptor, err error) {
	for range maxRaces {
		now, err := c.current(opts)
		if err != nil {
			return desc, err
		}
		if !cond.hold(now) {
			return desc, c.precondition(now)
		}
		opts.IfMatch, opts.IfNoneMatch = now, now == ""
		desc, err = c.repo.PushManifest(c.r.Context(), raw, opts)
		if !errors.Is(err, berth.ErrPreconditionFailed) {
			return desc, err
		}
	}
	return desc, fmt.Errorf("%s: %w: it moved at each of %d attempts", c.req.Reference, berth.ErrPreconditionFailed, maxRaces)
}

func (c *call) precondition(now digest.Digest) error {
	return fmt.Errorf("%s: %w: it is %q", c.req.Reference, berth.ErrPreconditionFailed, now)
}

// current is what the tags of a push point at now, which must be the same for all of them, or else the
// manifest that the request names by its digest.
func (c *call) current(opts *berth.PushOptions) (now digest.Digest, err error) {
	if len(opts.Tags) == 0 {
		return c.pointsAt(string(opts.Digest))
	}
	for i, tag := range opts.Tags {
		at, err := c.pointsAt(tag)
		if err != nil {
			return "", err
		}
		if i > 0 && at != now {
			return "", fmt.Errorf("%s: %w: the tags do not all point at the same manifest", tag, berth.ErrPreconditionFailed)
		}
		now = at
	}
	return now, nil
}

// pointsAt returns what a reference names, or "" where it names nothing.
func (c *call) pointsAt(ref string) (digest.Digest, error) {
	desc, err := c.repo.Resolve(c.r.Context(), ref)
	if errors.Is(err, berth.ErrManifestUnknown) {
		return "", nil
	}
	return desc.Digest, err
}

// untag removes the request's tag under its conditions.
func (c *call) untag() error {
	cond, ref := c.conditions(), c.req.Reference
	if cond.none() {
		return c.repo.Untag(c.r.Context(), ref, nil)
	}
	for range maxRaces {
		desc, err := c.repo.Resolve(c.r.Context(), ref)
		if err != nil {
			return err
		}
		if !cond.hold(desc.Digest) {
			return c.precondition(desc.Digest)
		}
		err = c.repo.Untag(c.r.Context(), ref, &berth.UntagOptions{IfMatch: desc.Digest})
		if !errors.Is(err, berth.ErrPreconditionFailed) {
			return err
		}
	}
	return c.precondition("")
}

// deleteManifest removes a manifest. A digest names it or nothing, so conditions hold or do not.
func (c *call) deleteManifest(d digest.Digest) error {
	if !c.conditions().hold(d) {
		return c.precondition(d)
	}
	return c.repo.DeleteManifest(c.r.Context(), d)
}
