package sdk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/pin"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/sync"
)

// SyncFromOptions say what is brought into the layout.
type SyncFromOptions struct {
	// References are images of remote registries, HOST/REPOSITORY[:TAG][@DIGEST], with or without docker://, https:// or http:// in
	// front: a digest decides, whatever the tag is there; without both it is the tag "latest". They may also be patterns, as
	// those of sync.Selection with a host in front, and with the tags: HOST/app/**:v*.
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
// Errors: those of SyncFrom before anything is brought, with a nil plan; those of registries that could not be asked, of which the
// plan says nothing.
func (r *Registry) PlanSyncFrom(ctx context.Context, opts *SyncFromOptions) (plan *sync.Plan, err error) {
	err = r.syncingFrom(ctx, opts, func(all []*sync.Preparation) error {
		plan = &sync.Plan{Items: []sync.Item{}}
		var errs []error
		for _, p := range all {
			one, err := p.Plan(ctx)
			plan.Items, plan.Transfers = append(plan.Items, one.Items...), append(plan.Transfers, one.Transfers...)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return plan, err
}

// SyncFrom brings images of remote registries into the layout: what it lacks, and nothing else. What any repository of it has
// is not fetched; a large blob whose download was stopped, or killed, goes on where it was. The report tells each image, also
// of those that failed; it is nil where nothing was begun. One registry is asked after the other.
//
// Errors: sync.ErrNothing for what is not there; berth.ErrNameInvalid for what is no reference or pattern;
// berth.ErrTagInvalid for two images that would be the same in the layout; berth.ErrUnsupported for an index with some of its
// images where the layout is open without Options.AllowMissing; those of the registries; for what could not be brought, one
// joined error an image.
func (r *Registry) SyncFrom(ctx context.Context, opts *SyncFromOptions) (report *sync.Report, err error) {
	err = r.syncingFrom(ctx, opts, func(all []*sync.Preparation) error {
		report = &sync.Report{Items: []sync.Result{}}
		var errs []error
		for _, p := range all {
			one, err := p.Run(ctx, &sync.ApplyOptions{Progress: opts.Progress})
			if one != nil {
				report.Items, report.Total = append(report.Items, one.Items...), report.Total.Add(one.Total)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return report, err
}

// uploadsJournal is the file of the downloads into the layout that have not come to their end.
const uploadsJournal = "layout.journal"

// syncingFrom does something with what references name.
func (r *Registry) syncingFrom(ctx context.Context, opts *SyncFromOptions, do func([]*sync.Preparation) error) error {
	if opts == nil {
		opts = &SyncFromOptions{}
	}
	froms, err := r.remotes.froms(opts.References)
	if err != nil {
		return err
	}
	uploads, err := sync.OpenUploads(filepath.Join(r.session.ControlDir(), syncDir, uploadsJournal))
	if err != nil {
		return err
	}
	to := []sync.To{{Registry: layoutPlace{r}, Prefix: opts.Prefix, Memory: uploads}}
	all, err := r.prepareFrom(ctx, froms, to, opts.Selection)
	if err == nil {
		err = do(all)
	}
	return errors.Join(err, uploads.Close())
}

// prepareFrom looks for what is wanted of each registry, before anything is brought.
func (r *Registry) prepareFrom(ctx context.Context, froms []*from, to []sync.To, sel sync.Selection) (all []*sync.Preparation, err error) {
	if (sel.Sparse || len(sel.Platforms) > 1) && !r.remotes.opts.AllowMissing {
		return nil, fmt.Errorf("%w: the layout takes no index without all of its images; open it with Options.AllowMissing", berth.ErrUnsupported)
	}
	sel.Prune = false
	sources := map[string]string{}
	for _, f := range froms {
		sel.Patterns = f.patterns
		p, err := sync.Prepare(ctx, f.registry, to, sel)
		if err != nil {
			return nil, err
		}
		for _, item := range p.Items() {
			if other := sources[item.Target]; other != "" {
				return nil, fmt.Errorf("%s and %s would both be %s here: %w; bring them one by one, under other names",
					other, item.Here(), item.Target, berth.ErrTagInvalid)
			}
			sources[item.Target] = item.Here()
		}
		all = append(all, p)
	}
	return all, nil
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

// splitPattern divides a reference or a pattern into its host, with the scheme if it has one, and the rest.
func splitPattern(text string) (host, pattern string, err error) {
	rest, not := strings.CutPrefix(text, "!")
	rest = strings.TrimPrefix(rest, FormRegistry)
	scheme, at, ok := strings.Cut(rest, "://")
	if !ok {
		scheme, at = "", rest
	}
	ref, _, err := RemoteReference(FormRegistry + at)
	if err != nil {
		return "", "", err
	}
	host, pattern = pin.SplitHost(ref)
	switch {
	case strings.Contains(pattern, ":"):
	case strings.ContainsAny(pattern, "*?[{"):
		return "", "", fmt.Errorf("%.200q: %w: which tags of these repositories? :* means all", text, berth.ErrTagInvalid)
	default:
		pattern += ":latest"
	}
	if ok {
		host = scheme + "://" + host
	}
	if not {
		pattern = "!" + pattern
	}
	return host, pattern, nil
}

// layoutPlace is the layout as a destination.
type layoutPlace struct{ registry *Registry }

// Host is empty: what is here has no host.
func (p layoutPlace) Host() string { return "" }

func (p layoutPlace) Open(name string) (*remote.Repository, error) { return p.registry.Open(name) }

// Keeps reports whether the layout has a blob, in whatever repository.
func (p layoutPlace) Keeps(desc v1.Descriptor) bool {
	if berth.ValidateDigest(desc.Digest) != nil {
		return false
	}
	info, err := os.Stat(blobFile(p.registry.dir, desc.Digest))
	return err == nil && info.Size() == desc.Size
}
