package ocirequest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// ErrNoRoute is the error for a path that the specification does not have.
var ErrNoRoute = errors.New("no such endpoint")

// maxTags bounds the tag parameters of one manifest PUT; the specification asks for at least ten.
const maxTags = 256

// MethodError is the error for a method that a path does not take (status 405).
type MethodError struct {
	Method string
	// Allow lists what the path takes, as the Allow header has it.
	Allow string
}

// Error names the method and what would have been right.
func (e *MethodError) Error() string {
	return fmt.Sprintf("method %.20q is not allowed here, only %s", e.Method, e.Allow)
}

// Parse reads a request. HEAD is taken wherever GET is.
//
// Errors: ErrNoRoute, *MethodError, berth.ErrNameInvalid, berth.ErrTagInvalid,
// berth.ErrDigestInvalid, berth.ErrUnsupported for a parameter that makes no sense.
func Parse(method string, u *url.URL) (*Request, error) {
	rest, ok := strings.CutPrefix(u.Path, "/v2")
	if !ok || (rest != "" && rest[0] != '/') {
		return nil, ErrNoRoute
	}
	match := matchPath(strings.TrimPrefix(rest, "/"))
	if match == nil {
		return nil, ErrNoRoute
	}
	kind, err := pick(match.kinds, method)
	if err != nil {
		return nil, err
	}
	req := &match.request
	req.Kind, req.N = kind, NoLimit
	if err := req.validatePath(); err != nil {
		return nil, err
	}
	if u.RawQuery == "" {
		return req, nil
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("query does not parse: %w", berth.ErrUnsupported)
	}
	return req, req.parseQuery(query)
}

// match is a path that was recognised: the kinds it can be, and what was in it.
type match struct {
	kinds   []Kind
	request Request
}

var (
	pingKinds     = []Kind{Ping}
	catalogKinds  = []Kind{Catalog}
	tagKinds      = []Kind{TagList}
	referrerKinds = []Kind{ReferrerList}
	startKinds    = []Kind{UploadStart}
	uploadKinds   = []Kind{UploadStatus, UploadChunk, UploadFinish, UploadCancel}
	blobKinds     = []Kind{BlobGet, BlobHead, BlobDelete}
	manifestKinds = []Kind{ManifestGet, ManifestHead, ManifestPut, ManifestDelete}
)

// matchPath recognises a path by its end, because a repository's name may hold any word of a route.
func matchPath(path string) *match {
	switch {
	case path == "":
		return &match{kinds: pingKinds}
	case path == "_catalog":
		return &match{kinds: catalogKinds}
	}
	if name, ok := strings.CutSuffix(path, "/tags/list"); ok {
		return &match{tagKinds, Request{Repository: name}}
	}
	if name, ok := strings.CutSuffix(strings.TrimSuffix(path, "/"), "/blobs/uploads"); ok {
		return &match{startKinds, Request{Repository: name}}
	}
	return matchEntry(path)
}

// matchEntry recognises NAME/WORD/ENTRY.
func matchEntry(path string) *match {
	head, last, _ := cutLast(path)
	name, word, ok := cutLast(head)
	if !ok || last == "" {
		return nil
	}
	switch word {
	case "blobs":
		return &match{blobKinds, Request{Repository: name, Digest: digest.Digest(last)}}
	case "manifests":
		return &match{manifestKinds, Request{Repository: name, Reference: last}}
	case "referrers":
		return &match{referrerKinds, Request{Repository: name, Digest: digest.Digest(last)}}
	case "uploads":
		if name, ok := strings.CutSuffix(name, "/blobs"); ok {
			return &match{uploadKinds, Request{Repository: name, UploadID: last}}
		}
	}
	return nil
}

func cutLast(path string) (before, after string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

func pick(kinds []Kind, method string) (Kind, error) {
	for _, kind := range kinds {
		if routes[kind].method == method {
			return kind, nil
		}
	}
	if method == http.MethodHead && routes[kinds[0]].method == http.MethodGet {
		return kinds[0], nil
	}
	return 0, &MethodError{method, allow(kinds)}
}

func allow(kinds []Kind) string {
	var methods []string
	for _, kind := range kinds {
		methods = append(methods, routes[kind].method)
	}
	if methods[0] == http.MethodGet && !slices.Contains(methods, http.MethodHead) {
		methods = append(methods, http.MethodHead)
	}
	return strings.Join(methods, ", ")
}

func (r *Request) validatePath() error {
	if r.Kind == Ping || r.Kind == Catalog {
		return nil
	}
	if err := berth.ValidateRepository(r.Repository); err != nil {
		return err
	}
	switch r.Kind {
	case ManifestGet, ManifestHead, ManifestPut, ManifestDelete:
		return ValidateReference(r.Reference)
	case BlobGet, BlobHead, BlobDelete, ReferrerList:
		return berth.ValidateDigest(r.Digest)
	}
	return nil
}

// ValidateReference checks a tag or a digest; a digest is what has a colon.
func ValidateReference(ref string) error {
	if IsDigest(ref) {
		return berth.ValidateDigest(digest.Digest(ref))
	}
	return berth.ValidateTag(ref)
}

// IsDigest tells the two kinds of manifest reference apart: no tag has a colon, every digest has.
func IsDigest(ref string) bool { return strings.Contains(ref, ":") }

func (r *Request) parseQuery(q url.Values) error {
	switch r.Kind {
	case UploadStart:
		return r.parseStart(q)
	case UploadFinish:
		return r.setDigest(q.Get("digest"))
	case ManifestPut:
		return r.setTags(q["tag"])
	case ReferrerList:
		r.ArtifactType = q.Get("artifactType")
	}
	if r.isList() {
		r.Last = q.Get("last")
		return r.setLimit(q.Get("n"))
	}
	return nil
}

// parseStart settles which of the three uses of POST it is.
func (r *Request) parseStart(q url.Values) error {
	switch {
	case q.Get("mount") != "":
		r.Kind, r.From = UploadMount, q.Get("from")
		if r.From != "" {
			if err := berth.ValidateRepository(r.From); err != nil {
				return fmt.Errorf("mount from: %w", err)
			}
		}
		return r.setDigest(q.Get("mount"))
	case q.Get("digest") != "":
		r.Kind = UploadWhole
		return r.setDigest(q.Get("digest"))
	}
	r.Algorithm = digest.Algorithm(q.Get("digest-algorithm"))
	if r.Algorithm != "" && !r.Algorithm.Available() {
		return fmt.Errorf("digest-algorithm %.40q is not available here: %w", r.Algorithm, berth.ErrDigestInvalid)
	}
	return nil
}

func (r *Request) setDigest(s string) error {
	r.Digest = digest.Digest(s)
	return berth.ValidateDigest(r.Digest)
}

func (r *Request) setTags(tags []string) error {
	if len(tags) > maxTags {
		return fmt.Errorf("%d tags in one request, at most %d are allowed: %w", len(tags), maxTags, berth.ErrTagInvalid)
	}
	for _, tag := range tags {
		if err := berth.ValidateTag(tag); err != nil {
			return err
		}
	}
	r.Tags = tags
	return nil
}

func (r *Request) setLimit(s string) error {
	if s == "" {
		return nil
	}
	n, err := strconv.Atoi(s)
	switch {
	case errors.Is(err, strconv.ErrRange) && s[0] != '-':
		return nil // more than any list has
	case err != nil || n < 0:
		return fmt.Errorf("%w: n=%.40q must be a number from 0", berth.ErrUnsupported, s)
	}
	r.N = n
	return nil
}
