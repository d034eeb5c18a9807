package ocilayout

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

// retainBatch is how many tags and manifests are ended in one transaction.
const retainBatch = 64

// graph is what leads to what in one repository.
type graph struct {
	repo      string
	manifests map[digest.Digest]*vertex
	tags      []*taggedAs
}

// vertex is a manifest of a graph.
type vertex struct {
	digest    digest.Digest
	rec       manifestRecord
	tags      int
	indexes   int // that list it
	referrers []*vertex
	ended     bool
	used      int64 // seconds since 1970
}

// taggedAs is a tag of a graph.
type taggedAs struct {
	name   string
	rec    tagRecord
	vertex *vertex
	ended  bool
}

// ending is one tag or manifest that a rule ends.
type ending struct {
	berth.Removal
	tag      *taggedAs
	manifest *vertex
}

// checkRules refuses rules that could not be meant.
func checkRules(opts berth.GCOptions) error {
	if opts.MaxBytes < 0 {
		return fmt.Errorf("no collection leaves %d bytes", opts.MaxBytes)
	}
	for _, rule := range opts.Keep {
		if !doublestar.ValidatePattern(rule.Repositories) || rule.Repositories == "" {
			return fmt.Errorf("keep rule: %w: %q is no pattern for repositories", berth.ErrNameInvalid, rule.Repositories)
		}
		if rule.Newest < 1 {
			return fmt.Errorf("keep rule for %s: it keeps %d tags; want at least 1", rule.Repositories, rule.Newest)
		}
	}
	return nil
}

// retain applies the rules. It returns the keys of all manifests that have ended, or would have.
func (c *collection) retain(ctx context.Context) (ended map[string]bool, err error) {
	ended = map[string]bool{}
	if len(c.opts.Keep) == 0 && c.opts.UntaggedAfter == 0 && c.opts.MaxBytes == 0 {
		return ended, nil
	}
	var graphs []*graph
	for repo, err := range c.layout.Repositories(ctx, "") {
		if err != nil {
			return nil, err
		}
		g, err := c.layout.readGraph(ctx, repo)
		if err != nil {
			return nil, err
		}
		plan := g.plan(c.opts, time.Now())
		if c.opts.MaxBytes > 0 {
			graphs = append(graphs, g)
		}
		if err := c.end(ctx, plan, ended); err != nil {
			return nil, err
		}
	}
	if c.opts.MaxBytes == 0 {
		return ended, nil
	}
	return ended, c.end(ctx, c.layout.fit(graphs, c.opts.MaxBytes), ended)
}

// end carries a plan out, where the layout is still as it was when the plan was made.
func (c *collection) end(ctx context.Context, plan []ending, ended map[string]bool) error {
	for batch := range slices.Chunk(plan, retainBatch) {
		done := batch
		if !c.opts.DryRun {
			var err error
			if done, err = c.endBatch(ctx, batch); err != nil {
				return err
			}
		}
		for _, e := range done {
			if e.Tag != "" {
				c.report.Tags = append(c.report.Tags, e.Removal)
				continue
			}
			c.report.Manifests = append(c.report.Manifests, e.Removal)
			c.traces.add(e.Digest)
			ended[string(key(e.Repository, string(e.Digest)))] = true
		}
	}
	return nil
}

func (c *collection) endBatch(ctx context.Context, batch []ending) (done []ending, err error) {
	err = c.layout.writer.commit(ctx, change{write: func(tx *bolt.Tx, gen uint64) error {
		done = done[:0]
		for _, e := range batch {
			did, err := c.endOne(tx, e, gen)
			if err != nil {
				return err
			}
			if did {
				done = append(done, e)
			}
		}
		return nil
	}})
	return done, err
}

// endOne ends a tag that has not moved since, or a manifest that nothing leads to. Its blobs stay for as
// long as a client may count on them.
func (c *collection) endOne(tx *bolt.Tx, e ending, gen uint64) (bool, error) {
	if e.Tag != "" {
		var now tagRecord
		_, err := get(tx, bucketTags, key(e.Repository, e.Tag), &now)
		if err != nil || now.Generation != e.tag.rec.Generation || now.Descriptor.Digest != e.Digest {
			return false, err
		}
		return true, c.layout.untag(tx, e.Repository, e.Tag, gen)
	}
	var now manifestRecord
	found, err := get(tx, bucketManifests, key(e.Repository, string(e.Digest)), &now)
	if err != nil || !found || isReached(tx, e.Repository, e.Digest) {
		return false, err
	}
	if now.Subject != "" && has(tx, bucketManifests, key(e.Repository, string(now.Subject))) {
		return false, nil
	}
	return true, c.layout.expel(tx, e.Repository, e.Digest, &now, gen)
}

// readGraph reads what a repository holds.
func (l *Layout) readGraph(ctx context.Context, repo string) (*graph, error) {
	g := &graph{repo: repo, manifests: map[digest.Digest]*vertex{}}
	for _, err := range pages(ctx, l.db, span{bucketManifests, prefix(repo), nil}, g.readManifest) {
		if err != nil {
			return nil, err
		}
	}
	for _, err := range pages(ctx, l.db, span{bucketTags, prefix(repo), nil}, g.readTag) {
		if err != nil {
			return nil, err
		}
	}
	for _, v := range g.manifests {
		for _, child := range v.rec.Children {
			if below := g.manifests[child]; below != nil {
				below.indexes++
			}
		}
		if subject := g.manifests[v.rec.Subject]; subject != nil {
			subject.referrers = append(subject.referrers, v)
		}
	}
	return g, g.readUses(l)
}

func (g *graph) readManifest(k, v []byte) (none struct{}, err error) {
	names := parts(k)
	if len(names) != 2 {
		return none, nil
	}
	node := &vertex{digest: digest.Digest(names[1])}
	if err := decode(k, v, &node.rec); err != nil {
		return none, err
	}
	node.used = node.rec.Idle
	g.manifests[node.digest] = node
	return none, nil
}

func (g *graph) readTag(k, v []byte) (none struct{}, err error) {
	tag := &taggedAs{name: lastPart(k)}
	if err := decode(k, v, &tag.rec); err != nil {
		return none, err
	}
	if tag.vertex = g.manifests[tag.rec.Descriptor.Digest]; tag.vertex != nil {
		tag.vertex.tags++
		tag.vertex.used = max(tag.vertex.used, tag.rec.Pushed)
		g.tags = append(g.tags, tag)
	}
	return none, nil
}

func (g *graph) readUses(l *Layout) error {
	return l.db.View(func(tx *bolt.Tx) error {
		return scan(tx, span{bucket: bucketUsed, prefix: prefix(g.repo)}, math.MaxInt, func(k, v []byte) error {
			var at int64
			if node := g.manifests[digest.Digest(lastPart(k))]; node != nil && json.Unmarshal(v, &at) == nil {
				node.used = max(node.used, at)
			}
			return nil
		})
	})
}

// plan says what the rules end that look at one repository at a time.
func (g *graph) plan(opts berth.GCOptions, now time.Time) (plan []ending) {
	if i := slices.IndexFunc(opts.Keep, g.obeys); i >= 0 {
		plan = g.keepNewest(opts.Keep[i].Newest)
	}
	if opts.UntaggedAfter == 0 {
		return plan
	}
	over := now.Add(-opts.UntaggedAfter).Unix()
	for _, v := range g.sorted() {
		if !v.ended && !g.isNeeded(v) && v.rec.Idle < over {
			plan = append(plan, g.endManifest(v, fmt.Sprintf("untagged for longer than %v", opts.UntaggedAfter))...)
		}
	}
	return plan
}

func (g *graph) obeys(rule berth.KeepRule) bool {
	ok, _ := doublestar.Match(rule.Repositories, g.repo)
	return ok
}

func (g *graph) keepNewest(n int) (plan []ending) {
	// Generations tell what came last, also where a clock was set back.
	slices.SortFunc(g.tags, func(a, b *taggedAs) int {
		return cmp.Or(-cmp.Compare(a.rec.Generation, b.rec.Generation), cmp.Compare(a.name, b.name))
	})
	for _, tag := range g.tags[min(n, len(g.tags)):] {
		plan = append(plan, g.endTag(tag, fmt.Sprintf("not among the newest %d", n))...)
	}
	return plan
}

// isNeeded reports whether something in the repository leads to a manifest: a tag, an index, or the
// subject that it refers to.
func (g *graph) isNeeded(v *vertex) bool {
	subject := g.manifests[v.rec.Subject]
	return v.tags > 0 || v.indexes > 0 || subject != nil && !subject.ended
}

func (g *graph) endTag(tag *taggedAs, reason string) []ending {
	tag.ended = true
	tag.vertex.tags--
	plan := []ending{{Removal: berth.Removal{Repository: g.repo, Tag: tag.name, Digest: tag.vertex.digest, Reason: reason}, tag: tag}}
	return append(plan, g.endUnneeded(tag.vertex, reason)...)
}

func (g *graph) endUnneeded(v *vertex, reason string) []ending {
	if v == nil || v.ended || g.isNeeded(v) {
		return nil
	}
	return g.endManifest(v, reason)
}

// endManifest ends a manifest, and what only it led to.
func (g *graph) endManifest(v *vertex, reason string) []ending {
	v.ended = true
	plan := []ending{{Removal: berth.Removal{Repository: g.repo, Digest: v.digest, Reason: reason}, manifest: v}}
	for _, child := range v.rec.Children {
		if below := g.manifests[child]; below != nil {
			below.indexes--
			plan = append(plan, g.endUnneeded(below, reason)...)
		}
	}
	for _, referrer := range v.referrers {
		plan = append(plan, g.endUnneeded(referrer, reason)...)
	}
	return plan
}

func (g *graph) sorted() []*vertex {
	var all []*vertex
	for _, v := range g.manifests {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b *vertex) int { return cmp.Compare(a.digest, b.digest) })
	return all
}
