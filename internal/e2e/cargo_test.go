//go:build linux

package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	replica "github.com/berthoci/berth/sdk/sync"
)

// cargoLayer is the size of a layer that cannot be sent unseen.
const cargoLayer = 256 << 10

// cargo is a layout with images of several kinds, which are brought to a place.
type cargo struct {
	*place
	layout     string
	roots      map[string]digest.Digest   // by REPOSITORY:TAG
	signatures map[string][]digest.Digest // by REPOSITORY@DIGEST
	child      string                     // REPOSITORY@DIGEST of an image that an index has
}

// cargo makes an image of several tags, another one beside it and one in another repository, all with one layer in common, and
// an index. The first image and the index are signed.
func (p *place) cargo() *cargo {
	p.Helper()
	c := &cargo{place: p, layout: p.path("layout"), roots: map[string]digest.Digest{}, signatures: map[string][]digest.Digest{}}
	made := p.path("made")
	shared := p.putLayer(made, cargoLayer)
	web := p.imageWith(made, "web", shared, p.putLayer(made, cargoLayer)).root
	c.load(made, web, "app/web", "v1", "v1.0", "latest")
	c.load(made, p.imageWith(made, "next", shared, p.putLayer(made, cargoLayer)).root, "app/web", "v2")
	c.load(made, p.imageWith(made, "tool", shared).root, "app/tool", "v1")
	all := p.newIndex(made, "all")
	c.load(made, all.root, "app/all", "v1")
	c.child = "app/all@" + string(all.images[platforms[0]])
	c.signatures["app/web@"+string(web)] = c.signing(c.layout, "app/web", v1.MediaTypeImageManifest, web, 1)
	c.signatures["app/all@"+string(all.root)] = c.signing(c.layout, "app/all", v1.MediaTypeImageIndex, all.root, 2)
	return c
}

// load pushes the only image that a directory shows.
func (c *cargo) load(made string, root digest.Digest, repository string, tags ...string) {
	c.Helper()
	c.must("berth", "--layout", c.layout, "push", "oci:"+made, repository+":"+strings.Join(tags, ","))
	for _, tag := range tags {
		c.roots[repository+":"+tag] = root
	}
}

// sync brings all of it, and returns the report and how many bytes went up.
func (c *cargo) sync() (*replica.Report, int64) {
	c.Helper()
	before, report := c.sent.Load(), &replica.Report{}
	told := c.pusher.must("berth", "--layout", c.layout, "--json", "sync", "--to", c.scheme+"://"+c.host(), "app/**")
	c.check(json.Unmarshal([]byte(told), report))
	return report, c.sent.Load() - before
}

// arrived makes sure that other clients find all of it, byte for byte.
func (c *cargo) arrived() {
	c.Helper()
	dir := c.path("pulled")
	c.check(os.RemoveAll(dir))
	named := maps.Clone(c.roots)
	for subject, signatures := range c.signatures {
		repository, _, _ := strings.Cut(subject, "@")
		for _, d := range signatures {
			named[repository+"@"+string(d)] = d
		}
		c.listed(subject, signatures)
	}
	pull := []string{"pull", "--format=oci", "--annotate-ref"}
	for name := range named {
		pull = append(pull, c.host()+"/"+name)
	}
	c.reader.must("crane", append(pull, dir)...)
	found := map[string]digest.Digest{}
	for _, entry := range c.entriesOf(dir) {
		found[strings.TrimPrefix(entry.Annotations[v1.AnnotationRefName], c.host()+"/")] = entry.Digest
	}
	if !maps.Equal(found, named) {
		c.Errorf("crane pulls %v, want %v", found, named)
	}
	c.sameBlobs(c.layout, dir)
}

// listed compares what regctl takes for the referrers of an image.
func (c *cargo) listed(subject string, want []digest.Digest) {
	c.Helper()
	var told struct{ Descriptors []v1.Descriptor }
	list := c.reader.must("regctl", "--host", "reg="+c.host()+",tls="+c.tls, "artifact", "list", "--format={{json .}}", c.host()+"/"+subject)
	c.check(json.Unmarshal([]byte(list), &told))
	c.wantDigests(subject, told.Descriptors, want)
}

// nothingSent syncs what is there.
func (c *cargo) nothingSent() {
	c.Helper()
	report, bytes := c.sync()
	if changed := changedBy(report); len(changed) > 0 || !report.Total.Unchanged() || bytes >= cargoLayer {
		c.Errorf("a sync of what is there sends %+v, %d bytes, and changes %v", report.Total, bytes, changed)
	}
	c.Logf("a sync of what is there sends %d bytes", bytes)
}

// changedBy are the tags at the place for which something was done.
func changedBy(report *replica.Report) (tags []string) {
	for _, r := range report.Items {
		if r.Drifted() {
			tags = append(tags, r.Target)
		}
	}
	slices.Sort(tags)
	return tags
}

// Every registry gets all that is synced to it, gets it once, and again what it has lost.
func TestASyncToEveryRegistry(t *testing.T) {
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			c := newShell(t).place(p.start).cargo()
			report, bytes := c.sync()
			if changed := changedBy(report); !slices.Equal(changed, slices.Sorted(maps.Keys(c.roots))) {
				t.Errorf("the first sync brings %v", changed)
			}
			t.Logf("the first sync sends %d bytes: %+v", bytes, report.Total)
			c.arrived()
			c.nothingSent()
			c.mended()
		})
	}
}

// mishaps are what befalls a registry, and the tags that a sync has to do something for then.
var mishaps = []struct {
	name   string
	befall func(*cargo)
	tags   []string
}{
	{"a tag was moved", func(c *cargo) {
		c.reader.must("crane", "tag", c.host()+"/app/web@"+string(c.roots["app/web:v2"]), "v1")
	}, []string{"app/web:v1"}},
	{"an index was deleted, and an image that it has", func(c *cargo) {
		c.reader.must("crane", "delete", c.host()+"/app/all@"+string(c.roots["app/all:v1"]))
		c.reader.must("crane", "delete", c.host()+"/"+c.child)
	}, []string{"app/all:v1"}},
	{"a signature was deleted, and the memory of it", func(c *cargo) {
		c.reader.must("crane", "delete", c.host()+"/app/all@"+string(c.signatures["app/all@"+string(c.roots["app/all:v1"])][1]))
		c.check(os.RemoveAll(filepath.Join(c.layout, ".berth", "sync")))
	}, []string{"app/all:v1"}},
}

// mended makes sure that what befalls the place is put right, with as little as that takes.
func (c *cargo) mended() {
	c.Helper()
	for _, m := range mishaps {
		m.befall(c)
		report, bytes := c.sync()
		if changed := changedBy(report); !slices.Equal(changed, m.tags) || bytes >= cargoLayer {
			c.Errorf("%s: a sync sends %d bytes for %v, want it to be for %v, and no layer", m.name, bytes, changed, m.tags)
		}
		c.arrived()
		c.nothingSent()
	}
	if c.wipe != "" {
		c.check(os.RemoveAll(c.wipe))
		c.sync()
		c.arrived()
		c.nothingSent()
	}
}
