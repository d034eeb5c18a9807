// Package remote is the contract of package berth over HTTP, the client's side: any registry that
// speaks the OCI distribution specification is a [berth.Registry].
//
//	registry, err := remote.New("registry.example.com", &remote.Options{Credentials: auth.Docker()})
//	repo, err := registry.Repository("team/app")
//	m, err := repo.FetchManifest(ctx, "v1", nil)
//
// What a registry sends is believed only where it can be checked: manifests and blobs are hashed
// while they are read, and a media type counts only if it is one that was asked for.
//
// A failure is an [*Error], which keeps the request, the status and what the registry said, and
// matches the sentinels of package berth by its codes, or by status and kind of request where the
// registry gives no code.
//
// # Limits
//
// Three things depend on the registry. [berth.PushOptions.Tags] beyond the first are set in one
// request where it supports tag parameters, else one after the other. AllowMissing is the
// registry's to decide; it is not sent. Conditions are looked at before anything is sent; that a tag
// does not move after that is only certain where the registry keeps to If-Match and If-None-Match.
package remote

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// userAgent names the program where the caller does not.
const userAgent = "berth"

// maxDrain is what is read of a body that is not wanted, to save the connection.
const maxDrain = 64 << 10

// Options say how a registry is spoken to. Nil is the zero value.
type Options struct {
	// Credentials are looked up when the registry asks for them. Nil: anonymous.
	Credentials auth.CredentialFunc
	// PlainHTTP speaks http to a host that is not a loopback one.
	PlainHTTP bool
	// Name is what errors call the registry, where its address means nothing to the user: they tell
	// what it said then, and not what was asked of it. Zero: its address.
	Name string
	// UserAgent names the program and its version. Zero: "berth".
	UserAgent string
	// AnonymousRetry reads without the stored credential where that is turned down, so that a stale one does not get in the
	// way of what is public.
	AnonymousRetry bool
	// AllowRealm is asked about a token server that would be refused: see [auth.Transport]. Nil: none is allowed.
	AllowRealm func(registry string, realm *url.URL) bool
	// CertDirs are the directories that have one for each host with CAs and client certificates in it, as Docker's
	// certs.d has them. None: where Docker and podman have theirs.
	CertDirs []string
	// Transport sends the requests, below authentication. Nil: one that keeps connections open.
	Transport http.RoundTripper
	// Requests is how many are sent to one host at once. Zero: 32.
	Requests int
	// RequestsPerSecond is how many are begun in a second, at most, with each host. Zero: as many as it takes; a host that
	// refuses some is asked more slowly from then on.
	RequestsPerSecond float64
	// Patience is how long a request is repeated that fails for a reason that may pass. Zero: two minutes. Negative: each is
	// sent once.
	Patience time.Duration
}

// Registry is a registry that is reached over HTTP. It implements [berth.Registry].
type Registry struct {
	host   string
	name   string
	base   *url.URL
	client *http.Client
	quirks quirks
	gate   *gate // of its own host

	credentials auth.CredentialFunc
	certDir     string // the first of those in which certificates are looked for
	patience    time.Duration
	learnt      learnt
	fallbacks   fallbacks
}

// New returns the registry at a host: "registry.example.com", "localhost:5000". It does no I/O. The
// scheme is http for the loopback interface and https elsewhere; a host that is given with a scheme
// keeps it, except that http must be allowed by PlainHTTP.
//
// Errors: berth.ErrNameInvalid for what is no host.
func New(host string, opts *Options) (*Registry, error) {
	if opts == nil {
		opts = &Options{}
	}
	base, name, err := baseURL(host, opts.PlainHTTP)
	if err != nil {
		return nil, err
	}
	sender := opts.Transport
	if sender == nil {
		sender = newHostTransports(newTransport(), opts.CertDirs)
	}
	patient := newPatient(sender, opts)
	transport := &auth.Transport{
		Base: patient, Credentials: opts.Credentials, UserAgent: opts.UserAgent,
		AnonymousRetry: opts.AnonymousRetry, AllowRealm: opts.AllowRealm,
	}
	if transport.UserAgent == "" {
		transport.UserAgent = userAgent
	}
	r := &Registry{
		host: name, name: opts.Name, base: base, client: &http.Client{Transport: transport}, quirks: quirksOf(name),
		gate: patient.gate(base.Host), credentials: opts.Credentials, patience: patient.patience,
		certDir: append(slices.Clone(opts.CertDirs), usualCertDirs()...)[0],
	}
	if r.credentials == nil {
		r.credentials = func(context.Context, string) (auth.Credential, error) { return auth.Credential{}, nil }
	}
	return r, nil
}

// newTransport is net/http's own, for many requests to one host, and without compression: a blob's
// bytes must arrive as they are.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 32
	t.DisableCompression = true
	t.DialContext = auth.GuardDial(&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second})
	return t
}

// baseURL returns where the API is, and the registry's name, which is the host without a scheme.
func baseURL(host string, plainHTTP bool) (base *url.URL, name string, err error) {
	scheme, name, given := strings.Cut(host, "://")
	if !given {
		scheme, name = "https", host
	}
	name = strings.TrimSuffix(name, "/")
	u, err := url.Parse("//" + name)
	if err != nil || u.Hostname() == "" || u.Host != name {
		return nil, "", fmt.Errorf("registry %.100q: %w: want HOST or HOST:PORT, like registry.example.com or localhost:5000", host, berth.ErrNameInvalid)
	}
	loopback := ocirequest.IsLoopback(u.Hostname())
	switch {
	case !given && (loopback || plainHTTP):
		scheme = "http"
	case scheme == "http" && !loopback && !plainHTTP:
		return nil, "", fmt.Errorf("registry %s: %w: plain http is for loopback hosts; use https, or say that this host is insecure", host, berth.ErrUnsupported)
	case scheme != "http" && scheme != "https":
		return nil, "", fmt.Errorf("registry %.100q: %w: the scheme must be https", host, berth.ErrNameInvalid)
	}
	if api := quirksOf(name).api; api != "" {
		return &url.URL{Scheme: scheme, Host: api}, name, nil
	}
	return &url.URL{Scheme: scheme, Host: name}, name, nil
}

// Host is the registry's name, as references to it begin.
func (r *Registry) Host() string { return r.host }

// Ping asks whether the registry speaks the protocol, and whether the credentials are good for it.
//
// Errors: berth.ErrUnauthorized; berth.ErrUnsupported where it is something else that answers.
func (r *Registry) Ping(ctx context.Context) error {
	resp, err := r.send(ctx, exchange{request: ocirequest.Request{Kind: ocirequest.Ping}})
	if err != nil {
		return err
	}
	return drop(resp)
}

// RateLimit is what the registry has last said of how much may be asked of it; the zero value where it has said nothing.
func (r *Registry) RateLimit() RateLimit { return r.gate.rateLimit() }

// CloseIdleConnections closes the connections that no request uses. The registry can be used on.
func (r *Registry) CloseIdleConnections() { r.client.CloseIdleConnections() }

// Repository returns the repository of that name. On Docker Hub a name of one part is one of its
// library.
func (r *Registry) Repository(name string) (berth.Repository, error) { return r.Open(name) }

// Open is Repository with the type that has more to offer: see [Repository.PushBlob].
//
// Errors: berth.ErrNameInvalid.
func (r *Registry) Open(name string) (*Repository, error) {
	if err := berth.ValidateRepository(name); err != nil {
		return nil, err
	}
	path := name
	if r.quirks.library != "" && !strings.Contains(name, "/") {
		path = r.quirks.library + "/" + name
	}
	return &Repository{registry: r, name: name, path: path}, nil
}

// Repository is one repository of a registry. It implements [berth.Repository].
type Repository struct {
	registry *Registry
	name     string
	path     string // the name as it stands in URLs
}

// Name is the repository's name, without the host.
func (r *Repository) Name() string { return r.name }

// exchange is a request to send, and what it needs beyond its route.
type exchange struct {
	request ocirequest.Request
	// location replaces the route's URL, where the registry has said where to go on.
	location *url.URL
	header   http.Header
	body     io.Reader
	// length of the body if it is known, or -1.
	length int64
	// again opens the body once more, so that the request can be sent twice. May be nil.
	again func() (io.ReadCloser, error)
	// once: the request must not be sent again where the registry may have taken some of it.
	once bool
	// accept lists the statuses that are no failure. None: 200 to 299.
	accept []int
	scopes []auth.Scope
}

func (r *Repository) send(ctx context.Context, e exchange) (*http.Response, error) {
	e.request.Repository = r.path
	e.scopes = append(e.scopes, auth.Repository(r.path, actions(e.request.Kind)...))
	return r.registry.send(ctx, e)
}

// actions are what a token must allow for a kind of request.
func actions(kind ocirequest.Kind) []string {
	switch kind {
	case ocirequest.BlobDelete, ocirequest.ManifestDelete:
		return []string{"delete", "pull", "push"}
	case ocirequest.BlobGet, ocirequest.BlobHead, ocirequest.ManifestGet, ocirequest.ManifestHead,
		ocirequest.TagList, ocirequest.ReferrerList:
		return []string{"pull"}
	}
	return []string{"pull", "push"}
}

// send sends a request and returns its answer, with the body open, or an *Error.
func (r *Registry) send(ctx context.Context, e exchange) (*http.Response, error) {
	var trace auth.Trace
	ctx = auth.WithTrace(auth.WithScopes(ctx, e.scopes...), &trace)
	if e.location != nil && !r.own(e.location) {
		ctx = auth.WithoutAuth(ctx)
	}
	if e.once {
		ctx = context.WithValue(ctx, onceKey{}, true)
	}
	req, err := e.request.New(ctx, r.base, e.body)
	if err != nil {
		if body, ok := e.body.(io.Closer); ok {
			body.Close()
		}
		return nil, err
	}
	if e.location != nil {
		req.URL, req.Host = e.location, ""
	}
	for key, values := range e.header {
		req.Header[key] = values
	}
	if e.body != nil && e.length >= 0 {
		req.ContentLength = e.length
	}
	if e.again != nil {
		req.GetBody = e.again
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, r.transportError(ctx, e.request, err)
	}
	if !accepted(resp.StatusCode, e.accept) {
		return nil, r.newError(e.request, resp, &trace)
	}
	return resp, nil
}

// own reports whether an address that the registry gave is its own. Others, of a CDN for example,
// are spoken to without credentials: refusing them breaks uploads, answering them leaks.
func (r *Registry) own(u *url.URL) bool {
	return u.Scheme == r.base.Scheme && strings.EqualFold(u.Hostname(), r.base.Hostname()) && portOf(u) == portOf(r.base)
}

func portOf(u *url.URL) string {
	switch port := u.Port(); {
	case port != "":
		return port
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

func accepted(status int, accept []int) bool {
	for _, s := range accept {
		if s == status {
			return true
		}
	}
	return len(accept) == 0 && status >= 200 && status < 300
}

// drop ends a response whose body is not wanted.
func drop(resp *http.Response) error {
	io.CopyN(io.Discard, resp.Body, maxDrain)
	return resp.Body.Close()
}
