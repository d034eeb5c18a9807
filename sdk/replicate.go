package sdk

import (
	"context"
	"errors"
	"slices"
	"strings"
	gosync "sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/retry"
	"github.com/berthoci/berth/sdk/sync"
)

const (
	// gatherTime is how long is waited for more after a change: an image comes with all its tags at once.
	gatherTime = 200 * time.Millisecond
	// maxGathered is from how many tags on all that match are looked at, and not these alone.
	maxGathered = 1000
	// firstRepeat and maxRepeat are how long is waited after a sync that has failed; each time twice as long.
	firstRepeat = time.Second
	maxRepeat   = time.Minute
)

// Replicate syncs, and then follows what happens to the layout and brings every push that matches to the targets, until its
// context ends. What could not be brought is tried again, for as long as it takes. It begins with all that matches, so that
// nothing is forgotten that was pushed while nobody was replicating. tell is called after each sync with its report, which
// may be nil, and its error; it may be nil.
//
// Errors: ctx.Err(); those of PlanSync for options that can never do; those of Watch.
func (r *Registry) Replicate(ctx context.Context, opts *SyncOptions, tell func(*sync.Report, error)) error {
	if opts == nil {
		opts = &SyncOptions{}
	}
	selects, err := opts.Selection.Matcher(opts.Patterns)
	if err != nil {
		return err
	}
	if tell == nil {
		tell = func(*sync.Report, error) {}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &replication{registry: r, opts: *opts, selects: selects, tell: tell, changed: make(chan struct{}, 1)}
	p.opts.Selection.MayBeNothing = true
	watching := make(chan error, 1)
	go func() {
		defer cancel()
		watching <- p.watch(ctx)
	}()
	p.run(ctx)
	cancel()
	return <-watching
}

// replication is one Replicate.
type replication struct {
	registry *Registry
	opts     SyncOptions
	selects  func(repository, tag string) bool
	tell     func(*sync.Report, error)
	changed  chan struct{} // that there is something to do

	mu   gosync.Mutex // guards the fields below
	all  bool
	tags map[string]bool // REPOSITORY:TAG
}

// watch notes what is to be brought.
func (p *replication) watch(ctx context.Context) error {
	for {
		for event, err := range p.registry.Watch(ctx, nil) {
			if errors.Is(err, berth.ErrEventsLost) {
				break
			}
			if err != nil {
				return err
			}
			p.note(event)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		p.noteAll() // somewhere the sequence was broken
	}
}

// note takes what an event is about. The first is a bookmark: from here on nothing is missed, and all is looked at.
func (p *replication) note(event berth.Event) {
	switch event.Kind {
	case berth.EventBookmark:
		p.mu.Lock()
		first := p.tags == nil
		p.mu.Unlock()
		if first {
			p.noteAll()
		}
		return
	case berth.EventPush, berth.EventTag:
		if p.opts.Selection.Referrers && (len(event.Tags) == 0 && mayRefer(event.Descriptor) || slices.ContainsFunc(event.Tags, mayBelong)) {
			p.noteAll()
			return
		}
	case berth.EventUntag, berth.EventDelete:
		if p.opts.Selection.Prune {
			p.noteAll()
		}
		return
	default:
		return
	}
	p.noteTags(event.Repository, event.Tags)
}

// mayRefer reports whether a manifest that was pushed may be one that refers to another: it is none of an image.
func mayRefer(desc v1.Descriptor) bool {
	switch desc.ArtifactType {
	case "", v1.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json":
		return false
	}
	return true
}

// mayBelong reports whether a tag may stand for what belongs to an image, whose own tag is selected: "sha256-HEX.sig".
func mayBelong(tag string) bool { return strings.HasPrefix(tag, "sha256-") }

func (p *replication) noteTags(repository string, tags []string) {
	for _, tag := range tags {
		if p.selects(repository, tag) {
			p.mu.Lock()
			p.tags[repository+":"+tag] = true
			p.mu.Unlock()
			p.wake()
		}
	}
}

func (p *replication) noteAll() {
	p.mu.Lock()
	p.all = true
	if p.tags == nil {
		p.tags = map[string]bool{}
	}
	p.mu.Unlock()
	p.wake()
}

func (p *replication) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// take is what there is to do; nil is all.
func (p *replication) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.all || len(p.tags) > maxGathered
	tags := []string{} // there may be none: an event that came while more was waited for has been taken already
	for tag := range p.tags {
		tags = append(tags, tag)
	}
	p.all, p.tags = false, map[string]bool{}
	if all {
		return nil
	}
	slices.Sort(tags)
	return tags
}

// run brings what is to be brought. After a failure all is looked at again, whatever comes in between.
func (p *replication) run(ctx context.Context) {
	repeat := firstRepeat
	var again <-chan time.Time
	for {
		select {
		case <-p.changed:
		case <-again:
			again = nil
			p.noteAll()
			<-p.changed
		case <-ctx.Done():
			return
		}
		if retry.Wait(ctx, gatherTime) != nil {
			return
		}
		err := p.sync(ctx, p.take())
		switch {
		case again != nil:
		case err != nil:
			again = time.After(repeat)
			repeat = min(maxRepeat, 2*repeat)
		default:
			repeat = firstRepeat
		}
	}
}

func (p *replication) sync(ctx context.Context, tags []string) error {
	opts := p.opts
	if tags != nil {
		opts.Patterns, opts.Selection.Prune = tags, false
		if len(tags) == 0 {
			return nil
		}
	}
	report, err := p.registry.Sync(ctx, &opts)
	if ctx.Err() == nil {
		p.tell(report, err)
	}
	return err
}
