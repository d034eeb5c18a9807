package server

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// describe sets the headers that every answer about content has, by their canonical names.
func (c *call) describe(desc v1.Descriptor) {
	header := c.w.Header()
	values := [...]string{string(desc.Digest), `"` + string(desc.Digest) + `"`, desc.MediaType}
	header["Docker-Content-Digest"] = values[0:1:1]
	header["Etag"] = values[1:2:2]
	header["Content-Type"] = values[2:3:3]
}

func (c *call) blobHead() error {
	desc, err := c.repo.StatBlob(c.r.Context(), c.req.Digest)
	if err != nil {
		return err
	}
	c.describe(desc)
	if c.notModified(desc) {
		return nil
	}
	c.w.Header().Set("Accept-Ranges", "bytes")
	c.w.Header().Set("Content-Length", strconv.FormatInt(desc.Size, 10))
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// blobGet leaves ranges and conditions to net/http, which also lets the kernel send a file.
func (c *call) blobGet() error {
	blob, err := c.repo.OpenBlob(c.r.Context(), c.req.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	c.describe(blob.Descriptor())
	if ranges := c.r.Header.Get("Range"); ranges != "" && !understood(ranges) {
		c.r.Header.Del("Range")
	}
	http.ServeContent(c.paced(), c.r, "", time.Time{}, blob)
	return nil
}

// maxRanges bounds how many parts of a blob are asked for at once. With more, all of it is sent.
const maxRanges = 64

// byteRanges is what a Range of bytes looks like (RFC 9110, 14.1.2).
var byteRanges = lazily(`^bytes=[ \t,]*(\d+-\d*|-\d+)([ \t]*,[ \t]*(\d+-\d*|-\d+)?)*[ \t]*$`)

// understood reports whether a Range can be answered. One of another unit, and one that does not parse, is as
// if it were not there (RFC 9110, 14.2).
func understood(ranges string) bool {
	return strings.Count(ranges, ",") < maxRanges && byteRanges().MatchString(ranges)
}

func (c *call) blobDelete() error {
	if err := c.repo.DeleteBlob(c.r.Context(), c.req.Digest); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (c *call) uploadStart() error {
	return c.begin(&berth.UploadOptions{Algorithm: c.req.Algorithm})
}

// uploadMount begins an upload where the caller may not pull what would be mounted: as if it were not there.
func (c *call) uploadMount() error {
	opts := &berth.UploadOptions{Algorithm: c.req.Digest.Algorithm(), Mount: c.req.Digest, From: c.req.From}
	if c.opts.Authorizer != nil {
		asked := 0
		opts.MayMount = func(repository string) bool {
			asked++
			return asked <= maxHolders && c.mayPull(repository)
		}
	}
	return c.begin(opts)
}

// maxHolders bounds the repositories with a blob of which it is found out whether one may pull from them, for a
// mount that names none: some blobs are everywhere.
const maxHolders = 64

func (c *call) begin(opts *berth.UploadOptions) error {
	up, err := c.repo.NewUpload(c.r.Context(), opts)
	if isMounted(err) {
		return c.created()
	}
	if err != nil {
		return err
	}
	return c.accept(up)
}

// accept leaves an upload to be continued, and says so when it can be.
func (c *call) accept(up berth.Upload) error {
	c.progress(up)
	if c.opts.MinChunk > 0 {
		c.w.Header().Set("OCI-Chunk-Min-Length", strconv.FormatInt(c.opts.MinChunk, 10))
	}
	if err := up.Close(); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

// uploadWhole takes the blob in the one request that also begins the upload.
func (c *call) uploadWhole() error {
	opts := &berth.UploadOptions{Algorithm: c.req.Digest.Algorithm(), Size: c.r.ContentLength}
	up, err := c.repo.NewUpload(c.r.Context(), opts)
	if err != nil {
		return err
	}
	if err := c.receive(up); err != nil {
		up.Cancel(c.r.Context())
		return err
	}
	return c.commit(up)
}

func (c *call) uploadStatus() error {
	up, err := c.resume()
	if err != nil {
		return err
	}
	defer up.Close()
	c.progress(up)
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) uploadChunk() error { return c.uploadMore((*call).accept) }

func (c *call) uploadFinish() error {
	if c.req.Digest == "" {
		return fmt.Errorf("%w: the digest parameter is missing", berth.ErrDigestInvalid)
	}
	return c.uploadMore((*call).commit)
}

// uploadMore takes the request's body into an upload, and goes on from there.
func (c *call) uploadMore(then func(*call, berth.Upload) error) error {
	up, err := c.resume()
	if err != nil {
		return err
	}
	defer up.Close()
	if err := c.receive(up); err != nil {
		return err
	}
	return then(c, up)
}

func (c *call) uploadCancel() error {
	up, err := c.resume()
	if err != nil {
		return err
	}
	if err := up.Cancel(c.r.Context()); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) resume() (berth.Upload, error) {
	return c.repo.ResumeUpload(c.r.Context(), c.req.UploadID)
}

// receive appends the request's body. What arrived before a failure stays, to be resumed.
func (c *call) receive(up berth.Upload) error {
	length, err := c.follows(up)
	if err == nil {
		err = copyBody(up, c.r.Body, length)
	}
	if err != nil {
		c.progress(up)
	}
	return err
}

// follows checks that a chunk begins where the upload ends, and returns the length that it says it has,
// or -1 where it says nothing.
func (c *call) follows(up berth.Upload) (int64, error) {
	text := c.r.Header.Get("Content-Range")
	if text == "" {
		return -1, nil
	}
	first, last, err := ocirequest.ParseChunkRange(text)
	if err != nil {
		return 0, err
	}
	if first != up.Size() {
		return 0, fmt.Errorf("chunk begins at %d, the upload has %d bytes: %w", first, up.Size(), berth.ErrRangeInvalid)
	}
	if length := c.r.ContentLength; length >= 0 && length != last-first+1 {
		return 0, fmt.Errorf("chunk has %d bytes, its range %d: %w", length, last-first+1, berth.ErrSizeInvalid)
	}
	return last - first + 1, nil
}

func (c *call) commit(up berth.Upload) error {
	if _, err := up.Commit(c.r.Context(), c.req.Digest); err != nil {
		return err
	}
	return c.created()
}

// progress tells how far an upload is and where it goes on: as Range, and exactly, because a Range
// cannot tell no byte from one.
func (c *call) progress(up berth.Upload) {
	location := ocirequest.Request{Kind: ocirequest.UploadStatus, Repository: c.req.Repository, UploadID: up.ID()}
	header := c.w.Header()
	header.Set("Location", location.Path())
	header.Set("Docker-Upload-UUID", up.ID())
	header.Set("Range", ocirequest.FormatRange(up.Size()))
	header.Set(ocirequest.HeaderOffset, strconv.FormatInt(up.Size(), 10))
}

// created answers that the blob of the request's digest is there now.
func (c *call) created() error {
	location := ocirequest.Request{Kind: ocirequest.BlobGet, Repository: c.req.Repository, Digest: c.req.Digest}
	header := c.w.Header()
	header.Del("Range")
	header.Del(ocirequest.HeaderOffset)
	header.Set("Location", location.Path())
	header.Set("Docker-Content-Digest", string(c.req.Digest))
	c.w.WriteHeader(http.StatusCreated)
	return nil
}
