// Package server serves any [berth.Registry] over HTTP, as the OCI distribution specification and
// the Docker clients that came before it have it.
//
//	handler := server.New(registry, &server.Options{Authorizer: server.Token(secret)})
//	http.Serve(listener, handler)
//
// A request is parsed by package ocirequest, which knows the routes; a table indexed by its kind
// says what answers it. What the registry returns as an error is sent as the specification's error
// body, one entry for each joined error.
//
// # What is served
//
// Bytes are never encoded anew, and media types never rewritten. A client that says in its Accept fields
// what it reads gets what is stored if it reads that, by tag the linux/amd64 image of a Docker list
// that it does not read, and, if it reads Docker's schema 1 alone, a manifest of that, which is made and
// stored: see manifest.Negotiate. Conditions (If-Match, If-None-Match) and ranges are those of RFC 9110.
//
// # Who may ask
//
// The handler answers only requests whose Host header is one of its own names, with its own port, so that
// a web page cannot reach it by pointing a name of its own at this machine (DNS rebinding), and none that
// a browser sends on behalf of another site. It sends no CORS header. An [Authorizer] decides about all
// else: [Token], [Passwords], or an [Issuer] of tokens that follow [Rules].
//
// # What one client can do to another
//
// No lock is held while a client is waited for. [Limits] bound how much is under way at once, and how long
// a client may stand still in the middle of a body. Headers and idle connections are for the http.Server to
// bound: ReadHeaderTimeout, IdleTimeout, and WriteTimeout, which this handler extends as a blob moves and lifts
// while a body arrives.
package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// Options say how a registry is served. Nil is the zero value.
type Options struct {
	// Authorizer decides who may do what. Nil: everybody may do everything.
	Authorizer Authorizer
	// Hosts are the names that clients may use for this server: "registry.example.com" with any port,
	// "registry.example.com:5000" with that, IPv6 addresses in brackets. Beside them there are, with the
	// port that the server listens at, the names of the loopback interface and the address at which a
	// client has reached the server.
	Hosts []string
	// Policy says which classes of manifests may be pushed. The zero value: all.
	Policy Policy
	// ReadOnly refuses whatever would change the registry.
	ReadOnly bool
	// AllowMissing takes images and indexes whose children are missing.
	AllowMissing bool
	// Limits bound what clients can ask for at once.
	Limits Limits
	// MinChunk is the smallest chunk, in bytes, that clients are asked to send in uploads of several
	// ("Pushing a blob in chunks", OCI-Chunk-Min-Length). A hint: smaller ones are taken. Zero: any.
	MinChunk int64
	// AccessLog gets one record of each request. Nil: nobody.
	AccessLog *slog.Logger
	// Notify is called with each event, by the goroutine that serves the request, after its answer is
	// written, and of a pull before: the client waits for that, and may go away and get nothing. So it should
	// not take long. It may be called at once from several goroutines. Nil: nobody wants to know.
	Notify func(Event)
	// Logger is told about failures that are not the client's. Nil: nobody.
	Logger *slog.Logger
}

// Validate says what is wrong with a name of Hosts or a pattern of Policy. [New] takes them as they are; such
// ones let nobody in.
func (o *Options) Validate() error {
	for _, host := range o.Hosts {
		if err := validateHost(host); err != nil {
			return err
		}
	}
	return o.Policy.Validate()
}

// New returns the handler for a registry. Options are copied. The handler may serve requests at once, as
// many as the limits allow. It has no state that outlives it, and needs no end.
func New(registry berth.Registry, opts *Options) http.Handler {
	h := &handler{registry: registry, schema1: newSchema1Maker()}
	if opts != nil {
		h.opts = *opts
	}
	if h.opts.Logger == nil {
		h.opts.Logger = slog.New(slog.DiscardHandler)
	}
	h.limiter = newLimiter(h.opts.Limits)
	h.pulls, _ = registry.(berth.PullNoter)
	return h
}

type handler struct {
	registry berth.Registry
	opts     Options
	schema1  *schema1Maker
	limiter  *limiter
	pulls    berth.PullNoter // nil: the registry does not want to know
	// known is the name by which the last request called this server. Most call it by the same.
	known atomic.Pointer[knownName]
}

// knownName is a Host header that is good for a connection to an address.
type knownName struct {
	host string
	tls  bool
	port int
	ip   net.IP
}

// The headers of every answer. They are never changed.
var (
	apiVersion = []string{"registry/2.0"}
	noSniff    = []string{"nosniff"}
	vary       = []string{"Accept"} // of those about manifests
)

// unknown is the request of a call before it is read. It is never changed.
var unknown ocirequest.Request

// call is one request on its way through.
type call struct {
	*handler
	w      http.ResponseWriter
	r      *http.Request
	client client
	req    *ocirequest.Request
	repo   berth.Repository
}

// actions answers each kind of request.
var actions = [ocirequest.Kinds]func(*call) error{
	ocirequest.Ping:           (*call).ping,
	ocirequest.Catalog:        (*call).catalog,
	ocirequest.BlobGet:        (*call).blobGet,
	ocirequest.BlobHead:       (*call).blobHead,
	ocirequest.BlobDelete:     (*call).blobDelete,
	ocirequest.ManifestGet:    (*call).manifestGet,
	ocirequest.ManifestHead:   (*call).manifestGet,
	ocirequest.ManifestPut:    (*call).manifestPut,
	ocirequest.ManifestDelete: (*call).manifestDelete,
	ocirequest.UploadStart:    (*call).uploadStart,
	ocirequest.UploadWhole:    (*call).uploadWhole,
	ocirequest.UploadMount:    (*call).uploadMount,
	ocirequest.UploadStatus:   (*call).uploadStatus,
	ocirequest.UploadChunk:    (*call).uploadChunk,
	ocirequest.UploadFinish:   (*call).uploadFinish,
	ocirequest.UploadCancel:   (*call).uploadCancel,
	ocirequest.TagList:        (*call).tagList,
	ocirequest.ReferrerList:   (*call).referrerList,
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.opts.AccessLog != nil {
		h.logged(w, r)
		return
	}
	h.serveHTTP(w, r)
}

func (h *handler) serveHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{handler: h, w: w}
	c.client.conn = *http.NewResponseController(w)
	c.r, c.req = pace(&c.client, r, h.limiter.stall), &unknown
	header := w.Header()
	header["Docker-Distribution-Api-Version"] = apiVersion
	header["X-Content-Type-Options"] = noSniff
	if err := c.serve(); err != nil {
		c.calm(err)
		c.fail(err)
	}
}

func (c *call) serve() error {
	place, err := c.limiter.requests.enter(c.r.Context(), &c.client)
	if err != nil {
		return err
	}
	defer place.leave()
	if err := c.checkOrigin(); err != nil {
		return err
	}
	if tokens, ok := c.opts.Authorizer.(TokenServer); ok && c.r.URL.Path == TokenPath {
		tokens.ServeToken(c.w, c.r)
		return nil
	}
	req, err := ocirequest.Parse(c.r.Method, c.r.URL)
	if err != nil {
		return c.refuse(err)
	}
	c.req = req
	if err := c.authorize(); err != nil {
		return err
	}
	if c.opts.ReadOnly && writes(req.Kind) {
		c.w.Header().Set("Allow", "GET, HEAD")
		return fmt.Errorf("%w: this registry is read-only", berth.ErrUnsupported)
	}
	if req.Repository != "" {
		if c.repo, err = c.registry.Repository(req.Repository); err != nil {
			return err
		}
	}
	among, err := c.enter(req.Kind)
	if err != nil {
		return err
	}
	defer among.leave()
	return actions[req.Kind](c)
}

// refuse turns what the route parser says into the answer for it. Before anything is told about a
// route, the caller must have shown that it may know.
func (c *call) refuse(err error) error {
	if authErr := c.authorize(); authErr != nil {
		return authErr
	}
	var method *ocirequest.MethodError
	switch {
	case errors.As(err, &method):
		c.w.Header().Set("Allow", method.Allow)
	case errors.Is(err, berth.ErrUnsupported): // a parameter that makes no sense
		return withStatus(http.StatusBadRequest, err)
	}
	return err
}

func (c *call) ping() error {
	c.w.Header().Set("Content-Type", "application/json")
	return c.quiet(c.send([]byte("{}")))
}

// writes reports whether a kind of request changes the registry.
func writes(kind ocirequest.Kind) bool {
	switch kind {
	case ocirequest.Ping, ocirequest.Catalog, ocirequest.BlobGet, ocirequest.BlobHead,
		ocirequest.ManifestGet, ocirequest.ManifestHead, ocirequest.TagList, ocirequest.ReferrerList:
		return false
	}
	return true
}
