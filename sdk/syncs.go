package sdk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/sync"
)

// syncDir is where a layout's memory of remote registries lies, in its control directory.
const syncDir = "sync"

// SyncOptions say what is brought where.
type SyncOptions struct {
	// To is HOST[/PREFIX]: the prefix is put before each repository's name. It may begin with http://, https:// or docker://.
	To string
	// Also are more of them, which all get the same.
	Also []string
	// Patterns select the tags: see sync.Selection. A repository without a tag means all its tags here, where Push
	// and Pin mean "latest".
	Patterns []string
	// Selection says more of what is selected, and how it is called there. Its Patterns are not used.
	Selection sync.Selection
	// Verify asks the targets for each tag that was set what it has now, also where they have told that already.
	Verify bool
	// Progress is told how it goes, from several goroutines at once. May be nil.
	Progress func(sync.Event)
}

// PlanSync looks at both sides and says what Sync would do. The plan is carried out by [Registry.ApplyPlan].
//
// Errors: sync.ErrNothing; berth.ErrNameInvalid for a target or a pattern that is none;
// berth.ErrUnsupported for plain http beyond this machine, where Options.PlainHTTP does not list it;
// berth.ErrUnauthorized and berth.ErrDenied, with the registry's own words.
func (r *Registry) PlanSync(ctx context.Context, opts *SyncOptions) (plan *sync.Plan, err error) {
	err = r.syncing(opts, func(to []sync.To, sel sync.Selection) error {
		plan, err = sync.Make(ctx, files{r}, to, sel)
		return err
	})
	return plan, err
}

// Sync brings tags of the layout to remote registries: what they lack, and nothing else. What they have is remembered in the
// layout, so that a sync that was killed goes on where it was. The report tells each tag, also of those that failed; it is
// nil where nothing was begun.
//
// Errors: those of PlanSync; for what could not be brought, one joined error a tag.
func (r *Registry) Sync(ctx context.Context, opts *SyncOptions) (report *sync.Report, err error) {
	err = r.syncing(opts, func(to []sync.To, sel sync.Selection) error {
		report, err = sync.Run(ctx, files{r}, to, sel, opts.apply())
		return err
	})
	return report, err
}

// ApplyPlan carries out a plan that PlanSync has made, for targets that opts names; of the others of these only Progress and
// Verify count.
//
// Errors: those of sync.Apply; berth.ErrPreconditionFailed for a tag that has moved since.
func (r *Registry) ApplyPlan(ctx context.Context, plan *sync.Plan, opts *SyncOptions) (report *sync.Report, err error) {
	err = r.syncing(opts, func(to []sync.To, _ sync.Selection) error {
		report, err = sync.Apply(ctx, files{r}, to, plan, opts.apply())
		return err
	})
	return report, err
}

func (o *SyncOptions) apply() *sync.ApplyOptions {
	return &sync.ApplyOptions{Progress: o.Progress, Verify: o.Verify}
}

// syncing does something with the targets, and what is known of them.
func (r *Registry) syncing(opts *SyncOptions, do func([]sync.To, sync.Selection) error) (err error) {
	if opts == nil {
		opts = &SyncOptions{}
	}
	sel := opts.Selection
	sel.Patterns = opts.Patterns
	var to []sync.To
	memories := map[string]*sync.Memory{}
	defer func() {
		for _, m := range memories {
			err = errors.Join(err, m.Close())
		}
	}()
	for _, name := range append([]string{opts.To}, opts.Also...) {
		registry, prefix, err := r.remotes.target(name)
		if err != nil {
			return err
		}
		if memories[registry.Host()] == nil {
			memory, err := sync.OpenMemory(r.journal(registry))
			if err != nil {
				return err
			}
			memories[registry.Host()] = memory
		}
		to = append(to, sync.To{Registry: registry, Prefix: prefix, Memory: memories[registry.Host()]})
	}
	return do(to, sel)
}

// journal is the file of what is known of a registry. Its name has nothing in it that a file system does not take.
func (r *Registry) journal(registry *remote.Registry) string {
	name := strings.NewReplacer(":", "_", "[", "", "]", "").Replace(registry.Host())
	return filepath.Join(r.session.ControlDir(), syncDir, name+".journal")
}

// target reads HOST[/PREFIX].
func (r *Remotes) target(to string) (*remote.Registry, string, error) {
	if to == "" {
		return nil, "", fmt.Errorf("target: %w: none is named; it is HOST[/PREFIX], like registry.example.com/team", berth.ErrNameInvalid)
	}
	scheme, rest, ok := strings.Cut(strings.TrimPrefix(to, FormRegistry), "://")
	if !ok {
		scheme, rest = "", strings.TrimPrefix(to, FormRegistry)
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
