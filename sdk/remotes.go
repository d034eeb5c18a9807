package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	gosync "sync"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
	"github.com/berthoci/berth/sdk/sync"
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

// SyncOptions say what is brought where.
type SyncOptions struct {
	// To is HOST[/PREFIX]: the prefix is put before each repository's name. It may begin with http:// or https://.
	To string
	// Patterns select the tags: see sync.Selection. A repository without a tag means all its tags here, where Push
	// and Pin mean "latest".
	Patterns []string
	// Progress is told how it goes, from several goroutines at once. May be nil.
	Progress func(sync.Event)
}

// PlanSync looks at both sides and says what Sync would do. The plan is carried out by sync.Apply.
//
// Errors: sync.ErrNothing; berth.ErrNameInvalid for a target or a pattern that is none;
// berth.ErrUnsupported for plain http beyond this machine, where Options.PlainHTTP does not list it;
// berth.ErrUnauthorized and berth.ErrDenied, with the registry's own words.
func (r *Registry) PlanSync(ctx context.Context, opts *SyncOptions) (*sync.Plan, error) {
	plan, _, err := r.planSync(ctx, opts)
	return plan, err
}

func (r *Registry) planSync(ctx context.Context, opts *SyncOptions) (*sync.Plan, *remote.Registry, error) {
	if opts == nil {
		opts = &SyncOptions{}
	}
	to, prefix, err := r.remotes.target(opts.To)
	if err != nil {
		return nil, nil, err
	}
	plan, err := sync.Make(ctx, r, to, sync.Selection{Patterns: opts.Patterns, Prefix: prefix})
	return plan, to, err
}

// Sync brings tags of the layout to a remote registry: what it lacks, and nothing else. The report
// tells each tag, also of those that failed; it is nil where nothing could be planned.
//
// Errors: those of PlanSync; for what could not be brought, one joined error a tag.
func (r *Registry) Sync(ctx context.Context, opts *SyncOptions) (*sync.Report, error) {
	plan, to, err := r.planSync(ctx, opts)
	if err != nil {
		return nil, err
	}
	return sync.Apply(ctx, r, to, plan, &sync.CopyOptions{Progress: opts.Progress})
}

// target reads HOST[/PREFIX].
func (r *Remotes) target(to string) (*remote.Registry, string, error) {
	if to == "" {
		return nil, "", fmt.Errorf("target: %w: none is named; SyncOptions.To is HOST[/PREFIX]", berth.ErrNameInvalid)
	}
	scheme, rest, ok := strings.Cut(to, "://")
	if !ok {
		scheme, rest = "", to
	}
	hostname, prefix, _ := strings.Cut(strings.TrimSuffix(rest, "/"), "/")
	if prefix != "" {
		if err := berth.ValidateRepository(prefix); err != nil {
			return nil, "", fmt.Errorf("target %q: %w", to, err)
		}
	}
	if ok {
		hostname = scheme + "://" + hostname
	}
	registry, err := r.Registry(hostname)
	return registry, prefix, err
}
