package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
)

// ApplyOptions say how a plan is carried out. Nil is the zero value.
type ApplyOptions struct {
	// Parallel is how many images are on their way to a host at once. Zero: 256. How many requests a host is sent at once is
	// said with its registry: see remote.Options.
	Parallel int
	// Progress is called as it goes, from several goroutines at once. May be nil.
	Progress func(Event)
	// Verify asks the target for each tag that was set what it has now, also where the registry has told that already.
	Verify bool
}

// Report is what was done.
type Report struct {
	Items []Result `json:"items"`
	Total Stats    `json:"total"`
}

// Result is what was done for one tag.
type Result struct {
	Item
	Stats Stats `json:"stats"`
	// Error is empty where the tag is there now what the plan says.
	Error string `json:"error,omitempty"`
}

// Apply carries out a plan, which may have been made by another process some time ago. One item's failure does not end the
// others; the report tells each, and the error joins them. What several tags have in common is counted with the first of
// them. Tags are removed at the end, if nothing has failed.
//
// When it returns nil, every tag of the plan is what the plan says. When its context ends, what was brought is remembered, where
// there is a Memory, and the next Apply goes on from there.
func Apply(ctx context.Context, from berth.Registry, to []To, plan *Plan, opts *ApplyOptions) (*Report, error) {
	a := newApplication(from, to, plan, opts)
	hosts := errgroup.Group{}
	for _, h := range a.hosts {
		hosts.Go(func() error { h.run(ctx); return nil })
	}
	hosts.Wait()
	report := &Report{Items: a.results}
	var errs []error
	for i := range report.Items {
		r := &report.Items[i]
		if a.errs[i] != nil {
			r.Error = a.errs[i].Error()
			errs = append(errs, a.errs[i])
		}
		report.Total = report.Total.add(r.Stats)
	}
	if ctx.Err() != nil {
		return report, ctx.Err()
	}
	return report, errors.Join(errs...)
}

// application is a plan on its way.
type application struct {
	from    berth.Registry
	opts    ApplyOptions
	trees   *trees
	hosts   map[string]*hostRun
	results []Result
	errs    []error // of the results
}

const defaultItems = 256

func newApplication(from berth.Registry, to []To, plan *Plan, opts *ApplyOptions) *application {
	a := &application{from: from, hosts: map[string]*hostRun{}, results: []Result{}, errs: make([]error, len(plan.Items))}
	if opts != nil {
		a.opts = *opts
	}
	if a.opts.Parallel <= 0 {
		a.opts.Parallel = defaultItems
	}
	if a.trees = plan.trees; a.trees == nil {
		a.trees = &trees{from: from, referrers: true}
	}
	for _, place := range to {
		if a.hosts[place.Registry.Host()] == nil {
			a.hosts[place.Registry.Host()] = newHostRun(a, place)
		}
	}
	for i, item := range plan.Items {
		a.results = append(a.results, Result{Item: item})
		if h := a.hosts[item.Host]; h != nil {
			h.take(i, item)
		} else {
			a.errs[i] = fmt.Errorf("%s/%s: %w: the plan is for another host", item.Host, item.Target, berth.ErrUnsupported)
		}
	}
	for _, t := range plan.Transfers {
		if h := a.hosts[t.Host]; h != nil {
			h.planned[blobAt{t.Repository, t.Descriptor.Digest}] = t
		}
	}
	return a
}

// hostRun is what goes to one host. What one of its images has brought the others find there.
type hostRun struct {
	*application
	to      To
	memory  *Memory
	jobs    []*job
	byKey   map[string]*job
	items   []int // of the results; no two hosts have one in common
	removed []int
	planned map[blobAt]Transfer

	mu           sync.Mutex // guards the fields below
	repositories map[string]*remote.Repository
	brought      map[string]*flight
	first        map[digest.Digest]*flight // of a blob, of the repository that gets it first
}

// job is one image that goes to one repository, with the tags that it gets there.
type job struct {
	item  Item
	ref   berth.Reference // there, with the first tag
	tags  []string
	was   []digest.Digest // what the tags were when the plan was made
	items []int
	stats Stats
}

func newHostRun(a *application, to To) *hostRun {
	h := &hostRun{
		application: a, to: to, memory: to.Memory, byKey: map[string]*job{}, planned: map[blobAt]Transfer{},
		repositories: map[string]*remote.Repository{}, brought: map[string]*flight{}, first: map[digest.Digest]*flight{},
	}
	if h.memory == nil {
		h.memory = &Memory{}
	}
	return h
}

// take adds an item of the plan. Those that are the same image in the same repository are one job.
func (h *hostRun) take(at int, item Item) {
	h.items = append(h.items, at)
	switch {
	case item.Change == Refused:
		h.errs[at] = fmt.Errorf("%s → %s/%s: refused: %s", item.Source, item.Host, item.Target, item.Reason)
		return
	case item.Change == Removed:
		h.removed = append(h.removed, at)
		return
	case !item.Drifted():
		return
	}
	ref, err := berth.ParseReference(item.Target)
	if err != nil {
		h.errs[at] = err
		return
	}
	key := fmt.Sprint(ref.Repository, "@", item.Descriptor.Digest, item.Platforms, item.Change == Unchanged)
	j := h.byKey[key]
	if j == nil {
		j = &job{item: item, ref: ref}
		h.byKey[key] = j
		h.jobs = append(h.jobs, j)
	}
	j.items = append(j.items, at)
	if item.Change != Unchanged {
		j.tags, j.was = append(j.tags, ref.Tag), append(j.was, item.Was)
	}
}

func (h *hostRun) run(ctx context.Context) {
	group := errgroup.Group{}
	group.SetLimit(h.opts.Parallel)
	for _, j := range h.jobs {
		if ctx.Err() != nil {
			h.ended(j, ctx.Err())
			continue
		}
		group.Go(func() error {
			h.ended(j, h.bring(ctx, j))
			return nil
		})
	}
	group.Wait()
	h.remove(ctx)
}

// ended notes what has become of a job. No two jobs have an item in common.
func (h *hostRun) ended(j *job, err error) {
	h.results[j.items[0]].Stats = j.stats
	for _, at := range j.items {
		if err != nil {
			item := h.results[at].Item
			h.errs[at] = fmt.Errorf("%s → %s/%s: %w", item.Source, item.Host, item.Target, err)
		}
	}
}

// remove removes the tags that are not here, if all else is well.
func (h *hostRun) remove(ctx context.Context) {
	failed := slices.ContainsFunc(h.items, func(at int) bool { return h.errs[at] != nil })
	for _, at := range h.removed {
		item := h.results[at].Item
		if failed {
			h.errs[at] = fmt.Errorf("%s/%s: it is not removed, because something else has failed", item.Host, item.Target)
			continue
		}
		if err := h.removeOne(ctx, item); err != nil {
			h.errs[at] = fmt.Errorf("remove %s/%s: %w", item.Host, item.Target, err)
		}
	}
}

func (h *hostRun) removeOne(ctx context.Context, item Item) error {
	ref, err := berth.ParseReference(item.Target)
	if err != nil {
		return err
	}
	repo, err := h.repository(ref.Repository)
	if err != nil {
		return err
	}
	_, err = found(repo.Untag(ctx, ref.Tag, nil), berth.ErrManifestUnknown)
	if err == nil {
		h.memory.note(record{Repository: ref.Repository, Tag: ref.Tag})
	}
	return err
}

func (h *hostRun) repository(name string) (*remote.Repository, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.repositories[name]; known != nil {
		return known, nil
	}
	repo, err := h.to.Registry.Open(name)
	if err == nil {
		if !h.memory.knows(name) {
			h.memory.begun(name)
		}
		h.repositories[name] = repo
	}
	return repo, err
}

// flight is something that is brought once, and that all wait for who need it.
type flight struct {
	done   chan struct{} // closed when err is set
	err    error
	action Action
	at     string // the repository
}

// once brings something, or waits for who does. It reports whether it was this one.
func (h *hostRun) once(ctx context.Context, key string, bring func(*flight) error) (*flight, bool, error) {
	f, known := h.join(key)
	for known {
		select {
		case <-f.done:
		case <-ctx.Done():
			return f, false, ctx.Err()
		}
		if !errors.Is(f.err, context.Canceled) {
			return f, false, f.err
		}
		f, known = h.join(key) // the other one has failed at something else
	}
	f.err = bring(f)
	if f.err != nil { // who comes later tries again
		h.mu.Lock()
		delete(h.brought, key)
		h.mu.Unlock()
	}
	close(f.done)
	return f, true, f.err
}

// join returns what brings something, and whether somebody else does.
func (h *hostRun) join(key string) (f *flight, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f = h.brought[key]; f != nil {
		return f, true
	}
	f = &flight{done: make(chan struct{})}
	h.brought[key] = f
	return f, false
}

func (h *hostRun) tell(e Event) {
	if h.opts.Progress != nil {
		h.opts.Progress(e)
	}
}
