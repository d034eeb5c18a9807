package hostile

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/internal/ocirequest"
)

func (c *call) getBlob() {
	content := c.Blob(c.req.Repository, c.req.Digest)
	switch {
	case content == nil:
		c.refuse(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown")
	case c.BlobsAt != "" && c.r.Method == http.MethodGet:
		http.Redirect(c.w, c.r, c.BlobsAt+"/blob/"+c.req.Repository+"/"+string(c.req.Digest), http.StatusTemporaryRedirect)
	default:
		c.w.Header().Set("Content-Type", "application/octet-stream")
		c.w.Header().Set("Docker-Content-Digest", string(c.req.Digest))
		http.ServeContent(c.w, c.r, "", time.Time{}, bytes.NewReader(content))
	}
}

func (c *call) deleteBlob() {
	if c.Blob(c.req.Repository, c.req.Digest) == nil {
		c.refuse(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown")
		return
	}
	c.mu.Lock()
	delete(c.repository(c.req.Repository).blobs, c.req.Digest)
	c.mu.Unlock()
	c.w.WriteHeader(http.StatusAccepted)
}

// upload is one that has begun.
type upload struct {
	id, repo string

	// What follows is guarded by the registry's mutex.
	content []byte
	begin   int // of what the present request brings
	chunks  int
	short   bool // a chunk was shorter than it may be, unless it is the last
	state   int  // how often its address was told
}

func (c *call) beginUpload() {
	if c.req.Kind == ocirequest.UploadMount && c.mount() {
		return
	}
	if c.req.Kind == ocirequest.UploadWhole {
		content, _ := io.ReadAll(c.r.Body)
		c.store(content, c.req.Digest)
		return
	}
	u := &upload{id: rand.Text(), repo: c.req.Repository}
	c.mu.Lock()
	c.uploads[u.id] = u
	c.mu.Unlock()
	c.tell(u)
	c.w.WriteHeader(http.StatusAccepted)
}

// mount reports whether the mount was answered; else an upload is begun in its place.
func (c *call) mount() bool {
	if c.RefuseMounts != 0 {
		if c.RefuseMounts == http.StatusUnauthorized && (c.Tokens != nil || c.Users != nil) {
			c.challenge("insufficient_scope")
		}
		c.refuse(c.RefuseMounts, "UNSUPPORTED", "no mounts here")
		return true
	}
	c.mu.Lock()
	found := false
	for name, source := range c.repositories {
		if content, has := source.blobs[c.req.Digest]; has && (c.req.From == "" || c.req.From == name) {
			c.repository(c.req.Repository).blobs[c.req.Digest] = content
			found = true
			break
		}
	}
	c.mu.Unlock()
	if found {
		c.created("/blobs/" + string(c.req.Digest))
	}
	return found
}

func (c *call) created(below string) {
	c.w.Header().Set("Location", "/v2/"+c.req.Repository+below)
	c.w.Header().Set("Docker-Content-Digest", below[strings.LastIndexByte(below, '/')+1:])
	c.w.WriteHeader(http.StatusCreated)
}

// tell says where an upload goes on and how far it is.
func (c *call) tell(u *upload) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u.state++
	h := c.w.Header()
	h.Set("Location", c.location(u))
	h.Set("Range", ocirequest.FormatRange(int64(len(u.content))))
	h.Set("Docker-Upload-UUID", u.id)
	if c.MinChunk > 0 {
		h.Set("OCI-Chunk-Min-Length", strconv.Itoa(c.MinChunk))
	}
}

func (c *call) location(u *upload) string {
	at := "/v2/" + u.repo + "/blobs/uploads/" + u.id
	switch {
	case c.UploadsAt != "":
		at = c.UploadsAt + "/upload/" + u.id
	case c.Absolute && c.r.TLS != nil:
		at = "https://" + c.r.Host + at
	case c.Absolute:
		at = "http://" + c.r.Host + at
	}
	if c.UploadQuery != "" {
		at += fmt.Sprintf("?%s&_state=%d", c.UploadQuery, u.state)
	}
	return at
}

func (c *call) continueUpload() {
	c.mu.Lock()
	u := c.uploads[c.req.UploadID]
	c.mu.Unlock()
	switch {
	case u == nil || u.repo != c.req.Repository:
		c.refuse(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
	case !c.queryKept(u):
		c.refuse(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "this is not where the upload goes on")
	case c.req.Kind == ocirequest.UploadChunk:
		c.takeChunk(u)
	case c.req.Kind == ocirequest.UploadFinish:
		c.finishUpload(u)
	case c.req.Kind == ocirequest.UploadCancel:
		c.end(u)
		c.w.WriteHeader(http.StatusNoContent)
	default:
		c.tell(u)
		c.w.WriteHeader(http.StatusNoContent)
	}
}

// queryKept reports whether the query of an upload's address came back as it was, but for the digest.
func (c *call) queryKept(u *upload) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.UploadQuery == "" || strings.Contains(c.r.URL.RawQuery, c.UploadQuery) &&
		c.r.URL.Query().Get("_state") == strconv.Itoa(u.state)
}

func (c *call) end(u *upload) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.uploads, u.id)
}

func (c *call) takeChunk(u *upload) {
	if !c.follows(u) {
		io.Copy(io.Discard, c.r.Body)
		c.tell(u)
		c.refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "chunk out of order")
		return
	}
	half, short := c.takeHalf(&c.options.HalfChunks), c.takeHalf(&c.options.ShortChunks)
	err := c.receive(u, half || short)
	if err == nil && !c.stillAdmitted(u) {
		return
	}
	c.tell(u)
	switch {
	case err != nil:
		return
	case half:
		c.refuse(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "only a half was taken")
	case c.ChunkStatus != 0:
		c.w.WriteHeader(c.ChunkStatus)
	case c.OneChunk:
		c.w.WriteHeader(http.StatusCreated)
	default:
		c.w.WriteHeader(http.StatusAccepted)
	}
}

// follows reports whether a chunk may be taken: it begins where the upload is, and none before it
// was too short.
func (c *call) follows(u *upload) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u.short {
		return false
	}
	text := c.r.Header.Get("Content-Range")
	if text == "" {
		return true
	}
	first, _, err := ocirequest.ParseChunkRange(text)
	return err == nil && first == int64(len(u.content))
}

// takeHalf reports whether this is a chunk that is taken by half, and counts it down.
func (c *call) takeHalf(left *int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *left == 0 || c.r.ContentLength <= 1 {
		return false
	}
	*left--
	return true
}

// stillAdmitted reports whether the token is good after the body has come, too; else the request has been refused.
func (c *call) stillAdmitted(u *upload) bool {
	if !c.TokensAtEnd || c.Tokens == nil || c.admit() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.DropRefused {
		u.content = u.content[:u.begin]
	}
	return false
}

// maxAhead is for how many bytes, at most, room is made before they arrive.
const maxAhead = 64 << 20

// receive keeps what arrives of a body, also where that is not all of it.
func (c *call) receive(u *upload, half bool) error {
	body := io.Reader(c.r.Body)
	if half {
		body = io.LimitReader(body, c.r.ContentLength/2)
	}
	var got int
	buf := make([]byte, 32<<10)
	c.mu.Lock()
	u.begin = len(u.content)
	if size := c.r.ContentLength; size > 0 && size <= maxAhead {
		u.content = slices.Grow(u.content, int(size)) // else it is copied again and again as it grows
	}
	c.mu.Unlock()
	for {
		n, err := body.Read(buf)
		got += n
		c.mu.Lock()
		if !c.OneChunk || u.chunks == 0 {
			u.content = append(u.content, buf[:n]...)
		}
		c.mu.Unlock()
		if err == nil {
			continue
		}
		c.mu.Lock()
		u.chunks++
		u.short = got < c.MinChunk && !half
		c.mu.Unlock()
		io.Copy(io.Discard, c.r.Body)
		if err == io.EOF {
			err = nil
		}
		return err
	}
}

func (c *call) finishUpload(u *upload) {
	if c.r.ContentLength != 0 {
		if err := c.receive(u, false); err != nil || !c.stillAdmitted(u) {
			return
		}
	}
	c.end(u)
	c.mu.Lock()
	content := u.content
	c.mu.Unlock()
	c.store(content, c.req.Digest)
}

// store keeps a blob, if it is what it is said to be.
func (c *call) store(content []byte, d digest.Digest) {
	if d.Algorithm().FromBytes(content) != d {
		c.refuse(http.StatusBadRequest, "DIGEST_INVALID", "what was received is something else")
		return
	}
	c.mu.Lock()
	c.repository(c.req.Repository).blobs[d] = append([]byte{}, content...) // never nil
	c.mu.Unlock()
	c.created("/blobs/" + string(d))
}
