package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

const (
	// maxTagPage bounds a page of tags or repositories; more is found behind a Link.
	maxTagPage = 10_000
	// maxReferrerPage and maxReferrerBytes bound a page of referrers, whose entries carry annotations.
	maxReferrerPage  = 1_000
	maxReferrerBytes = 4 << 20
)

func (c *call) manifestHead() error {
	desc, err := c.repo.Resolve(c.r.Context(), c.req.Reference)
	if err != nil {
		return err
	}
	c.describe(desc)
	if c.notModified(desc) {
		return nil
	}
	c.w.Header().Set("Content-Length", strconv.FormatInt(desc.Size, 10))
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) manifestGet() error {
	if c.r.Header.Get("If-None-Match") != "" {
		desc, err := c.repo.Resolve(c.r.Context(), c.req.Reference)
		if err != nil {
			return err
		}
		c.describe(desc)
		if c.notModified(desc) {
			return nil
		}
	}
	m, err := c.repo.FetchManifest(c.r.Context(), c.req.Reference)
	if err != nil {
		return err
	}
	c.describe(m.Descriptor)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(m.Raw)))
	_, err = c.w.Write(m.Raw)
	return c.quiet(err)
}

// notModified answers 304 if the client has the content already. Some clients leave out the quotes
// that RFC 9110, 8.8.3 asks for.
func (c *call) notModified(desc v1.Descriptor) bool {
	for tag := range strings.SplitSeq(c.r.Header.Get("If-None-Match"), ",") {
		tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
		if tag == "*" || tag == string(desc.Digest) {
			c.w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

func (c *call) manifestPut() error {
	raw, err := readManifest(c.r.Body)
	if err != nil {
		return err
	}
	desc, err := c.repo.PushManifest(c.r.Context(), raw, c.pushOptions())
	if errors.Is(err, berth.ErrUnsupported) {
		return withStatus(http.StatusUnsupportedMediaType, err)
	}
	if err != nil {
		return err
	}
	header := c.w.Header()
	c.describe(desc)
	location := ocirequest.Request{Kind: ocirequest.ManifestGet, Repository: c.req.Repository, Reference: string(desc.Digest)}
	header.Set("Location", location.Path())
	header.Del("Content-Type")
	for _, tag := range c.req.Tags {
		header.Add("OCI-Tag", tag)
	}
	if subject := subjectOf(raw); subject != "" {
		header.Set("OCI-Subject", string(subject))
	}
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

func (c *call) pushOptions() *berth.PushOptions {
	opts := &berth.PushOptions{
		MediaType:    c.r.Header.Get("Content-Type"),
		Tags:         c.req.Tags,
		IfMatch:      digest.Digest(strings.Trim(c.r.Header.Get("If-Match"), `"`)),
		IfNoneMatch:  c.r.Header.Get("If-None-Match") == "*",
		AllowMissing: c.opts.AllowMissing,
	}
	if ocirequest.IsDigest(c.req.Reference) {
		opts.Digest = digest.Digest(c.req.Reference)
	} else {
		opts.Tags = append(slices.Clone(opts.Tags), c.req.Reference)
	}
	return opts
}

func readManifest(body io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(body, berth.MaxManifestSize+1))
	if err != nil {
		return nil, withStatus(http.StatusBadRequest, fmt.Errorf("%w: the body did not arrive whole", berth.ErrManifestInvalid))
	}
	if len(raw) > berth.MaxManifestSize {
		err := fmt.Errorf("%w: a manifest may have at most %d bytes", berth.ErrSizeInvalid, berth.MaxManifestSize)
		return nil, withStatus(http.StatusRequestEntityTooLarge, err)
	}
	return raw, nil
}

// subjectOf reads the subject of a manifest that was accepted.
func subjectOf(raw []byte) digest.Digest {
	var m struct {
		Subject struct {
			Digest digest.Digest `json:"digest"`
		} `json:"subject"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return ""
	}
	return m.Subject.Digest
}

// manifestDelete removes a manifest, or, where the reference is a tag, the tag alone.
func (c *call) manifestDelete() error {
	var err error
	if ocirequest.IsDigest(c.req.Reference) {
		err = c.repo.DeleteManifest(c.r.Context(), digest.Digest(c.req.Reference))
	} else {
		ifMatch := digest.Digest(strings.Trim(c.r.Header.Get("If-Match"), `"`))
		err = c.repo.Untag(c.r.Context(), c.req.Reference, &berth.UntagOptions{IfMatch: ifMatch})
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (c *call) tagList() error {
	tags, err := page(c, names, c.repo.Tags(c.r.Context(), c.req.Last))
	if err != nil {
		return err
	}
	return c.json("application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{c.req.Repository, tags})
}

func (c *call) catalog() error {
	repositories, err := page(c, names, c.registry.Repositories(c.r.Context(), c.req.Last))
	if err != nil {
		return err
	}
	return c.json("application/json", struct {
		Repositories []string `json:"repositories"`
	}{repositories})
}

func (c *call) referrerList() error {
	opts := &berth.ReferrersOptions{ArtifactType: c.req.ArtifactType, After: digest.Digest(c.req.Last)}
	all := c.repo.Referrers(c.r.Context(), c.req.Digest, opts)
	found, err := page(c, referrers, all)
	if err != nil {
		return err
	}
	if c.req.ArtifactType != "" {
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return c.json(v1.MediaTypeImageIndex, v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: found,
	})
}

// paging says how a list is cut into pages.
type paging[T any] struct {
	entries int            // at most
	bytes   int            // at most, unless one entry alone has more
	key     func(T) string // what the next page begins after
	size    func(T) int    // about how many bytes an entry makes
}

var names = paging[string]{
	entries: maxTagPage,
	bytes:   math.MaxInt,
	key:     func(name string) string { return name },
	size:    func(name string) int { return len(name) },
}

var referrers = paging[v1.Descriptor]{
	entries: maxReferrerPage,
	bytes:   maxReferrerBytes,
	key:     func(d v1.Descriptor) string { return string(d.Digest) },
	size: func(d v1.Descriptor) int {
		size := len(d.Digest) + len(d.MediaType) + len(d.ArtifactType)
		for k, v := range d.Annotations {
			size += len(k) + len(v)
		}
		return size
	},
}

// page takes one page of a list, and sets the Link to the next (RFC 8288) if there is one. A page
// size of zero is an empty page without a Link ("Listing Tags").
func page[T any](c *call, p paging[T], all iter.Seq2[T, error]) ([]T, error) {
	limit := p.entries
	if c.req.N != ocirequest.NoLimit {
		limit = min(limit, c.req.N)
	}
	entries, bytes := []T{}, 0
	if limit == 0 {
		return entries, nil
	}
	for entry, err := range all {
		if err != nil {
			return nil, err
		}
		bytes += p.size(entry)
		if n := len(entries); n == limit || (n > 0 && bytes > p.bytes) {
			c.link(p.key(entries[n-1]), limit)
			break
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

func (c *call) link(last string, n int) {
	next := *c.req
	next.Last, next.N = last, n
	c.w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, next.Path(), next.Query().Encode()))
}
