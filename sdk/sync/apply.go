package sync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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
//
// Errors: berth.ErrUnsupported for a plan that no Make has made, with a nil report.
func Apply(ctx context.Context, from berth.Registry, to []To, plan *Plan, opts *ApplyOptions) (*Report, error) {
	if err := plan.check(); err != nil {
		return nil, err
	}
	a := newApplication(from, to, len(plan.Items), opts)
	if a.trees = plan.trees; a.trees == nil {
		a.trees = &trees{from: from, referrers: true}
	}
	for _, t := range plan.Transfers {
		if h := a.hosts[t.Host]; h != nil {
			h.expect(t)
		}
	}
	hosts := map[*hostRun][]int{}
	for at, item := range plan.Items {
		a.results[at] = Result{Item: item}
		if h := a.hosts[item.Host]; h != nil {
			hosts[h] = append(hosts[h], at)
		} else {
			a.errs[at] = fmt.Errorf("%s: the plan is for this host, and not for %s: %w", item.There(), strings.Join(slices.Sorted(maps.Keys(a.hosts)), " and "), berth.ErrUnsupported)
		}
	}
	begin := errgroup.Group{}
	for h, items := range hosts {
		begin.Go(func() error { h.begin(ctx, items); return nil })
	}
	begin.Wait()
	return a.end(ctx)
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

func newApplication(from berth.Registry, to []To, items int, opts *ApplyOptions) *application {
	a := &application{from: from, hosts: map[string]*hostRun{}, results: make([]Result, items), errs: make([]error, items)}
	if opts != nil {
		a.opts = *opts
	}
	if a.opts.Parallel <= 0 {
		a.opts.Parallel = defaultItems
	}
	for _, place := range to {
		if a.hosts[place.Registry.Host()] == nil {
			a.hosts[place.Registry.Host()] = newHostRun(a, place)
		}
	}
	return a
}

// end waits for all that was begun, and reports it.
func (a *application) end(ctx context.Context) (*Report, error) {
	hosts := errgroup.Group{}
	for _, h := range a.hosts {
		hosts.Go(func() error {
			h.running.Wait()
			h.remove(ctx)
			return nil
		})
	}
	hosts.Wait()
	report, told := &Report{Items: a.results}, map[error]bool{}
	var errs []error
	begun := len(a.results) == 0
	for i := range a.results {
		r, err := &a.results[i], a.errs[i]
		begun = begun || r.Change != Unknown && r.Change != Removed
		if err != nil {
			r.Error = err.Error()
		}
		if err != nil && !told[err] {
			told[err] = true
			errs = append(errs, err)
		}
		report.Total = report.Total.Add(r.Stats)
	}
	switch {
	case !begun:
		return nil, errors.Join(errs...)
	case ctx.Err() != nil:
		return report, ctx.Err()
	}
	return report, errors.Join(errs...)
}

// hostRun is what goes to one host. What one of its images has brought the others find there.
type hostRun struct {
	*application
	to      To
	memory  *Memory
	running errgroup.Group

	mu           sync.Mutex // guards the fields below
	items        []int      // of the results; no two hosts have one in common
	removed      []int
	failed       bool // something was not begun
	planned      map[blobAt]Transfer
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
		application: a, to: to, memory: to.Memory, planned: map[blobAt]Transfer{},
		repositories: map[string]*remote.Repository{}, brought: map[string]*flight{}, first: map[digest.Digest]*flight{},
	}
	h.running.SetLimit(a.opts.Parallel)
	if h.memory == nil {
		h.memory = &Memory{}
	}
	return h
}

// expect notes how a blob is to come.
func (h *hostRun) expect(t Transfer) {
	h.mu.Lock()
	h.planned[blobAt{t.Repository, t.Descriptor.Digest}] = t
	h.mu.Unlock()
	if t.Action == Sent {
		h.tell(Event{Host: t.Host, Repository: t.Repository, Descriptor: t.Descriptor})
	}
}

// begin begins with some of the results' items. It waits while too many images are on their way.
func (h *hostRun) begin(ctx context.Context, items []int) {
	for _, j := range h.jobs(items) {
		h.running.Go(func() error {
			h.ended(j, h.bring(ctx, j))
			return nil
		})
	}
}

// jobs is what is to be done about items. Those that are the same image in the same repository are one job.
func (h *hostRun) jobs(items []int) (all []*job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.items = append(h.items, items...)
	byKey := map[string]*job{}
	for _, at := range items {
		item := h.results[at].Item
		ref, err := berth.ParseReference(item.Target)
		switch {
		case err != nil:
			h.errs[at] = err
		case item.Change == Refused:
			h.errs[at] = fmt.Errorf("%s → %s: refused: %s", item.Here(), item.There(), item.Reason)
		case item.Change == Removed:
			h.removed = append(h.removed, at)
		case item.Drifted():
			key := fmt.Sprint(ref.Repository, "@", item.Descriptor.Digest, item.Platforms, item.Change == Unchanged)
			if byKey[key] == nil {
				byKey[key] = &job{ref: ref}
				all = append(all, byKey[key])
			}
			byKey[key].take(at, item, ref.Tag)
		}
	}
	return all
}

// take adds an item. What refers to the image may be told of any of them.
func (j *job) take(at int, item Item, tag string) {
	referrers := append(j.item.Referrers, item.Referrers...)
	if len(j.items) == 0 {
		j.item = item
	}
	j.item.Referrers = referrers
	j.items = append(j.items, at)
	if item.Change != Unchanged && tag != "" {
		j.tags, j.was = append(j.tags, tag), append(j.was, item.Was)
	}
}

// ended notes what has become of a job. No two jobs have an item in common.
func (h *hostRun) ended(j *job, err error) {
	h.results[j.items[0]].Stats = j.stats
	for _, at := range j.items {
		if err != nil {
			item := h.results[at].Item
			h.errs[at] = fmt.Errorf("%s → %s: %w", item.Here(), item.There(), err)
		}
	}
}

// giveUp notes that something has not even been begun.
func (h *hostRun) giveUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = true
}

// remove removes the tags that are not here, if all else is well.
func (h *hostRun) remove(ctx context.Context) {
	failed := h.failed || slices.ContainsFunc(h.items, func(at int) bool { return h.errs[at] != nil })
	for _, at := range h.removed {
		item := h.results[at].Item
		if failed {
			h.errs[at] = fmt.Errorf("%s: it is not removed, because something else has failed", item.There())
			continue
		}
		if err := h.removeOne(ctx, item); err != nil {
			h.errs[at] = fmt.Errorf("remove %s: %w", item.There(), err)
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
	_, err = found(repo.Untag(ctx, ref.Tag, &berth.UntagOptions{IfMatch: item.Was}), berth.ErrManifestUnknown)
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

func (h *hostRun) tell(e Event) {
	if h.opts.Progress != nil {
		h.opts.Progress(e)
	}
}
