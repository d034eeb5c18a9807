package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// NewUpload begins an upload, or mounts a blob.
func (r *Repository) NewUpload(ctx context.Context, opts *berth.UploadOptions) (berth.Upload, error) {
	if opts == nil {
		opts = &berth.UploadOptions{}
	}
	if opts.Mount != "" && mayMount(opts) {
		up, err := r.mount(ctx, opts)
		if err != nil || up != nil {
			return orNil(up), err
		}
	}
	up, err := r.begin(ctx, opts)
	return orNil(up), err
}

// mayMount reports whether the caller's word allows a mount. What a registry mounts from where none is
// named cannot be told in advance.
func mayMount(opts *berth.UploadOptions) bool {
	return opts.MayMount == nil || opts.From != "" && opts.MayMount(opts.From)
}

// orNil keeps a nil *upload from becoming an interface that is not nil.
func orNil(up *upload) berth.Upload {
	if up == nil {
		return nil
	}
	return up
}

// mount asks for a blob of another repository. A registry that will not may answer with an upload,
// which is used, or with a refusal, which is not the end: nil and no error.
func (r *Repository) mount(ctx context.Context, opts *berth.UploadOptions) (*upload, error) {
	e := exchange{
		request: ocirequest.Request{Kind: ocirequest.UploadMount, Digest: opts.Mount, From: opts.From},
		accept:  []int{http.StatusCreated, http.StatusAccepted},
	}
	if opts.From != "" {
		e.scopes = []auth.Scope{auth.Repository(opts.From, "pull")}
	}
	resp, err := r.send(ctx, e)
	if refusesMount(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer drop(resp)
	if resp.StatusCode == http.StatusCreated {
		return nil, berth.ErrMounted
	}
	return r.newUpload(ctx, resp)
}

// refusesMount reports whether a blob that cannot be mounted may be uploaded: the registry has refused, or its token server the
// right to pull from the other repository.
func refusesMount(err error) bool {
	status := 0
	var refused *Error
	var denied *auth.Error
	switch {
	case errors.As(err, &refused):
		status = refused.Status
	case errors.As(err, &denied):
		status = denied.Status
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return true
	}
	return false
}

func (r *Repository) begin(ctx context.Context, opts *berth.UploadOptions) (*upload, error) {
	req := ocirequest.Request{Kind: ocirequest.UploadStart}
	if opts.Algorithm != digest.SHA256 {
		req.Algorithm = opts.Algorithm
	}
	resp, err := r.send(ctx, exchange{request: req, accept: []int{http.StatusAccepted}})
	if err != nil {
		return nil, err
	}
	defer drop(resp)
	return r.newUpload(ctx, resp)
}

// ResumeUpload asks the registry how far an upload is.
func (r *Repository) ResumeUpload(ctx context.Context, id string) (berth.Upload, error) {
	location, err := r.registry.base.Parse(r.uploadAddress(id))
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", r.registry.host, r.name, berth.ErrUploadUnknown) // without the ID, which may be signed
	}
	resp, err := r.send(ctx, exchange{request: ocirequest.Request{Kind: ocirequest.UploadStatus}, location: location})
	if err != nil {
		return nil, err
	}
	defer drop(resp)
	up, err := r.newUpload(ctx, resp)
	up.resumed = true
	return orNil(up), err
}

// uploadAddress is the inverse of [upload.ID].
func (r *Repository) uploadAddress(id string) string {
	if strings.HasPrefix(id, "/") || strings.Contains(id, "://") {
		return id
	}
	return r.uploads() + id
}

// uploads is where the uploads of this repository commonly are.
func (r *Repository) uploads() string {
	return ocirequest.Request{Kind: ocirequest.UploadStart, Repository: r.path}.Path()
}

// upload is an upload that the registry has begun. Its context governs the writes.
type upload struct {
	ctx      context.Context
	repo     *Repository
	location *url.URL
	size     int64
	told     bool // size is what the last answer has told
	vague    bool // that has told of no byte, or of one: of these all say the same
	resumed  bool // and nothing was sent since
	least    int  // that the registry takes as a chunk, but for the last, in bytes
	held     []byte
	over     bool
}

func (r *Repository) newUpload(ctx context.Context, resp *http.Response) (*upload, error) {
	up := &upload{ctx: ctx, repo: r}
	return up, up.follow(resp)
}

// follow takes from an answer where the upload goes on and how far it is.
func (u *upload) follow(resp *http.Response) error {
	location, err := resp.Location()
	if err != nil && u.location == nil {
		return fmt.Errorf("%s/%s: the registry does not say where to upload to", u.repo.registry.host, u.repo.name)
	}
	if err == nil {
		u.location = u.repo.registry.upgraded(location)
	}
	if least, err := strconv.Atoi(resp.Header.Get("OCI-Chunk-Min-Length")); err == nil && least > 0 {
		u.least = min(least, maxLeast)
	}
	size, told := uploadedSize(resp.Header)
	if u.told = told; told {
		u.size = size
	}
	u.vague = !told && resp.Header.Get("Range") != ""
	return nil
}

// ask has the registry say where the upload goes on and how far it is. Where it does not, it has nothing.
func (u *upload) ask(ctx context.Context) error {
	resp, err := u.repo.send(ctx, exchange{request: ocirequest.Request{Kind: ocirequest.UploadStatus}, location: u.location})
	if err != nil {
		return err
	}
	defer drop(resp)
	u.size = 0
	return u.follow(resp)
}

// took is how far an upload is after a chunk that was accepted: as far as the answer tells, or as was sent, which cannot be less.
func (u *upload) took(begin, length int64) {
	if !u.told || u.size > begin+length {
		u.size = begin + length
	}
}

// maxLeast bounds what is held in memory until there is enough of it for a chunk.
const maxLeast = 64 << 20

// upgraded undoes what a registry behind a proxy tells that does not know that it is spoken to in https.
func (r *Registry) upgraded(location *url.URL) *url.URL {
	if r.base.Scheme != "https" || location.Scheme != "http" || location.Hostname() != r.base.Hostname() {
		return location
	}
	secure := *location
	secure.Scheme, secure.Host = r.base.Scheme, r.base.Host
	return &secure
}

// uploadedSize reads how much has arrived, if the registry tells it. A Range of 0-0 is no byte, or one: only the caller knows.
func uploadedSize(h http.Header) (size int64, told bool) {
	if exact, err := strconv.ParseInt(h.Get(ocirequest.HeaderOffset), 10, 64); err == nil && exact >= 0 {
		return exact, true
	}
	_, last, err := ocirequest.ParseChunkRange(h.Get("Range"))
	if err != nil || last == 0 {
		return 0, false
	}
	return last + 1, true
}

// ID is what the registry added to the address of the repository's uploads, or all of the address
// where it chose another one.
func (u *upload) ID() string {
	if u.location.Host != u.repo.registry.base.Host {
		return u.location.String()
	}
	return strings.TrimPrefix(u.location.RequestURI(), u.repo.uploads())
}

func (u *upload) Size() int64 { return u.size }

// Write sends p as one chunk. What is less than the registry takes waits for more.
func (u *upload) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(u.held)+len(p) < u.least {
		u.held = append(u.held, p...)
		return len(p), nil
	}
	chunk := p
	if len(u.held) > 0 {
		chunk = append(u.held, p...)
	}
	if err := u.bring(chunk); err != nil {
		return 0, err
	}
	u.held = nil
	return len(p), nil
}

// bring sends a chunk, and again what the registry has not taken of it.
func (u *upload) bring(chunk []byte) error {
	for breaks := 0; len(chunk) > 0; {
		begin, length := u.size, int64(len(chunk))
		err := u.patch(u.part(bytes.NewReader(chunk), length))
		if err != nil && (breaks == maxBreaks || !u.regain(err)) {
			return err
		}
		if err != nil && u.resumed && u.size == 1 {
			begin = 1 // which is not of this chunk
		}
		u.resumed = u.resumed && err != nil
		u.took(begin, length)
		if u.size < begin || u.size == begin && err == nil {
			return fmt.Errorf("%s/%s: %w", u.repo.registry.host, u.repo.name, errStuck)
		}
		if u.size == begin {
			breaks++
		}
		chunk = chunk[u.size-begin:]
	}
	return nil
}

// regain finds out how far an upload is that has broken off, and reports whether it can go on from there.
func (u *upload) regain(err error) bool {
	var network *NetworkError
	var refused *Error
	wrong := errors.As(err, &refused) && refused.Status == http.StatusRequestedRangeNotSatisfiable
	if u.repo.registry.patience < 0 || u.ctx.Err() != nil || !wrong && !errors.As(err, &network) {
		return false
	}
	fromStart := u.size == 0
	if u.ask(u.ctx) != nil {
		return false
	}
	if u.vague && wrong && fromStart {
		u.size = 1 // for that it has none was refused
	}
	u.told = true // that it has nothing, where it tells nothing
	return true
}

// part is a chunk that goes where the last one ended.
func (u *upload) part(body io.Reader, length int64) exchange {
	e := u.chunk()
	e.header.Set("Content-Range", fmt.Sprintf("%d-%d", u.size, u.size+length-1))
	e.body, e.length = body, length
	return e
}

// ReadFrom sends all of r as one request, however long it is.
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	counted := &counter{Reader: io.MultiReader(bytes.NewReader(u.held), r), n: -int64(len(u.held))}
	u.held = nil
	e := u.chunk()
	e.body, e.length = counted, -1
	begin := u.size
	err := u.patch(e)
	if err == nil {
		u.took(begin, counted.n)
	}
	return max(0, counted.n), err
}

// counter counts what is read through it, and hides what else the reader can do.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (u *upload) chunk() exchange {
	return exchange{
		request:  ocirequest.Request{Kind: ocirequest.UploadChunk},
		location: u.location,
		header:   http.Header{"Content-Type": {octetStream}},
	}
}

func (u *upload) patch(e exchange) error {
	resp, err := u.repo.send(u.ctx, e)
	if err != nil {
		return err
	}
	defer drop(resp)
	return u.follow(resp)
}

func (u *upload) finish(d digest.Digest) exchange {
	location := *u.location
	if location.RawQuery != "" {
		location.RawQuery += "&" // as it is, for a signature may be of it
	}
	location.RawQuery += "digest=" + url.QueryEscape(string(d))
	return exchange{
		request:  ocirequest.Request{Kind: ocirequest.UploadFinish},
		location: &location,
		header:   http.Header{},
		accept:   []int{http.StatusCreated, http.StatusNoContent},
	}
}

func (u *upload) Commit(ctx context.Context, d digest.Digest) (v1.Descriptor, error) {
	if err := berth.ValidateDigest(d); err != nil {
		return v1.Descriptor{}, err
	}
	u.over = true
	e := u.finish(d)
	if len(u.held) > 0 {
		e.body, e.length, e.once = bytes.NewReader(u.held), int64(len(u.held)), true
		e.header.Set("Content-Range", fmt.Sprintf("%d-%d", u.size, u.size+e.length-1))
		e.header.Set("Content-Type", octetStream)
		u.size += e.length
	}
	desc := v1.Descriptor{MediaType: octetStream, Digest: d, Size: u.size}
	resp, err := u.repo.send(ctx, e)
	switch {
	case err == nil:
		return desc, drop(resp)
	case u.repo.registry.patience >= 0 && u.isThere(ctx, desc, err):
		return desc, nil
	}
	return v1.Descriptor{}, err
}

// isThere reports whether a commit that seems to have failed has come about: its answer may have got lost.
func (u *upload) isThere(ctx context.Context, desc v1.Descriptor, err error) bool {
	var network *NetworkError
	if !errors.As(err, &network) && !errors.Is(err, berth.ErrUploadUnknown) {
		return false
	}
	got, err := u.repo.StatBlob(ctx, desc.Digest)
	return err == nil && got.Size == desc.Size
}

// Close leaves the upload to the registry, which ends it when nobody comes back.
func (u *upload) Close() error {
	u.over = true
	return nil
}

func (u *upload) Cancel(ctx context.Context) error {
	if u.over {
		return nil
	}
	u.over = true
	resp, err := u.repo.send(ctx, exchange{request: ocirequest.Request{Kind: ocirequest.UploadCancel}, location: u.location})
	if err != nil {
		return err
	}
	return drop(resp)
}
