//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	billType = "application/vnd.example.bill"
	noteType = "application/vnd.example.note"
)

// What a program attaches to an index, or to one platform of it, is listed for that, by the registry and
// by the program, can be asked for by its type, and goes along with a copy.
func TestReferrers(t *testing.T) {
	c := newClients(t)
	image := c.ref(baseRepository)
	bill := c.attach(image, billType, "the bill")
	note := c.attach(image, noteType, "a note")
	below := c.attach(image, billType, "the bill of one platform", "--platform="+platforms[1])

	base := c.url(baseRepository) + "/referrers/"
	c.wantReferrers(base+string(c.base.root), bill, note)
	c.wantReferrers(base+string(c.base.root)+"?artifactType="+billType, bill)
	c.wantReferrers(base+string(c.children(baseRepository, c.base.root)[platforms[1]]), below)
	c.wantReferrers(base + string(bill))

	c.wantListed(image, nil, bill, note)
	c.wantListed(image, []string{"--filter-artifact-type=" + noteType}, note)
	c.wantListed(image, []string{"--platform=" + platforms[1]}, below)
	if got := c.regctl("artifact", "get", "--subject="+image, "--filter-artifact-type="+billType); got != "the bill" {
		t.Errorf("regctl gets %q", got)
	}
	c.regctl("image", "copy", "--referrers", image, c.ref("copied/image"))
	c.wantListed(c.ref("copied/image"), nil, bill, note)
}

// attach makes an artifact whose subject is an image, and returns the digest that regctl tells.
func (c *clients) attach(image, artifactType, content string, flags ...string) digest.Digest {
	c.Helper()
	file := filepath.Join(c.temporary(), "artifact")
	c.write(file, content)
	args := []string{"artifact", "put", "--subject=" + image, "--artifact-type=" + artifactType, "--file=" + file,
		"--format={{.Manifest.GetDescriptor.Digest}}"}
	return c.digestAfter("", c.regctl(append(args, flags...)...))
}

// wantReferrers compares what the registry lists.
func (c *clients) wantReferrers(url string, want ...digest.Digest) {
	c.Helper()
	var all v1.Index
	c.check(json.Unmarshal(c.fetch(url), &all))
	if all.MediaType != v1.MediaTypeImageIndex {
		c.Errorf("%s is of type %q", url, all.MediaType)
	}
	c.wantDigests(url, all.Manifests, want)
}

// wantListed compares what regctl lists.
func (c *clients) wantListed(image string, flags []string, want ...digest.Digest) {
	c.Helper()
	var told struct{ Descriptors []v1.Descriptor }
	c.check(json.Unmarshal([]byte(c.regctl(append([]string{"artifact", "list", "--format={{json .}}", image}, flags...)...)), &told))
	c.wantDigests(image, told.Descriptors, want)
}

// wantDigests compares the digests of some descriptors, in whatever order.
func (s *shell) wantDigests(what string, all []v1.Descriptor, want []digest.Digest) {
	s.Helper()
	got := []digest.Digest{}
	for _, desc := range all {
		got = append(got, desc.Digest)
	}
	slices.Sort(got)
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		s.Errorf("%s: the referrers are %v, want %v", what, got, want)
	}
}

// Builders that have crane's library built in put a layer on a base that is in the registry, and push that,
// an index over it, and further tags.
func TestALayerOnABaseInTheRegistry(t *testing.T) {
	c := newClients(t)
	file := filepath.Join(c.temporary(), "layer.tar")
	c.check(os.WriteFile(file, c.tarball("app", "the app"), 0o600))
	args := []string{"index", "append", "--tag=" + c.ref("crane/app")}
	for _, platform := range platforms {
		image := c.ref("crane/app") + "-" + platformOf(platform).Architecture
		pushed := c.digestAfter("@", c.must("crane", "append", "--platform="+platform, "--base="+c.ref(baseRepository), "--new_layer="+file, "--new_tag="+image))
		if got := c.must("crane", "digest", image); got != string(pushed) {
			t.Errorf("%s is %s, and was pushed as %s", image, got, pushed)
		}
		args = append(args, "--manifest="+image)
	}
	root := c.digestAfter("@", c.must("crane", args...))
	c.wantIndex("crane/app", root)
	for _, platform := range platforms {
		if got := c.exported("crane/app", platform, "app"); got != "the app" {
			t.Errorf("the image for %s has %q in its new layer", platform, got)
		}
		if got := c.exported("crane/app", platform, platformFile); got != c.base.content[platform] {
			t.Errorf("the image for %s has %q of its base", platform, got)
		}
	}
	c.must("crane", "tag", c.ref("crane/app"), "stable")
	if got := strings.Fields(c.must("crane", "ls", c.address+"/crane/app")); !slices.Equal(got, []string{"stable", "v1", "v1-amd64", "v1-arm64"}) {
		t.Errorf("crane lists the tags %v", got)
	}
	if got := strings.Fields(c.must("crane", "catalog", c.address)); !slices.Equal(got, []string{baseRepository, "crane/app"}) {
		t.Errorf("crane lists the repositories %v", got)
	}
}

// exported is a file of the image for one platform, as crane puts its layers together.
func (c *clients) exported(repository, platform, name string) string {
	c.Helper()
	file := filepath.Join(c.temporary(), "image.tar")
	c.must("crane", "export", "--platform="+platform, c.ref(repository), file)
	image, err := os.Open(file)
	c.check(err)
	defer image.Close()
	return c.fileIn(image, name)
}
