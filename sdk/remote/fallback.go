package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/internal/retry"
	"github.com/berthoci/berth/manifest"
)

// A registry without the API for referrers has a tag for each subject that lists them, which who pushes a referrer keeps up to
// date (distribution specification, "Referrers Tag Schema"). Others may do so at the same time:
//
//   - A registry that keeps to If-Match refuses the one that comes second, which reads the list again.
//   - With another one, who has written looks again after a while, until the list rests and what was written is in it: for
//     somebody may have read it before that, and written it after. Whose writing takes long watches the list meanwhile: what
//     others have written in that time, it would have overwritten.

const (
	// maxMerges bounds how often a list is written for one change.
	maxMerges = 50
	// minPause is how long, at least, a list has to rest that anybody may overwrite.
	minPause = 100 * time.Millisecond
	// impossible is what no list has as its digest, but by a chance that does not come.
	impossible = digest.Digest("sha256:0000000000000000000000000000000000000000000000000000000000000000")
)

// fallbacks are the lists that are being changed, each by one at a time.
type fallbacks struct {
	mu    sync.Mutex // guards the fields below, and those of every list
	lists map[string]*fallback
}

// fallback is one list. Changes that come while it is written wait, and are written together.
type fallback struct {
	turn    chan struct{} // held by who writes
	users   int
	waiting []*change
}

// change is one referrer that comes or goes. What has become of it is known to who has the turn.
type change struct {
	desc v1.Descriptor
	gone bool
	done bool
	err  error
}

// add has a change wait for its turn.
func (f *fallbacks) add(key string, c *change) *fallback {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lists == nil {
		f.lists = map[string]*fallback{}
	}
	list := f.lists[key]
	if list == nil {
		list = &fallback{turn: make(chan struct{}, 1)}
		f.lists[key] = list
	}
	list.users++
	list.waiting = append(list.waiting, c)
	return list
}

// leave forgets a list that nobody changes any more.
func (f *fallbacks) leave(key string, list *fallback) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if list.users--; list.users == 0 {
		delete(f.lists, key)
	}
}

// withdraw takes back a change that nobody has begun to write.
func (f *fallbacks) withdraw(list *fallback, c *change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list.waiting = slices.DeleteFunc(list.waiting, func(one *change) bool { return one == c })
}

func (f *fallbacks) take(list *fallback) []*change {
	f.mu.Lock()
	defer f.mu.Unlock()
	taken := list.waiting
	list.waiting = nil
	return taken
}

// announce sees to it that a manifest is listed among the referrers of its subject, or is not any more.
func (r *Repository) announce(ctx context.Context, subject digest.Digest, c *change) error {
	key, all := r.path+"@"+string(subject), &r.registry.fallbacks
	list := all.add(key, c)
	defer all.leave(key, list)
	select {
	case list.turn <- struct{}{}:
	case <-ctx.Done():
		all.withdraw(list, c)
		return ctx.Err()
	}
	defer func() { <-list.turn }()
	if c.done {
		return c.err
	}
	changes := all.take(list)
	err := r.rewrite(ctx, subject, changes)
	if err != nil && ctx.Err() != nil {
		all.giveBack(list, changes, c)
		return err
	}
	for _, one := range changes {
		one.done, one.err = true, err
	}
	return err
}

// giveBack leaves to others what who had the turn could not write, because its context has ended.
func (f *fallbacks) giveBack(list *fallback, changes []*change, own *change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range changes {
		if one != own {
			list.waiting = append(list.waiting, one)
		}
	}
}

// rewrite brings a list up to date.
func (r *Repository) rewrite(ctx context.Context, subject digest.Digest, changes []*change) error {
	tag := fallbackTag(subject)
	changes = slices.Clone(changes)
	for range maxMerges {
		begin := time.Now()
		list, err := r.readList(ctx, tag)
		if err != nil || !list.apply(changes) {
			return err
		}
		others, err := r.writeWatching(ctx, tag, list, changes)
		changes = append(changes, others...)
		switch {
		case errors.Is(err, berth.ErrPreconditionFailed):
			err = retry.Wait(ctx, rand.N(4*time.Since(begin)+time.Millisecond))
		case err == nil && r.registry.learnt.conditions.isYes():
			return nil
		case err == nil:
			if err = r.rests(ctx, tag, changes, time.Since(begin)); err == nil {
				return nil
			}
		}
		if err != nil && !errors.Is(err, errOverwritten) {
			return err
		}
	}
	return fmt.Errorf("%s/%s:%s, the list of referrers: %w: others change it all the time", r.registry.host, r.name, tag, berth.ErrPreconditionFailed)
}

// writeWatching is writeList where that may overwrite what others write meanwhile. It returns what it has seen of that.
func (r *Repository) writeWatching(ctx context.Context, tag string, list *referrerList, changes []*change) (others []*change, err error) {
	if !r.registry.learnt.conditions.isNo() {
		return nil, r.writeList(ctx, tag, list)
	}
	watching, done := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { others = r.watchList(watching, tag, list, changes) })
	err = r.writeList(ctx, tag, list)
	done()
	watch.Wait()
	return others, err
}

// watchList reads a list again and again until its context ends, and returns what there was in it that the given one has not,
// and that is not being taken out of it.
func (r *Repository) watchList(ctx context.Context, tag string, list *referrerList, changes []*change) (others []*change) {
	known := map[digest.Digest]bool{}
	for _, c := range changes {
		known[c.desc.Digest] = true
	}
	for _, desc := range list.index.Manifests {
		known[desc.Digest] = true
	}
	for retry.Wait(ctx, minPause/2) == nil {
		now, err := r.readList(ctx, tag)
		if err != nil {
			continue
		}
		for _, desc := range now.index.Manifests {
			if !known[desc.Digest] {
				known[desc.Digest] = true
				others = append(others, &change{desc: desc})
			}
		}
	}
	return others
}

// errOverwritten is what somebody has done to a list.
var errOverwritten = errors.New("the list of referrers was overwritten")

// rests waits until a list has not changed for a while, in which somebody who had read it before could have written it.
//
// Errors: errOverwritten where the changes are not in it any more.
func (r *Repository) rests(ctx context.Context, tag string, changes []*change, took time.Duration) error {
	pause := max(minPause, 4*took)
	last := digest.Digest("")
	for range maxMerges {
		list, err := r.readList(ctx, tag)
		if err != nil {
			return err
		}
		if list.apply(changes) {
			return errOverwritten
		}
		if list.digest == last {
			return nil
		}
		last = list.digest
		if err := retry.Wait(ctx, pause+rand.N(pause)); err != nil {
			return err
		}
	}
	return nil
}

// referrerList is what a tag of referrers names.
type referrerList struct {
	index  v1.Index
	digest digest.Digest // empty: there is no list yet
}

func (r *Repository) readList(ctx context.Context, tag string) (*referrerList, error) {
	m, err := r.FetchManifest(ctx, tag, nil)
	if errors.Is(err, berth.ErrManifestUnknown) {
		index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
		return &referrerList{index: index}, nil
	}
	if err != nil {
		return nil, err
	}
	list := &referrerList{digest: m.Descriptor.Digest}
	if err := unmarshal(m.Raw, &list.index); err != nil {
		return nil, fmt.Errorf("%s/%s:%s: %w", r.registry.host, r.name, tag, err)
	}
	return list, nil
}

// apply makes the changes, and reports whether there was any to make.
func (l *referrerList) apply(changes []*change) (changed bool) {
	for _, c := range changes {
		at := slices.IndexFunc(l.index.Manifests, func(d v1.Descriptor) bool { return d.Digest == c.desc.Digest })
		switch {
		case c.gone && at >= 0:
			l.index.Manifests = slices.Delete(l.index.Manifests, at, at+1)
		case !c.gone && at < 0:
			l.index.Manifests = append(l.index.Manifests, c.desc)
		default:
			continue
		}
		changed = true
	}
	return changed
}

// writeList puts a list where the one is that it was made from. Whether the registry keeps to conditions is found out by
// one that cannot be met: where that is no obstacle, what was to be written is written.
func (r *Repository) writeList(ctx context.Context, tag string, list *referrerList) error {
	raw, err := json.Marshal(list.index)
	if err != nil {
		return err
	}
	opts := &berth.PushOptions{MediaType: v1.MediaTypeImageIndex, Tags: []string{tag}}
	desc, err := r.check(raw, opts)
	if err != nil {
		return err
	}
	conditions := &r.registry.learnt.conditions
	if !conditions.isYes() && !conditions.isNo() {
		opts.IfMatch = impossible
		err := r.push(ctx, desc, raw, opts)
		if !conditions.learnFrom(err) || err == nil {
			return err
		}
	}
	opts.IfMatch, opts.IfNoneMatch = list.digest, list.digest == ""
	if conditions.isNo() {
		opts.IfMatch, opts.IfNoneMatch = "", false
	}
	return r.push(ctx, desc, raw, opts)
}

// learnFrom learns whether a registry keeps to conditions from what it says to one that cannot be met. It reports whether that
// says something about it.
func (a *answer) learnFrom(err error) bool {
	switch {
	case errors.Is(err, berth.ErrPreconditionFailed):
		a.learn(true)
	case err == nil, errors.Is(err, berth.ErrUnsupported), errors.Is(err, berth.ErrManifestInvalid):
		a.learn(false)
	default:
		return false
	}
	return true
}

// listReferrer does what is the client's to do when a referrer was pushed. answer is the registry's, which tells whether it
// has listed it.
func (r *Repository) listReferrer(ctx context.Context, desc v1.Descriptor, raw []byte, answer http.Header) error {
	doc, err := manifest.Parse(desc.MediaType, raw)
	if err != nil || doc.Subject == nil {
		return nil
	}
	if answer.Get("OCI-Subject") != "" {
		r.registry.learnt.referrers.learn(true)
		return nil
	}
	if has, err := r.listsReferrers(ctx, doc.Subject.Digest); has || err != nil {
		return err
	}
	listed := v1.Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size,
		ArtifactType: doc.ReferrerType(), Annotations: doc.Annotations,
	}
	return r.announce(ctx, doc.Subject.Digest, &change{desc: listed})
}

// unlistReferrer does what is the client's to do before a referrer is deleted.
func (r *Repository) unlistReferrer(ctx context.Context, d digest.Digest) error {
	if r.registry.learnt.referrers.isYes() {
		return nil
	}
	m, err := r.FetchManifest(ctx, string(d), nil)
	if err != nil {
		return nil // what is wrong is told by the deletion
	}
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	if err != nil || doc.Subject == nil {
		return nil
	}
	if has, err := r.listsReferrers(ctx, doc.Subject.Digest); has || err != nil {
		return err
	}
	return r.announce(ctx, doc.Subject.Digest, &change{desc: v1.Descriptor{Digest: d}, gone: true})
}

// listsReferrers reports whether the registry has the API for referrers. One that refuses to tell is taken not to have it, for a
// list too many does no harm.
//
// Errors: that of the question, where it has not been answered.
func (r *Repository) listsReferrers(ctx context.Context, subject digest.Digest) (bool, error) {
	known := &r.registry.learnt.referrers
	if known.isYes() || known.isNo() {
		return known.isYes(), nil
	}
	resp, err := r.send(ctx, exchange{request: ocirequest.Request{Kind: ocirequest.ReferrerList, Digest: subject, N: ocirequest.NoLimit}})
	var refused *Error
	switch {
	case err == nil:
		known.learn(true)
		return true, drop(resp)
	case !errors.As(err, &refused):
		return false, err
	}
	switch status := refused.Status; {
	case lacks(status):
		known.learn(false)
		return false, nil
	case status == http.StatusBadRequest, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return false, nil
	}
	return false, err
}

// fallbackTag is the tag that lists a subject's referrers where the endpoint is missing.
func fallbackTag(subject digest.Digest) string {
	algorithm, encoded := subject.Algorithm().String(), subject.Encoded()
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

// fallbackReferrers reads the list that stands in for the API.
func (r *Repository) fallbackReferrers(ctx context.Context, subject digest.Digest, opts *berth.ReferrersOptions, yield func(v1.Descriptor, error) bool) {
	list, err := r.readList(ctx, fallbackTag(subject))
	if err != nil {
		yield(v1.Descriptor{}, err)
		return
	}
	descs := list.index.Manifests
	slices.SortFunc(descs, func(a, b v1.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	for _, desc := range descs {
		if wanted(desc, opts) && !yield(desc, nil) {
			return
		}
	}
}
