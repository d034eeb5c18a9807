package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/manifest/schema1"
)

// manifestGet answers GET and HEAD: with what is stored, or with what the client can read of it.
func (c *call) manifestGet() error {
	header := c.w.Header()
	header["Vary"] = vary
	stored, err := c.look()
	desc := stored.Descriptor
	if err == nil {
		desc, err = c.negotiate(desc)
	}
	if err != nil {
		return err
	}
	c.describe(desc)
	if c.notModified(desc) {
		return nil
	}
	header["Content-Length"] = []string{strconv.FormatInt(desc.Size, 10)}
	if c.r.Method == http.MethodHead {
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	return c.sendManifest(stored, desc)
}

// few is what is fetched before it is known whether there is room for more.
var few = berth.FetchOptions{MaxSize: smallBody}

// look finds what the request names, with its bytes where they are few and likely to be sent.
func (c *call) look() (m berth.Manifest, err error) {
	if c.r.Method == http.MethodHead || c.r.Header["If-None-Match"] != nil {
		m.Descriptor, err = c.repo.Resolve(c.r.Context(), c.req.Reference)
		return m, err
	}
	return c.repo.FetchManifest(c.r.Context(), c.req.Reference, &few)
}

// sendManifest sends the manifest of a descriptor, which may be the one at hand.
func (c *call) sendManifest(m berth.Manifest, desc v1.Descriptor) error {
	place, err := c.beginAnswer(desc.Size)
	if err != nil {
		return err
	}
	defer place.leave()
	if m.Raw == nil || m.Descriptor.Digest != desc.Digest {
		if m, err = c.fetch(desc); err != nil {
			return err
		}
	}
	if c.opts.Notify != nil {
		c.notify(Event{Kind: Pulled, Descriptor: m.Descriptor, Tags: c.askedTags()})
	}
	c.notePull(m.Descriptor)
	return c.quiet(c.send(m.Raw))
}

// beginAnswer waits for its turn to send something of a size from memory.
func (c *call) beginAnswer(size int64) (*place, error) {
	if size <= smallBody {
		return nil, nil
	}
	return c.limiter.leaving.await(c.r.Context(), &c.client)
}

// fetch returns the manifest of a descriptor, also where the tag that led to it has moved since.
func (c *call) fetch(desc v1.Descriptor) (berth.Manifest, error) {
	return c.repo.FetchManifest(c.r.Context(), string(desc.Digest), nil)
}

// askedTag is the tag that a manifest is asked for by, or empty.
func (c *call) askedTag() string {
	if ocirequest.IsDigest(c.req.Reference) {
		return ""
	}
	return c.req.Reference
}

// askedTags is that tag, if there is one.
func (c *call) askedTags() []string {
	if tag := c.askedTag(); tag != "" {
		return []string{tag}
	}
	return nil
}

// notePull lets the registry's watchers know before any byte is sent: what a client has got was told.
func (c *call) notePull(desc v1.Descriptor) {
	if c.pulls == nil {
		return
	}
	if err := c.pulls.Pulled(c.r.Context(), c.req.Repository, desc, c.askedTag()); err != nil {
		c.opts.Logger.Warn("a pull is not among the events", "repository", c.req.Repository, "reference", c.req.Reference, "err", err)
	}
}

func (c *call) manifestPut() error {
	raw, place, err := c.readManifest()
	if err != nil {
		return err
	}
	defer place.leave()
	if len(raw) > smallBody {
		turn, err := c.work()
		if err != nil {
			return err
		}
		defer turn.leave()
	}
	return c.takeManifest(raw)
}

// takeManifest stores a manifest and answers.
func (c *call) takeManifest(raw []byte) error {
	opts := c.pushOptions()
	entry, err := c.admit(raw, opts)
	if err != nil {
		return err
	}
	desc, err := c.push(raw, opts)
	if err != nil {
		return refusedType(err, opts.MediaType, raw)
	}
	c.pushed(desc, raw)
	if entry != nil {
		c.notify(Event{Kind: Pushed, Descriptor: desc, Tags: opts.Tags, Blobs: blobsOf(entry)})
	}
	return nil
}

// refusedType gives its status to a media type that is not taken, which is not the same as a registry that
// takes no manifests.
func refusedType(err error, mediaType string, raw []byte) error {
	if !errors.Is(err, berth.ErrUnsupported) {
		return err
	}
	if _, known := schema1.Open(mediaType, raw); errors.Is(known, berth.ErrUnsupported) {
		return withStatus(http.StatusUnsupportedMediaType, err)
	}
	return err
}

// admit reads a manifest before it is stored, where it matters what it is.
func (c *call) admit(raw []byte, opts *berth.PushOptions) (*schema1.Entry, error) {
	if c.opts.Notify == nil && !c.judgesClasses() {
		return nil, nil
	}
	entry, err := schema1.Open(opts.MediaType, raw)
	if err != nil {
		return nil, refusedType(err, opts.MediaType, raw)
	}
	return entry, c.checkClass(entry.Class())
}

// pushed answers that a manifest is stored, by its digest and with its tags.
func (c *call) pushed(desc v1.Descriptor, raw []byte) {
	c.describe(desc)
	location := ocirequest.Request{Kind: ocirequest.ManifestGet, Repository: c.req.Repository, Reference: string(desc.Digest)}
	header := c.w.Header()
	header.Set("Location", location.Path())
	header.Del("Content-Type")
	for _, tag := range c.req.Tags {
		header.Add("OCI-Tag", tag)
	}
	if subject := subjectOf(raw); subject != "" {
		header.Set("OCI-Subject", string(subject))
	}
	c.w.WriteHeader(http.StatusCreated)
}

func (c *call) pushOptions() *berth.PushOptions {
	opts := &berth.PushOptions{
		MediaType:    c.r.Header.Get("Content-Type"),
		Tags:         c.req.Tags,
		AllowMissing: c.opts.AllowMissing,
	}
	if ocirequest.IsDigest(c.req.Reference) {
		opts.Digest = digest.Digest(c.req.Reference)
	} else {
		opts.Tags = append(slices.Clone(opts.Tags), c.req.Reference)
	}
	return opts
}

// readManifest reads the body. One that is known to be too large is refused before any of it is read, and one
// that is large has to wait for its turn when the beginning of it has arrived: so a client that sends
// nothing takes no place.
func (c *call) readManifest() (raw []byte, taken *place, err error) {
	if c.r.ContentLength > berth.MaxManifestSize {
		return nil, nil, tooLarge()
	}
	raw, err = io.ReadAll(io.LimitReader(c.r.Body, smallBody+1))
	if err == nil && len(raw) > smallBody {
		if taken, err = c.limiter.arriving.await(c.r.Context(), &c.client); err != nil {
			return nil, nil, err
		}
		raw, err = c.readLarge(raw)
	}
	switch {
	case err != nil:
		err = withStatus(http.StatusBadRequest, fmt.Errorf("%w: the body did not arrive whole", berth.ErrManifestInvalid))
	case len(raw) > berth.MaxManifestSize:
		err = tooLarge()
	default:
		return raw, taken, nil
	}
	taken.leave()
	return nil, nil, err
}

// readLarge reads the rest of a body, with one byte more than a manifest may have.
func (c *call) readLarge(begun []byte) ([]byte, error) {
	body := bytes.NewBuffer(make([]byte, 0, max(c.r.ContentLength+bytes.MinRead, 2*smallBody)))
	body.Write(begun)
	_, err := body.ReadFrom(io.LimitReader(c.r.Body, int64(berth.MaxManifestSize+1-len(begun))))
	return body.Bytes(), err
}

func tooLarge() error {
	err := fmt.Errorf("%w: a manifest may have at most %d bytes", berth.ErrSizeInvalid, berth.MaxManifestSize)
	return withStatus(http.StatusRequestEntityTooLarge, err)
}

// subjectOf reads the subject of a manifest that was accepted. Most have none, and are not parsed again.
func subjectOf(raw []byte) digest.Digest {
	if !bytes.Contains(raw, []byte("subject")) && !bytes.Contains(raw, []byte(`\u`)) {
		return ""
	}
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
	event := Event{Kind: Deleted, Tags: c.askedTags()}
	var err error
	if event.Tags == nil {
		event.Descriptor.Digest = digest.Digest(c.req.Reference)
		err = c.deleteManifest(event.Descriptor.Digest)
	} else {
		err = c.untag()
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	c.notify(event)
	return nil
}
