package sdk

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	gosync "sync"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// Remotes are the remote registries that a program speaks to, each with one pool of connections and
// one set of tokens. All methods may run at the same time.
type Remotes struct {
	opts Options

	mu    gosync.Mutex // guards the fields below
	hosts map[string]*remote.Registry
}

// NewRemotes uses what the options say of remote registries.
func NewRemotes(opts *Options) *Remotes {
	r := &Remotes{hosts: map[string]*remote.Registry{}}
	if opts != nil {
		r.opts = *opts
	}
	if r.opts.Credentials == nil {
		r.opts.Credentials = auth.Docker()
	}
	return r
}

// Registry returns the registry at a host. It does no I/O.
//
// Errors: berth.ErrNameInvalid for what is no host; berth.ErrUnsupported for plain http to a host that
// Options.PlainHTTP does not list.
func (r *Remotes) Registry(hostname string) (*remote.Registry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.hosts[hostname]; known != nil {
		return known, nil
	}
	registry, err := remote.New(hostname, &remote.Options{
		Credentials: r.opts.Credentials,
		PlainHTTP:   r.mayBePlain(hostname),
		UserAgent:   r.opts.UserAgent,
		CertDirs:    r.opts.CertDirs,
		Patience:    r.opts.Patience,
		Requests:    r.opts.Requests,

		AnonymousRetry:    r.opts.AnonymousRetry,
		RequestsPerSecond: r.opts.RequestsPerSecond,
	})
	switch {
	case errors.Is(err, berth.ErrUnsupported):
		return nil, fmt.Errorf("%w, by Options.PlainHTTP or --plain-http %s", err, withoutScheme(hostname))
	case err != nil:
		return nil, err
	}
	r.hosts[hostname] = registry
	return registry, nil
}

// mayBePlain reports whether a host is listed as one that plain http is spoken to.
func (r *Remotes) mayBePlain(hostname string) bool {
	return slices.ContainsFunc(r.opts.PlainHTTP, func(listed string) bool {
		return strings.EqualFold(withoutScheme(listed), withoutScheme(hostname))
	})
}

func withoutScheme(hostname string) string {
	if _, rest, ok := strings.Cut(hostname, "://"); ok {
		return rest
	}
	return hostname
}

// closeIdle closes the connections that no request uses.
func (r *Remotes) closeIdle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, registry := range r.hosts {
		registry.CloseIdleConnections()
	}
}
