package ocilayout

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

const (
	// maxCachedTargets bounds the references whose target is kept: a few hundred bytes each.
	maxCachedTargets = 4096
	// maxCachedBytes bounds the manifests that are kept, and maxCachedManifest each of them.
	maxCachedBytes    = 8 << 20
	maxCachedManifest = 256 << 10
)

// qualified is a tag or digest of a repository.
type qualified struct{ repo, ref string }

// cache keeps what was read last, so that a manifest that many ask for is neither looked up nor read
// from the disk again. Content is kept by its digest, and so is always right; it is served only to who
// has just resolved that digest. What a reference leads to is right until the next commit.
type cache struct {
	version atomic.Uint64 // of the index: grows with each commit

	mu       sync.Mutex // guards the fields below
	targets  map[qualified]target
	of       uint64 // the version that targets are of
	contents map[digest.Digest]*list.Element
	order    *list.List // of contents, what was asked for last in front
	bytes    int
}

type content struct {
	digest digest.Digest
	raw    []byte
}

func newCache() *cache {
	return &cache{targets: map[qualified]target{}, contents: map[digest.Digest]*list.Element{}, order: list.New()}
}

// outdate is called after each commit, before it is answered.
func (c *cache) outdate() { c.version.Add(1) }

// target returns what a reference leads to if that is known, and else the version of the index that is
// about to be read.
func (c *cache) target(name qualified) (at target, version uint64, found bool) {
	version = c.version.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == version {
		at, found = c.targets[name]
	}
	return at, version, found
}

// keepTarget keeps what was read of an index that had that version, or a later one.
func (c *cache) keepTarget(name qualified, at target, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if version < c.of {
		return
	}
	if version > c.of || len(c.targets) >= maxCachedTargets {
		clear(c.targets)
		c.of = version
	}
	c.targets[name] = at
}

// content returns the bytes of a digest, if they are kept. They must not be changed.
func (c *cache) content(d digest.Digest) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, found := c.contents[d]
	if !found {
		return nil, false
	}
	c.order.MoveToFront(at)
	return at.Value.(content).raw, true
}

func (c *cache) keepContent(d digest.Digest, raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, found := c.contents[d]; found || len(raw) > maxCachedManifest {
		return
	}
	c.contents[d] = c.order.PushFront(content{d, raw})
	c.bytes += len(raw)
	for c.bytes > maxCachedBytes {
		oldest := c.order.Remove(c.order.Back()).(content)
		delete(c.contents, oldest.digest)
		c.bytes -= len(oldest.raw)
	}
}
