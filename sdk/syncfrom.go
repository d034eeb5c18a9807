package sdk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	gosync "sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/pin"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/sync"
)

// SyncFromOptions say what is brought into the layout.
type SyncFromOptions struct {
	// References are images of remote registries, HOST/REPOSITORY[:TAG][@DIGEST], with or without docker:// in front: a
	// digest decides, whatever the tag is there; without both it is the tag "latest". They may also be patterns, as those of
	// sync.Selection with a host in front: HOST/app/**:v*.
	References []string
	// Prefix is put before the repositories' names in the layout, where they have no host.
	Prefix string
	// Selection says more of what is selected, and how it is called in the layout. Its Patterns and Prune are not used. To
	// keep an index with some of its images alone, the layout has to be open with Options.AllowMissing.
	Selection sync.Selection
	// Progress is told how it goes, from several goroutines at once. May be nil.
	Progress func(sync.Event)
}

// PlanSyncFrom looks at both sides and says what SyncFrom would do.
//
// Errors: those of SyncFrom before anything is brought.
func (r *Registry) PlanSyncFrom(ctx context.Context, opts *SyncFromOptions) (*sync.Plan, error) {
	plan := &sync.Plan{Items: []sync.Item{}}
	err := r.syncingFrom(opts, func(from *remote.Registry, to []sync.To, sel sync.Selection) error {
		one, err := sync.Make(ctx, from, to, sel)
		if err == nil {
			plan.Items, plan.Transfers = append(plan.Items, one.Items...), append(plan.Transfers, one.Transfers...)
		}
		return err
	})
	return plan, err
}

// SyncFrom brings images of remote registries into the layout: what it lacks, and nothing else. What any repository of it has
// is not fetched; a large blob whose download was stopped, or killed, goes on where it was. The report tells each image, also
// of those that failed. One registry is asked after the other.
//
// Errors: sync.ErrNothing for what is not there; berth.ErrNameInvalid for what is no reference or pattern, and for repositories of
// two registries that would be one in the layout; berth.ErrUnsupported for an index with some of its images where the layout is
// open without Options.AllowMissing; those of the registries; for what could not be brought, one joined error an image.
func (r *Registry) SyncFrom(ctx context.Context, opts *SyncFromOptions) (*sync.Report, error) {
	report := &sync.Report{Items: []sync.Result{}}
	err := r.syncingFrom(opts, func(from *remote.Registry, to []sync.To, sel sync.Selection) error {
		one, err := sync.Run(ctx, from, to, sel, &sync.ApplyOptions{Progress: opts.Progress})
		if one != nil {
			report.Items, report.Total = append(report.Items, one.Items...), report.Total.Add(one.Total)
		}
		return err
	})
	return report, err
}

// uploadsJournal is the file of the downloads into the layout that have not come to their end.
const uploadsJournal = "layout.journal"

// syncingFrom does something with each registry that references name, and what of it is wanted. One that fails does not hold
// back the others.
func (r *Registry) syncingFrom(opts *SyncFromOptions, do func(*remote.Registry, []sync.To, sync.Selection) error) error {
	if opts == nil {
		opts = &SyncFromOptions{}
	}
	sel := opts.Selection
	if (sel.Sparse || len(sel.Platforms) > 1) && !r.remotes.opts.AllowMissing {
		return fmt.Errorf("%w: the layout takes no index without all of its images; open it with Options.AllowMissing", berth.ErrUnsupported)
	}
	sel.Prune = false
	froms, err := r.remotes.froms(opts.References)
	if err != nil {
		return err
	}
	uploads, err := sync.OpenUploads(filepath.Join(r.session.ControlDir(), syncDir, uploadsJournal))
	if err != nil {
		return err
	}
	names := &origins{of: map[string]string{}}
	var errs []error
	for _, f := range froms {
		place := layoutPlace{r, f.registry.Host(), names}
		sel.Patterns = f.patterns
		errs = append(errs, do(f.registry, []sync.To{{Registry: place, Prefix: opts.Prefix, Memory: uploads}}, sel))
	}
	return errors.Join(append(errs, uploads.Close())...)
}

// from is what is wanted of one registry.
type from struct {
	registry *remote.Registry
	patterns []string
}

// froms reads references, and sorts them by their hosts.
func (r *Remotes) froms(references []string) (all []*from, err error) {
	byHost := map[string]*from{}
	for _, text := range references {
		host, pattern, err := splitPattern(text)
		if err != nil {
			return nil, err
		}
		f := byHost[host]
		if f == nil {
			registry, err := r.Registry(host)
			if err != nil {
				return nil, err
			}
			f = &from{registry: registry}
			byHost[host] = f
			all = append(all, f)
		}
		f.patterns = append(f.patterns, pattern)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: no reference is given, like docker://registry.example.com/team/app:v1", sync.ErrNothing)
	}
	return all, nil
}

// splitPattern divides a reference or a pattern into its host and the rest.
func splitPattern(text string) (host, pattern string, err error) {
	rest, not := strings.CutPrefix(text, "!")
	rest = strings.TrimPrefix(rest, FormRegistry)
	if scheme, at, ok := strings.Cut(rest, "://"); ok {
		return "", "", fmt.Errorf("%.200q: %w: leave out %s://, and write docker://%s", text, berth.ErrNameInvalid, scheme, at)
	}
	ref, _, err := RemoteReference(FormRegistry + rest)
	if err != nil {
		return "", "", err
	}
	host, pattern = pin.SplitHost(ref)
	if !strings.Contains(pattern, ":") {
		pattern += ":latest"
	}
	if not {
		pattern = "!" + pattern
	}
	return host, pattern, nil
}

// layoutPlace is the layout as the destination of what comes from one host.
type layoutPlace struct {
	registry *Registry
	from     string
	names    *origins
}

// origins are the hosts that repositories come from.
type origins struct {
	mu gosync.Mutex // guards the field below
	of map[string]string
}

// Host is empty: what is here has no host.
func (p layoutPlace) Host() string { return "" }

func (p layoutPlace) Open(name string) (*remote.Repository, error) {
	p.names.mu.Lock()
	defer p.names.mu.Unlock()
	if other := p.names.of[name]; other != "" && other != p.from {
		return nil, fmt.Errorf("%s and %s both have a repository that would be %s here: %w; bring them one by one, under other names",
			path.Join(other, name), path.Join(p.from, name), name, berth.ErrNameInvalid)
	}
	p.names.of[name] = p.from
	return p.registry.Open(name)
}

// Keeps reports whether the layout has a blob, in whatever repository.
func (p layoutPlace) Keeps(desc v1.Descriptor) bool {
	if berth.ValidateDigest(desc.Digest) != nil {
		return false
	}
	info, err := os.Stat(blobFile(p.registry.dir, desc.Digest))
	return err == nil && info.Size() == desc.Size
}
