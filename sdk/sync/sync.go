// Package sync brings images from one registry to others: plan and apply.
//
// A [Plan] is data: for each selected tag, what it is here, what it is there, and what would be done.
// It can be printed, and it can be applied.
//
//	plan, err := sync.Make(ctx, local, target, sync.Selection{Patterns: []string{"app/web:v*"}})
//	report, err := sync.Apply(ctx, local, target, plan, nil)
//
// [Copy] is the part below: one image to one place, children first, names last. Whoever looks at the
// target meanwhile sees a tag as it was or as it will be, and never one that names something
// incomplete.
package sync

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
)

// ErrNothing is the error for patterns that select no tag.
var ErrNothing = errors.New("no tag matches")

// Selection says which tags are meant, and what they are called there.
type Selection struct {
	// Patterns are REPOSITORY[:TAG], each part a glob: * stands for any characters but /, ** between
	// slashes for any number of parts, so that app/** is app and all that is below it. Without a
	// tag all tags of the repository are meant.
	Patterns []string
	// Prefix is put before the repository's name at the target. May be empty.
	Prefix string
}

// glob is a pattern, read.
type glob struct{ text, repository, tag string }

func (s Selection) globs() (globs []glob, err error) {
	for _, pattern := range s.Patterns {
		repository, tag, ok := strings.Cut(pattern, ":")
		if !ok {
			tag = "*"
		}
		if repository == "" || tag == "" || !doublestar.ValidatePattern(repository) || !doublestar.ValidatePattern(tag) {
			return nil, fmt.Errorf("pattern %q: %w: want REPOSITORY[:TAG], with * and ** for any characters", pattern, berth.ErrNameInvalid)
		}
		globs = append(globs, glob{pattern, repository, tag})
	}
	if len(globs) == 0 {
		return nil, fmt.Errorf("%w: no pattern is given", ErrNothing)
	}
	return globs, nil
}

// Destination is a registry that images are brought to.
type Destination interface {
	// Host is its name.
	Host() string
	// Open returns a repository of it.
	Open(name string) (*remote.Repository, error)
}

// Plan is what would be done.
type Plan struct {
	// Host of the target.
	Host  string `json:"host"`
	Items []Item `json:"items"`
}

// Item is one tag.
type Item struct {
	// Source and Target are REPOSITORY:TAG.
	Source string `json:"source"`
	Target string `json:"target"`
	// Descriptor of the image here.
	Descriptor v1.Descriptor `json:"descriptor"`
	// Was is the digest that the tag has there. Empty: there is no such tag.
	Was string `json:"was,omitempty"`
}

// Drifted reports whether the tag is something else there.
func (i Item) Drifted() bool { return i.Was != string(i.Descriptor.Digest) }

// Drift returns the items that differ.
func (p *Plan) Drift() []Item {
	var drifted []Item
	for _, item := range p.Items {
		if item.Drifted() {
			drifted = append(drifted, item)
		}
	}
	return drifted
}

// Make looks at both sides and says what would be done. It sends one HEAD for each tag to the target.
//
// Errors: ErrNothing for a pattern that selects no tag, and for no pattern at all;
// berth.ErrNameInvalid for a pattern that is none; those of either registry, with its name.
func Make(ctx context.Context, from berth.Registry, to Destination, sel Selection) (*Plan, error) {
	globs, err := sel.globs()
	if err != nil {
		return nil, err
	}
	s := &selector{from: from, prefix: sel.Prefix, taken: map[string]bool{}, items: []Item{}}
	for _, g := range globs {
		if err := s.match(ctx, g); err != nil {
			return nil, err
		}
	}
	for i := range s.items {
		if err := s.items[i].compare(ctx, to); err != nil {
			return nil, err
		}
	}
	return &Plan{Host: to.Host(), Items: s.items}, nil
}

// selector gathers the tags that patterns match, each once.
type selector struct {
	from   berth.Registry
	prefix string
	taken  map[string]bool
	items  []Item
}

// match takes what a pattern selects. A pattern that selects nothing is a mistake.
func (s *selector) match(ctx context.Context, g glob) error {
	matched := 0
	for name, err := range s.from.Repositories(ctx, "") {
		if err != nil {
			return err
		}
		if !matches(g.repository, name) {
			continue
		}
		n, err := s.matchTags(ctx, name, g.tag)
		if err != nil {
			return err
		}
		matched += n
	}
	if matched == 0 {
		return fmt.Errorf("pattern %q: %w; berth ls shows what there is", g.text, ErrNothing)
	}
	return nil
}

func matches(glob, name string) bool {
	ok, err := doublestar.Match(glob, name)
	return err == nil && ok
}

// matchTags takes the tags of one repository, and returns how many matched.
func (s *selector) matchTags(ctx context.Context, name, glob string) (matched int, err error) {
	repo, err := s.from.Repository(name)
	if err != nil {
		return 0, err
	}
	for tag, err := range repo.Tags(ctx, "") {
		if err != nil {
			return 0, err
		}
		if !matches(glob, tag) {
			continue
		}
		matched++
		if err := s.take(ctx, repo, tag); err != nil {
			return 0, err
		}
	}
	return matched, nil
}

func (s *selector) take(ctx context.Context, repo berth.Repository, tag string) error {
	name := repo.Name() + ":" + tag
	if s.taken[name] {
		return nil
	}
	s.taken[name] = true
	desc, err := repo.Resolve(ctx, tag)
	if err != nil {
		return err
	}
	s.items = append(s.items, Item{Source: name, Target: path.Join(s.prefix, name), Descriptor: desc})
	return nil
}

// compare asks the target what the tag is there.
func (i *Item) compare(ctx context.Context, to Destination) error {
	ref, err := berth.ParseReference(i.Target)
	if err != nil {
		return err
	}
	repo, err := to.Open(ref.Repository)
	if err != nil {
		return err
	}
	there, err := repo.Resolve(ctx, ref.Tag)
	if _, err := found(err, berth.ErrManifestUnknown); err != nil {
		return fmt.Errorf("%s/%s: %w", to.Host(), i.Target, err)
	}
	i.Was = string(there.Digest)
	return nil
}

// Report is what was done.
type Report struct {
	Host  string   `json:"host"`
	Items []Result `json:"items"`
	Total Stats    `json:"total"`
}

// Result is what was done for one tag.
type Result struct {
	Item
	Stats Stats `json:"stats"`
	// Error is empty where the tag is there now what it is here.
	Error string `json:"error,omitempty"`
}

// Apply brings every item that differs to the target. One item's failure does not end the others;
// the report tells each, and the error joins them.
func Apply(ctx context.Context, from berth.Registry, to Destination, plan *Plan, opts *CopyOptions) (*Report, error) {
	report := &Report{Host: plan.Host, Items: []Result{}}
	known := &Known{}
	var errs []error
	for _, item := range plan.Items {
		result := Result{Item: item}
		if item.Drifted() {
			stats, err := applyOne(ctx, from, to, item, &applyOptions{opts, known})
			result.Stats = stats
			if err != nil {
				result.Error = err.Error()
				errs = append(errs, fmt.Errorf("%s → %s/%s: %w", item.Source, to.Host(), item.Target, err))
			}
		}
		report.Items = append(report.Items, result)
		report.Total = report.Total.add(result.Stats)
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
	}
	return report, errors.Join(errs...)
}

type applyOptions struct {
	copy  *CopyOptions
	known *Known
}

func applyOne(ctx context.Context, from berth.Registry, to Destination, item Item, opts *applyOptions) (Stats, error) {
	source, err := berth.ParseReference(item.Source)
	if err != nil {
		return Stats{}, err
	}
	target, err := berth.ParseReference(item.Target)
	if err != nil {
		return Stats{}, err
	}
	sourceRepo, err := from.Repository(source.Repository)
	if err != nil {
		return Stats{}, err
	}
	targetRepo, err := to.Open(target.Repository)
	if err != nil {
		return Stats{}, err
	}
	place := ToRepository(targetRepo, []string{target.Tag}, opts.known)
	stats, err := Copy(ctx, Repository(sourceRepo), place, item.Descriptor, opts.copy)
	if err != nil {
		return stats, err
	}
	if ctx.Err() != nil {
		return stats, nil // it is done; there is no time left to look
	}
	return stats, verify(ctx, targetRepo, target.Tag, item.Descriptor)
}

// verify asks the target what it has now: a registry that changed the manifest has not taken it.
func verify(ctx context.Context, repo *remote.Repository, tag string, want v1.Descriptor) error {
	got, err := repo.Resolve(ctx, tag)
	if err != nil {
		return err
	}
	if got.Digest != want.Digest {
		return fmt.Errorf("%s:%s is %s there after the push, not %s: %w", repo.Name(), tag, got.Digest, want.Digest, berth.ErrDigestInvalid)
	}
	return nil
}
