package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
)

// ErrNothing is the error for patterns that select no tag.
var ErrNothing = errors.New("no tag matches")

// Selection says which tags are meant, and what they are called there.
type Selection struct {
	// Patterns are REPOSITORY[:TAG]. REPOSITORY is a glob: * stands for any characters but /, ** between slashes for any
	// number of parts, so that app/** is app and all that is below it. TAG is one of these; without one all tags are meant:
	//
	//	v1.*           a glob
	//	/^v[0-9]+$/    a regular expression, between slashes (package regexp)
	//	>=1.2 <2       a range of versions, beginning with one of < > = ^ ~ (Semantic Versioning 2.0.0, with or without a v)
	//
	// A pattern that begins with ! takes away what those before it have selected. REPOSITORY[:TAG]@DIGEST is one image,
	// whatever the tag is here; there it gets that tag, or none.
	Patterns []string
	// Rename is what a tag is called there, made of text and of {repository}, {name}, which is the repository's last part, and
	// {tag}. Empty: "{repository}:{tag}". A target's prefix is put before it.
	Rename string
	// Platforms choose, of an index that has several images, some. With one of them the tag is that image's; with more the
	// index keeps its digest, and the images of the others stay away, which not every registry takes. None: all.
	Platforms []v1.Platform
	// Sparse keeps an index also where one platform is chosen.
	Sparse bool
	// Immutable are patterns of tags, here, that never change: where one has been brought, the target is not asked about it
	// again, and where the target has another image for it, that stays, and is told.
	Immutable []string
	// Referrers says whether what refers to an image goes with it: referrers, and the tags that stand for a signature, an
	// attestation or an SBOM.
	Referrers bool
	// Prune removes, in the repositories that something goes to, tags that the selection would have brought if they
	// were here; but none that Immutable selects, and none of signatures and lists of referrers.
	Prune bool
	// PruneMax is how many may be removed. Zero: 10. Negative: none.
	PruneMax int
	// MayBeNothing takes it for no mistake that a pattern selects nothing.
	MayBeNothing bool
}

// Matcher is what tells whether these patterns select a tag, whatever it says. No tag is looked at.
//
// Errors: those of Make for what is wrong with the selection.
func (s Selection) Matcher(patterns []string) (func(repository, tag string) bool, error) {
	s.Patterns = patterns
	m, err := newMaker(nil, s)
	if err != nil {
		return nil, err
	}
	moving := slices.DeleteFunc(m.patterns, func(p pattern) bool { return p.digest != "" })
	return func(repository, tag string) bool { return selected(moving, repository, tag) }, nil
}

// pattern is one pattern, read.
type pattern struct {
	text       string
	repository string
	tag        func(string) bool
	exact      string        // the tag, if it can be no other
	digest     digest.Digest // of the image, whatever the tag is there
	not        bool
}

func (s Selection) read() (patterns []pattern, err error) {
	for _, text := range s.Patterns {
		p, err := readPattern(text)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, p)
	}
	if len(patterns) == 0 || patterns[0].not {
		return nil, fmt.Errorf("%w: no pattern is given that selects any", ErrNothing)
	}
	return patterns, nil
}

func readPattern(text string) (p pattern, err error) {
	p.text = text
	rest, not := strings.CutPrefix(text, "!")
	if strings.Contains(rest, "@") && !not {
		return readPinned(text)
	}
	repository, tag, ok := strings.Cut(rest, ":")
	p.repository, p.not = repository, not
	if !ok {
		tag = "*"
	}
	if repository == "" || tag == "" || !doublestar.ValidatePattern(repository) {
		return p, fmt.Errorf("pattern %q: %w: want REPOSITORY[:TAG], with * and ** for any characters", text, berth.ErrNameInvalid)
	}
	if repository != strings.ToLower(repository) {
		return p, fmt.Errorf("pattern %q: %w: names are in lower case, like %s", text, berth.ErrNameInvalid, strings.ToLower(repository))
	}
	if p.tag, err = readTags(tag); err != nil {
		return p, fmt.Errorf("pattern %q: %w: %w", text, berth.ErrTagInvalid, err)
	}
	if berth.ValidateTag(tag) == nil {
		p.exact = tag
	}
	return p, nil
}

// readPinned reads a pattern that is a reference with a digest.
func readPinned(text string) (pattern, error) {
	ref, err := berth.ParseReference(text)
	if err != nil {
		return pattern{}, fmt.Errorf("pattern %w", err)
	}
	is := func(tag string) bool { return tag == ref.Tag }
	return pattern{text: text, repository: ref.Repository, tag: is, exact: ref.Tag, digest: ref.Digest}, nil
}

// readTags reads the part of a pattern that is about tags. What begins a range cannot begin a tag.
func readTags(text string) (func(string) bool, error) {
	switch {
	case len(text) > 1 && text[0] == '/' && strings.HasSuffix(text, "/"):
		expression, err := regexp.Compile(text[1 : len(text)-1])
		if err != nil {
			return nil, err
		}
		return expression.MatchString, nil
	case strings.ContainsAny(text[:1], "<>=^~"):
		versions, err := readRange(text)
		if err != nil {
			return nil, err
		}
		return versions.has, nil
	case !doublestar.ValidatePattern(text):
		return nil, errors.New("it is no glob")
	}
	return func(tag string) bool { return matches(text, tag) }, nil
}

func matches(glob, name string) bool {
	ok, err := doublestar.Match(glob, name)
	return err == nil && ok
}

func (p pattern) matches(repository, tag string) bool {
	return matches(p.repository, repository) && p.tag(tag)
}

// selected reports whether patterns select a tag: the last one that matches decides.
func selected(patterns []pattern, repository, tag string) bool {
	in := false
	for _, p := range patterns {
		if in == p.not && p.matches(repository, tag) {
			in = !p.not
		}
	}
	return in
}

// anyOf reports whether one of some patterns matches a tag.
func anyOf(patterns []pattern, repository, tag string) bool {
	for _, p := range patterns {
		if p.matches(repository, tag) {
			return true
		}
	}
	return false
}

// template is Selection.Rename, read.
type template struct{ text string }

const defaultRename = "{repository}:{tag}"

func readTemplate(text string) (template, error) {
	if text == "" {
		text = defaultRename
	}
	names := strings.NewReplacer("{repository}", "", "{name}", "", "{tag}", "").Replace(text)
	wrong := ""
	switch {
	case strings.ContainsAny(names, "{}"):
		wrong = "there is {repository}, {name} and {tag}, and nothing else in braces"
	case strings.Count(text, ":") != 1:
		wrong = "want REPOSITORY:TAG, with one colon, like {repository}:{tag}"
	case !strings.Contains(text, "{"):
		wrong = "all tags would be the same; put {repository}, {name} or {tag} in it"
	}
	if wrong != "" {
		return template{}, fmt.Errorf("template %q: %w: %s", text, berth.ErrNameInvalid, wrong)
	}
	return template{text}, nil
}

// name is what a tag is called there.
func (t template) name(repository, tag string) (berth.Reference, error) {
	text := strings.NewReplacer("{repository}", repository, "{name}", path.Base(repository), "{tag}", tag).Replace(t.text)
	ref, err := berth.ParseReference(text)
	if err == nil && ref.Tag == "" {
		err = berth.ErrTagInvalid
	}
	if err != nil {
		return ref, fmt.Errorf("template %q makes %q of %s:%s: %w", t.text, text, repository, tag, err)
	}
	return ref, nil
}

// invertible reports whether origin can tell.
func (t template) invertible() bool { return strings.Count(t.text, "{tag}") == 1 }

// origin is the tag that would be called so there, in a repository that is known to go there.
func (t template) origin(target, repository string) (tag string, ok bool) {
	text := strings.NewReplacer("{repository}", repository, "{name}", path.Base(repository)).Replace(t.text)
	before, after, _ := strings.Cut(text, "{tag}")
	rest, ok := strings.CutPrefix(target, before)
	if !ok {
		return "", false
	}
	tag, ok = strings.CutSuffix(rest, after)
	return tag, ok && berth.ValidateTag(tag) == nil
}

// chosen is an image here. Without a digest that was asked for, it is what the tag says.
type chosen struct {
	repository, tag string
	asked           digest.Digest
	desc            v1.Descriptor
}

func (c chosen) String() string {
	return berth.Reference{Repository: c.repository, Tag: c.tag, Digest: c.asked}.String()
}

// choose lists the tags that patterns select, each once, in the order of the patterns. A pattern that selects nothing is a
// mistake.
func (m *maker) choose(ctx context.Context) ([]chosen, error) {
	patterns := m.patterns
	s := &chooser{from: m.from, all: patterns, taken: map[string]bool{}}
	matched := make([]bool, len(patterns))
	for i, p := range patterns {
		if p.not {
			continue
		}
		s.matched = false
		if err := s.match(ctx, p); err != nil {
			return nil, err
		}
		matched[i] = s.matched
	}
	there, err := resolveAll(ctx, m.from, s.chosen)
	if err != nil {
		return nil, err
	}
	for i, p := range patterns {
		if !p.not && !matched[i] && !m.sel.MayBeNothing && !slices.ContainsFunc(there, p.isOf) {
			return nil, fmt.Errorf("pattern %q: %w%s", path.Join(m.source, p.text), ErrNothing, m.listed(p))
		}
	}
	if len(there) == 0 && !m.sel.MayBeNothing {
		return nil, fmt.Errorf("%w: the patterns that begin with ! take away all that the others select", ErrNothing)
	}
	return there, nil
}

// checkImmutable finds a pattern of tags that never change which is about no repository that is selected: what it was to protect
// would not be.
func (m *maker) checkImmutable(all []chosen) error {
	for _, p := range m.immutable {
		about := func(c chosen) bool { return matches(p.repository, c.repository) }
		if len(all) > 0 && !slices.ContainsFunc(all, about) {
			return fmt.Errorf("immutable pattern %q: %w: it is about no repository that is selected; want REPOSITORY:TAG, like %s:v*", p.text, ErrNothing, all[0].repository)
		}
	}
	return nil
}

// listed says what shows what a pattern could have meant.
func (m *maker) listed(p pattern) string {
	switch {
	case m.source == "":
		return "; berth ls shows what there is"
	case p.digest == "" && berth.ValidateRepository(p.repository) == nil:
		return fmt.Sprintf("; berth ls %s shows what there is", path.Join(m.source, p.repository))
	}
	return ""
}

func (p pattern) isOf(c chosen) bool { return p.digest == c.asked && p.matches(c.repository, c.tag) }

type chooser struct {
	from    berth.Registry
	all     []pattern
	taken   map[string]bool
	chosen  []chosen
	matched bool // the last pattern has matched a tag that is there, be it selected or not
}

// match takes what a pattern selects. One that can only be one repository is not looked for among all of them.
func (s *chooser) match(ctx context.Context, p pattern) error {
	if berth.ValidateRepository(p.repository) == nil {
		return s.matchTags(ctx, p.repository, p)
	}
	for name, err := range s.from.Repositories(ctx, "") {
		if err == nil && matches(p.repository, name) && berth.ValidateRepository(name) == nil {
			err = s.matchTags(ctx, name, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// matchTags takes the tags of one repository. Whether there is one that is named is seen when it is resolved, if it is.
func (s *chooser) matchTags(ctx context.Context, name string, p pattern) error {
	if p.exact != "" || p.digest != "" {
		s.matched = !s.take(chosen{repository: name, tag: p.exact, asked: p.digest}) || s.matched
		return nil
	}
	repo, err := s.from.Repository(name)
	if err != nil {
		return err
	}
	for tag, err := range repo.Tags(ctx, "") {
		if errors.Is(err, berth.ErrNameUnknown) {
			return nil
		}
		if err != nil {
			return err
		}
		if p.tag(tag) && !holdsReferrers(tag) && berth.ValidateTag(tag) == nil {
			s.matched = true
			s.take(chosen{repository: name, tag: tag})
		}
	}
	return nil
}

// holdsReferrers reports whether a tag is one that lists what refers to an image, where the registry cannot (OCI distribution
// specification, "Referrers Tag Schema"). Who wants them gets them without it.
func holdsReferrers(tag string) bool {
	algorithm, hex, ok := strings.Cut(tag, "-")
	return ok && digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex).Validate() == nil
}

// take adds a tag, and reports whether it is selected.
func (s *chooser) take(c chosen) bool {
	if !selected(s.all, c.repository, c.tag) {
		return false
	}
	if name := c.String(); !s.taken[name] {
		s.taken[name] = true
		s.chosen = append(s.chosen, c)
	}
	return true
}

// resolveAll finds what tags are, and leaves out those that are not there.
func resolveAll(ctx context.Context, from berth.Registry, all []chosen) ([]chosen, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(looking)
	for i := range all {
		group.Go(func() error {
			c := &all[i]
			repo, err := from.Repository(c.repository)
			if err != nil {
				return err
			}
			desc, err := repo.Resolve(ctx, cmp.Or(string(c.asked), c.tag))
			there, err := found(err, berth.ErrManifestUnknown)
			if there {
				c.desc = desc
			}
			return err
		})
	}
	err := group.Wait()
	return slices.DeleteFunc(all, func(c chosen) bool { return c.desc.Digest == "" }), err
}
