// Package ocirequest is the routes of the OCI distribution specification ("Endpoints"), parsed for
// the server and built for the client by the same tables, so that the two cannot drift apart.
//
//	req, err := ocirequest.Parse(r.Method, r.URL)     // serving side
//	httpReq, err := ocirequest.Request{Kind: ocirequest.BlobGet, Repository: "app/hello", Digest: d}.New(ctx, base, nil)
//
// Every name, tag and digest in a parsed [Request] is valid.
package ocirequest

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// Kind is what a request asks for. The comments give the specification's endpoint.
type Kind int

// The kinds of request.
const (
	Ping           Kind = iota // end-1
	Catalog                    // Docker's _catalog
	BlobGet                    // end-2
	BlobHead                   // end-2
	BlobDelete                 // end-10
	ManifestGet                // end-3
	ManifestHead               // end-3
	ManifestPut                // end-7a, end-7b
	ManifestDelete             // end-9
	UploadStart                // end-4a, end-4c
	UploadWhole                // end-4b: the body is the blob
	UploadMount                // end-11
	UploadStatus               // end-13
	UploadChunk                // end-5
	UploadFinish               // end-6
	UploadCancel               // end-14
	TagList                    // end-8a, end-8b
	ReferrerList               // end-12a, end-12b

	// Kinds is the number of kinds: the length of a table that is indexed by Kind.
	Kinds
)

// NoLimit is the N of a list request that asks for no page size.
const NoLimit = -1

// Request is a request as the specification's tables see it. Which fields matter depends on Kind.
type Request struct {
	Kind       Kind
	Repository string
	// Reference of a manifest: a tag, or a digest.
	Reference string
	// Digest of a blob, of the subject of a referrer list, or of the whole that UploadWhole and
	// UploadFinish bring.
	Digest digest.Digest
	// Algorithm that UploadStart asks for, or empty.
	Algorithm digest.Algorithm
	// UploadID of all kinds that continue an upload.
	UploadID string
	// From is the repository that UploadMount takes Digest from, or empty.
	From string
	// Tags that ManifestPut by digest shall set.
	Tags []string
	// N is the page size of a list, or NoLimit.
	N int
	// Last is the entry after which a list begins, or empty. Not validated: any string has a place
	// in the byte order.
	Last string
	// ArtifactType that ReferrerList filters by, or empty.
	ArtifactType string
}

// routes gives each kind its method and path; {name}, {ref}, {digest} and {id} stand for fields.
var routes = [Kinds]struct{ method, path string }{
	Ping:           {http.MethodGet, "/v2/"},
	Catalog:        {http.MethodGet, "/v2/_catalog"},
	BlobGet:        {http.MethodGet, "/v2/{name}/blobs/{digest}"},
	BlobHead:       {http.MethodHead, "/v2/{name}/blobs/{digest}"},
	BlobDelete:     {http.MethodDelete, "/v2/{name}/blobs/{digest}"},
	ManifestGet:    {http.MethodGet, "/v2/{name}/manifests/{ref}"},
	ManifestHead:   {http.MethodHead, "/v2/{name}/manifests/{ref}"},
	ManifestPut:    {http.MethodPut, "/v2/{name}/manifests/{ref}"},
	ManifestDelete: {http.MethodDelete, "/v2/{name}/manifests/{ref}"},
	UploadStart:    {http.MethodPost, "/v2/{name}/blobs/uploads/"},
	UploadWhole:    {http.MethodPost, "/v2/{name}/blobs/uploads/"},
	UploadMount:    {http.MethodPost, "/v2/{name}/blobs/uploads/"},
	UploadStatus:   {http.MethodGet, "/v2/{name}/blobs/uploads/{id}"},
	UploadChunk:    {http.MethodPatch, "/v2/{name}/blobs/uploads/{id}"},
	UploadFinish:   {http.MethodPut, "/v2/{name}/blobs/uploads/{id}"},
	UploadCancel:   {http.MethodDelete, "/v2/{name}/blobs/uploads/{id}"},
	TagList:        {http.MethodGet, "/v2/{name}/tags/list"},
	ReferrerList:   {http.MethodGet, "/v2/{name}/referrers/{digest}"},
}

// Method is the HTTP method of the request.
func (r Request) Method() string { return routes[r.Kind].method }

// Path is the path of the request's URL.
func (r Request) Path() string {
	before, after, _ := strings.Cut(routes[r.Kind].path, "{name}")
	between, last, _ := strings.Cut(after, "{")
	switch last {
	case "ref}":
		last = r.Reference
	case "digest}":
		last = string(r.Digest)
	case "id}":
		last = r.UploadID
	}
	return before + r.Repository + between + last
}

// Query is the query of the request's URL.
func (r Request) Query() url.Values {
	q := url.Values{}
	set := func(key, value string) {
		if value != "" {
			q.Set(key, value)
		}
	}
	switch r.Kind {
	case UploadStart:
		set("digest-algorithm", string(r.Algorithm))
	case UploadWhole, UploadFinish:
		set("digest", string(r.Digest))
	case UploadMount:
		set("mount", string(r.Digest))
		set("from", r.From)
	case ManifestPut:
		for _, tag := range r.Tags {
			q.Add("tag", tag)
		}
	case ReferrerList:
		set("artifactType", r.ArtifactType)
	}
	if r.isList() {
		set("last", r.Last)
		if r.N != NoLimit {
			q.Set("n", strconv.Itoa(r.N))
		}
	}
	return q
}

func (r Request) isList() bool {
	return r.Kind == Catalog || r.Kind == TagList || r.Kind == ReferrerList
}

// URL is the request's address on the registry at base, of which scheme and host count.
func (r Request) URL(base *url.URL) *url.URL {
	return &url.URL{Scheme: base.Scheme, Host: base.Host, Path: r.Path(), RawQuery: r.Query().Encode()}
}

// New makes the HTTP request to the registry at base.
func (r Request) New(ctx context.Context, base *url.URL, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, r.Method(), r.URL(base).String(), body)
}

// ParseChunkRange parses the Content-Range of a chunk, "FIRST-LAST", both inclusive
// ("Pushing a blob in chunks"); some clients put "bytes " before and "/SIZE" after it.
//
// Errors: berth.ErrRangeInvalid.
func ParseChunkRange(s string) (first, last int64, err error) {
	text := strings.TrimPrefix(strings.TrimSpace(s), "bytes ")
	text, _, _ = strings.Cut(text, "/")
	from, to, ok := strings.Cut(text, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	if !ok || err1 != nil || err2 != nil || first < 0 || last < first || last == math.MaxInt64 {
		return 0, 0, fmt.Errorf("content range %.60q: %w: it must be FIRST-LAST", s, berth.ErrRangeInvalid)
	}
	return first, last, nil
}

// HeaderOffset is the header, beside Range, in which berth tells the exact size of an upload.
const HeaderOffset = "Upload-Offset"

// FormatRange is the Range header that tells how much of an upload has arrived: "0-LAST". An empty
// upload is "0-0", as the reference registry has it, for there is no way to write it.
func FormatRange(size int64) string {
	return "0-" + strconv.FormatInt(max(size, 1)-1, 10)
}
