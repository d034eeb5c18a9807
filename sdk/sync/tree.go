package sync

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// tree is a manifest and all that it needs.
type tree struct {
	berth.Manifest
	blobs     []v1.Descriptor
	children  []*tree
	referrers []*tree // that point to it
}

// every calls do for a tree and all below it, what refers to them included, children before parents, each once: an index may
// name a child many times, and what refers to an image may contain it.
func (t *tree) every(do func(*tree)) { t.walk(map[*tree]bool{}, true, do) }

// contained is every without what refers to them.
func (t *tree) contained(do func(*tree)) { t.walk(map[*tree]bool{}, false, do) }

func (t *tree) walk(seen map[*tree]bool, referrers bool, do func(*tree)) {
	if seen[t] {
		return
	}
	seen[t] = true
	for _, child := range t.children {
		child.walk(seen, referrers, do)
	}
	if referrers {
		for _, referrer := range t.referrers {
			referrer.walk(seen, referrers, do)
		}
	}
	do(t)
}

const (
	// maxTrees bounds the bytes of manifests that are kept to be used again.
	maxTrees = 16 << 20
	// maxTree bounds the bytes of the manifests of one image, with all that refers to it.
	maxTree = 128 << 20
)

// trees reads images of a registry.
type trees struct {
	from      berth.Registry
	referrers bool
	fresh     bool // they are those of a plan that has just been made

	mu    sync.Mutex // guards the fields below
	kept  map[string]*tree
	bytes int
}

// of reads an image. Of an index only those children are read that run on one of the platforms, if any are named.
func (t *trees) of(ctx context.Context, repository string, desc v1.Descriptor, platforms []v1.Platform) (*tree, error) {
	key := fmt.Sprint(repository, "@", desc.Digest, platforms)
	t.mu.Lock()
	known := t.kept[key]
	t.mu.Unlock()
	if known != nil {
		return known, nil
	}
	repo, err := t.from.Repository(repository)
	if err != nil {
		return nil, err
	}
	r := &treeReader{trees: t, repo: repo, platforms: platforms}
	root, err := r.read(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	t.keep(key, root, r.bytes)
	return root, nil
}

// alone reports whether an image has no parts, and nothing refers to it; it is not read for that.
func (t *trees) alone(ctx context.Context, repository string, desc v1.Descriptor) (bool, error) {
	if manifest.KindOf(desc.MediaType) != manifest.Image {
		return false, nil
	}
	repo, err := t.from.Repository(repository)
	if err != nil {
		return false, err
	}
	for _, err := range repo.Referrers(ctx, desc.Digest, nil) {
		return false, err
	}
	return true, nil
}

func (t *trees) keep(key string, root *tree, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bytes += bytes; t.bytes > maxTrees {
		t.kept, t.bytes = nil, bytes
	}
	if t.kept == nil {
		t.kept = map[string]*tree{}
	}
	t.kept[key] = root
}

type treeReader struct {
	*trees
	repo      berth.Repository
	platforms []v1.Platform
	bytes     int
	seen      map[digest.Digest]*tree
}

func (r *treeReader) read(ctx context.Context, desc v1.Descriptor, depth int) (*tree, error) {
	if known := r.seen[desc.Digest]; known != nil {
		return known, nil
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: %w: indexes are nested deeper than %d", desc.Digest, berth.ErrManifestInvalid, maxDepth)
	}
	m, err := r.repo.FetchManifest(ctx, string(desc.Digest), nil)
	if err != nil {
		return nil, fmt.Errorf("%s@%s: %w", r.repo.Name(), desc.Digest, err)
	}
	if r.bytes += len(m.Raw); r.bytes > maxTree {
		return nil, fmt.Errorf("%s: %w: its manifests, and those that refer to it, have more than %d bytes", r.repo.Name(), berth.ErrSizeInvalid, maxTree)
	}
	node := &tree{Manifest: m}
	if manifest.IsSchema1(m.Descriptor.MediaType) {
		return node, nil // whose layers the one who pushes it does not know by their sizes
	}
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	if err == nil {
		err = r.below(ctx, node, doc, depth)
	}
	if err != nil {
		return nil, fmt.Errorf("%s@%s: %w", r.repo.Name(), desc.Digest, err)
	}
	return node, nil
}

// below reads what a manifest needs, and what refers to it.
func (r *treeReader) below(ctx context.Context, node *tree, doc *manifest.Document, depth int) error {
	if r.seen == nil {
		r.seen = map[digest.Digest]*tree{}
	}
	r.seen[node.Descriptor.Digest] = node
	for _, child := range doc.Required() {
		if doc.Kind != manifest.Index || manifest.KindOf(child.MediaType) == 0 {
			node.blobs = append(node.blobs, child)
			continue
		}
		if !r.wants(child) {
			continue
		}
		below, err := r.read(ctx, child, depth+1)
		if err != nil {
			return err
		}
		node.children = append(node.children, below)
	}
	return r.addReferrers(ctx, node, depth)
}

func (r *treeReader) wants(child v1.Descriptor) bool {
	if len(r.platforms) == 0 || child.Platform == nil {
		return true
	}
	for _, platform := range r.platforms {
		if manifest.RunsOn(*child.Platform, platform) {
			return true
		}
	}
	return false
}

func (r *treeReader) addReferrers(ctx context.Context, node *tree, depth int) error {
	if !r.referrers {
		return nil
	}
	for desc, err := range r.repo.Referrers(ctx, node.Descriptor.Digest, nil) {
		if err != nil {
			return err
		}
		if r.seen[desc.Digest] != nil {
			continue
		}
		referrer, err := r.read(ctx, desc, depth+1)
		if errors.Is(err, berth.ErrManifestUnknown) {
			continue // the list may name what is gone
		}
		if err != nil {
			return err
		}
		node.referrers = append(node.referrers, referrer)
	}
	return nil
}
