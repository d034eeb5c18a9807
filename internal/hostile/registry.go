package hostile

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// Registry is a registry in memory. It is an [http.Handler], and keeps what it was asked.
type Registry struct {
	journal

	closing chan struct{} // closed by Close

	mu           sync.Mutex // mu guards the fields below
	options      Options
	closed       bool
	repositories map[string]*repository
	uploads      map[string]*upload
}

type repository struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]stored
	tags      map[string]digest.Digest
}

// stored is a manifest as it came.
type stored struct {
	mediaType string
	raw       []byte
}

// NewRegistry returns an empty registry. Nil is the zero Options.
func NewRegistry(opts *Options) *Registry {
	g := &Registry{closing: make(chan struct{}), repositories: map[string]*repository{}, uploads: map[string]*upload{}}
	if opts != nil {
		g.options = *opts
	}
	return g
}

// Change alters how the registry behaves from the next request on.
func (g *Registry) Change(alter func(*Options)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	alter(&g.options)
}

// Close ends the requests that stand still.
func (g *Registry) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		close(g.closing)
	}
}

// call is one request under way.
type call struct {
	*Registry
	Options // as they were when it came
	w       http.ResponseWriter
	r       *http.Request
	req     *ocirequest.Request
}

// ServeHTTP answers as the distribution specification has it, but for the options.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	opts, fault := g.begin(r)
	if opts.Tokens != nil && r.URL.Path == "/token" {
		opts.Tokens.ServeHTTP(w, r) // who keeps it himself
		return
	}
	g.note(r)
	if opts.Before != nil {
		opts.Before(r)
	}
	for name, values := range opts.Header {
		w.Header()[name] = values
	}
	w, r, over := fault.strike(w, r, g.closing)
	if over {
		return
	}
	c := &call{Registry: g, Options: opts, w: w, r: r}
	if !c.parse() || !c.admit() {
		return
	}
	c.serve()
}

func (g *Registry) begin(r *http.Request) (Options, *Fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.options, befalls(g.options.Faults, r)
}

// parse finds out what is asked.
func (c *call) parse() bool {
	req, err := ocirequest.Parse(c.r.Method, c.r.URL)
	var method *ocirequest.MethodError
	switch {
	case errors.As(err, &method):
		c.refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", err.Error())
	case errors.Is(err, ocirequest.ErrNoRoute):
		http.NotFound(c.w, c.r)
	case err != nil:
		c.refuse(http.StatusBadRequest, berth.Code(err), err.Error())
	}
	c.req = req
	return err == nil
}

func (c *call) serve() {
	switch c.req.Kind {
	case ocirequest.Ping:
		c.w.WriteHeader(http.StatusOK)
	case ocirequest.BlobGet, ocirequest.BlobHead:
		c.getBlob()
	case ocirequest.BlobDelete:
		c.deleteBlob()
	case ocirequest.UploadStart, ocirequest.UploadWhole, ocirequest.UploadMount:
		c.beginUpload()
	case ocirequest.UploadStatus, ocirequest.UploadChunk, ocirequest.UploadFinish, ocirequest.UploadCancel:
		c.continueUpload()
	case ocirequest.ManifestGet, ocirequest.ManifestHead:
		c.getManifest()
	case ocirequest.ManifestPut:
		c.putManifest()
	case ocirequest.ManifestDelete:
		c.deleteManifest()
	default:
		c.list()
	}
}

// refuse answers with an error of the specification's form, or in plain text.
func (c *call) refuse(status int, code, message string) {
	if c.Echo {
		message += ": you sent " + c.r.Header.Get("Authorization")
	}
	if c.PlainText {
		c.w.Header().Set("Content-Type", "text/plain")
		c.w.WriteHeader(status)
		fmt.Fprintln(c.w, message)
		return
	}
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	json.NewEncoder(c.w).Encode(map[string][]one{"errors": {{code, message}}})
}

// repository returns the one of that name, which is made if it is not there. The caller holds the mutex.
func (g *Registry) repository(name string) *repository {
	repo := g.repositories[name]
	if repo == nil {
		repo = &repository{blobs: map[digest.Digest][]byte{}, manifests: map[digest.Digest]stored{}, tags: map[string]digest.Digest{}}
		g.repositories[name] = repo
	}
	return repo
}

// PutBlob stores a blob, and returns its digest.
func (g *Registry) PutBlob(repo string, content []byte) digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := digest.FromBytes(content)
	g.repository(repo).blobs[d] = content
	return d
}

// PutManifest stores a manifest without looking into it, and returns its digest. The tag may be "".
func (g *Registry) PutManifest(repo, tag, mediaType string, raw []byte) digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := digest.FromBytes(raw)
	g.repository(repo).manifests[d] = stored{mediaType, raw}
	if tag != "" {
		g.repository(repo).tags[tag] = d
	}
	return d
}

// Blob returns a blob's content; nil where it is not there.
func (g *Registry) Blob(repo string, d digest.Digest) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.repository(repo).blobs[d]
}

// Manifest returns what a tag or digest leads to; nil where there is nothing.
func (g *Registry) Manifest(repo, ref string) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, _, _ := g.repository(repo).find(ref)
	return m.raw
}

// Tags returns the tags of a repository, in order.
func (g *Registry) Tags(repo string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return sortedKeys(g.repository(repo).tags)
}

// Repositories returns the names of those that have a manifest, in order.
func (g *Registry) Repositories() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(sortedKeys(g.repositories), func(name string) bool {
		return len(g.repositories[name].manifests) == 0
	})
}

// Uploads is how many have begun and not ended.
func (g *Registry) Uploads() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.uploads)
}

// Forget loses a blob or a manifest, with its tags, behind the back of the clients.
func (g *Registry) Forget(repo string, d digest.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.repository(repo).blobs, d)
	g.repository(repo).remove(d)
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// list answers with a page of tags, repositories or referrers.
func (c *call) list() {
	var answer any
	switch c.req.Kind {
	case ocirequest.ReferrerList:
		if c.NoReferrers {
			http.NotFound(c.w, c.r)
			return
		}
		answer = c.referrers()
	case ocirequest.Catalog:
		answer = map[string]any{"repositories": c.page(c.Repositories())}
	default:
		if !slices.Contains(c.Repositories(), c.req.Repository) {
			c.refuse(http.StatusNotFound, "NAME_UNKNOWN", "repository unknown")
			return
		}
		answer = map[string]any{"name": c.req.Repository, "tags": c.page(c.Tags(c.req.Repository))}
	}
	if c.w.Header().Get("Content-Type") == "" {
		c.w.Header().Set("Content-Type", "application/json")
	}
	json.NewEncoder(c.w).Encode(answer)
}

// page cuts out what is asked for, and links to what follows.
func (c *call) page(names []string) []string {
	first, _ := slices.BinarySearch(names, c.req.Last)
	for first < len(names) && names[first] <= c.req.Last {
		first++
	}
	names = names[first:]
	size := c.PageSize
	if c.req.N >= 0 && (size == 0 || c.req.N < size) {
		size = c.req.N
	}
	if size == 0 && c.req.N != 0 || size >= len(names) {
		return names
	}
	if size > 0 {
		query := c.r.URL.Query()
		query.Set("last", names[size-1])
		query.Set("n", strconv.Itoa(size))
		c.w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next"`, c.NextPageAt, c.r.URL.Path, query.Encode()))
	}
	return names[:size]
}

func bearerOf(header string) (token string, ok bool) {
	scheme, token, _ := strings.Cut(header, " ")
	return token, strings.EqualFold(scheme, "Bearer")
}
