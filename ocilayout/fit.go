package ocilayout

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// maxUses bounds how many manifests are remembered as read before that is written down.
const maxUses = 8 << 10

// uses notes when manifests were last read. What is noted reaches the index with the next collection,
// or when the layout is closed: a process that is killed forgets it.
type uses struct {
	mu sync.Mutex // guards the field below
	at map[use]int64
}

// use is of a manifest of a repository.
type use struct {
	repo   string
	digest digest.Digest
}

func (u *uses) note(repo string, d digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at == nil {
		u.at = map[use]int64{}
	}
	if len(u.at) < maxUses {
		u.at[use{repo, d}] = now()
	}
}

// crowded reports whether what is noted should be written down soon.
func (u *uses) crowded() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.at) > maxUses/2
}

func (u *uses) take() map[use]int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.at
	u.at = nil
	return at
}

// writeUses writes down what was noted.
func (l *Layout) writeUses(ctx context.Context) error {
	noted := l.uses.take()
	if len(noted) == 0 {
		return nil
	}
	return l.writer.commit(ctx, change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
		for of, at := range noted {
			k := key(of.repo, string(of.digest))
			if !has(tx, bucketManifests, k) {
				continue
			}
			if err := put(tx, bucketUsed, k, at); err != nil {
				return err
			}
		}
		return nil
	}})
}

// wholeImage is one thing that a size limit keeps or ends as a whole: a manifest that has a tag or that no
// index lists, and that refers to none here, with all below it and all that refers to it.
type wholeImage struct {
	graph *graph
	root  *vertex
	used  int64
	blobs []digest.Digest
}

// fit ends images, least recently used first, until what is left needs no more than so many bytes.
func (l *Layout) fit(graphs []*graph, most int64) (plan []ending) {
	var images []*wholeImage
	users := map[digest.Digest]int{} // images that need a blob
	for _, g := range graphs {
		for _, v := range g.sorted() {
			if image := g.imageOf(v); image != nil {
				images = append(images, image)
				for _, d := range image.blobs {
					users[d]++
				}
			}
		}
	}
	sizes, total := l.sizesOf(users)
	slices.SortStableFunc(images, func(a, b *wholeImage) int { return cmp.Compare(a.used, b.used) })
	for _, image := range images {
		if total <= most {
			break
		}
		plan = append(plan, image.end()...)
		for _, d := range image.blobs {
			if users[d]--; users[d] == 0 {
				total -= sizes[d]
			}
		}
	}
	return plan
}

// imageOf returns the image that a manifest is the root of, or nil.
func (g *graph) imageOf(v *vertex) *wholeImage {
	if subject := g.manifests[v.rec.Subject]; v.ended || v.indexes > 0 && v.tags == 0 || subject != nil && !subject.ended {
		return nil
	}
	image := &wholeImage{graph: g, root: v}
	seen := map[digest.Digest]bool{}
	var visit func(v *vertex)
	visit = func(v *vertex) {
		if v.ended || seen[v.digest] {
			return
		}
		seen[v.digest] = true
		image.used = max(image.used, v.used)
		for _, child := range v.rec.Children {
			if below := g.manifests[child]; below != nil {
				visit(below)
			}
			seen[child] = true
		}
		for _, referrer := range v.referrers {
			visit(referrer)
		}
	}
	visit(v)
	for d := range seen {
		image.blobs = append(image.blobs, d)
	}
	return image
}

func (i *wholeImage) end() (plan []ending) {
	const reason = "least recently used"
	for _, tag := range i.graph.tags {
		if tag.vertex == i.root && !tag.ended {
			plan = append(plan, i.graph.endTag(tag, reason)...)
		}
	}
	return append(plan, i.graph.endUnneeded(i.root, reason)...)
}

// sizesOf returns how many bytes each blob has, and all of them together.
func (l *Layout) sizesOf(blobs map[digest.Digest]int) (sizes map[digest.Digest]int64, total int64) {
	sizes = make(map[digest.Digest]int64, len(blobs))
	for d := range blobs {
		if info, err := l.dir.Root().Lstat(blobPath(d)); err == nil {
			sizes[d] = info.Size()
			total += info.Size()
		}
	}
	return sizes, total
}
