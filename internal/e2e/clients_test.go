//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// baseRepository holds, as v1, the image that the clients begin with which do not read layouts.
const baseRepository = "base/image"

// clients are one registry, and what the programs need that use it.
type clients struct {
	*shell
	layout, address string
	base            index
	// dockerSocket and buildkitSocket are those of the daemons, in the tests that have any.
	dockerSocket, buildkitSocket string
}

// client is a program that pushes an index for all platforms, and pulls what others have pushed.
type client struct {
	name string
	// push pushes to REPOSITORY:v1, and returns the digest that the program tells.
	push func(c *clients, repository string) digest.Digest
	// pull pulls REPOSITORY:v1, which has this digest, and looks at what came.
	pull func(c *clients, repository string, want digest.Digest)
}

var everyClient = []client{
	{"skopeo", (*clients).skopeoPush, (*clients).skopeoPull},
	{"crane", (*clients).cranePush, (*clients).cranePull},
	{"regctl", (*clients).regctlPush, (*clients).regctlPull},
	{"podman", (*clients).podmanPush, (*clients).podmanPull},
	{"buildah", (*clients).buildahPush, (*clients).buildahPull},
	{"docker", (*clients).dockerPush, (*clients).dockerPull},
	{"buildkit", (*clients).buildkitPush, (*clients).buildkitPull},
}

// What any client pushes is in the registry under the digest that the client tells, and all others pull
// it by that digest: the programs that copy have the same blobs, the others the files of each platform.
func TestEveryClientPullsWhatAnyPushed(t *testing.T) {
	needRoot(t)
	c := newClients(t)
	c.dockerSocket, c.buildkitSocket = c.dockerd(), c.buildkitd()
	for _, from := range everyClient {
		t.Run(from.name, func(t *testing.T) {
			c := c.in(t)
			repository := "clients/" + from.name
			root := from.push(c, repository)
			c.wantIndex(repository, root)
			for _, to := range everyClient {
				t.Run("to "+to.name, func(t *testing.T) { to.pull(c.in(t), repository, root) })
			}
		})
	}
}

// needRoot is for what starts daemons and mounts images.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the daemons of docker and BuildKit, and mounting images, need root")
	}
}

func newClients(t *testing.T, flags ...string) *clients {
	t.Helper()
	s := newShell(t)
	t.Cleanup(func() {
		s.unmountBelow(s.dir)
		s.unmountBelow(s.temp)
	})
	layout := s.path("registry")
	_, address := s.serve(layout, flags...)
	c := &clients{shell: s, layout: layout, address: address, base: s.newIndex(s.path("base"), "v1")}
	c.must("skopeo", "copy", "--all", "--dest-tls-verify=false", "oci:"+c.base.dir+":v1", "docker://"+c.ref(baseRepository))
	return c
}

// in is the same for a subtest.
func (c *clients) in(t *testing.T) *clients {
	own := *c
	own.shell = c.shell.in(t)
	return &own
}

// ref is how a client calls REPOSITORY:v1.
func (c *clients) ref(repository string) string { return c.address + "/" + repository + ":v1" }

func (c *clients) url(repository string) string { return "http://" + c.address + "/v2/" + repository }

// temporary is a new directory.
func (c *clients) temporary() string {
	c.Helper()
	dir, err := os.MkdirTemp(c.dir, "")
	c.check(err)
	return dir
}

// wantIndex makes sure that REPOSITORY:v1 is an index for all platforms, by this digest, and whole.
func (c *clients) wantIndex(repository string, root digest.Digest) {
	c.Helper()
	raw := c.fetchWhole(c.url(repository)+"/manifests/v1", "v1")
	if got := digest.FromBytes(raw); got != root {
		c.Fatalf("%s:v1 is %s, and the client says %s", repository, got, root)
	}
	children := c.children(repository, root)
	for _, platform := range platforms {
		if children[platform] == "" {
			c.Errorf("%s:v1 is for %v, want %s", repository, children, platform)
		}
	}
	c.closure(c.url(repository), string(root))
}

// children are the manifests of an index, by platform.
func (c *clients) children(repository string, root digest.Digest) map[string]digest.Digest {
	c.Helper()
	var all v1.Index
	c.check(json.Unmarshal(c.fetchWhole(c.url(repository)+"/manifests/"+string(root), string(root)), &all))
	found := map[string]digest.Digest{}
	for _, child := range all.Manifests {
		if child.Platform != nil {
			found[child.Platform.OS+"/"+child.Platform.Architecture] = child.Digest
		}
	}
	return found
}

// wantCopy makes sure that a directory of blobs has all that the index consists of.
func (c *clients) wantCopy(repository string, root digest.Digest, dir string) {
	c.Helper()
	c.wantBlobs(dir, c.closure(c.url(repository), string(root)))
}

// digestIn is the digest in a file that a program wrote.
func (c *clients) digestIn(file string) digest.Digest {
	c.Helper()
	raw, err := os.ReadFile(file)
	c.check(err)
	return c.digestAfter("", string(raw))
}

// digestAfter is the last digest that follows some words in what a program printed.
func (c *clients) digestAfter(words, text string) digest.Digest {
	c.Helper()
	all := regexp.MustCompile(regexp.QuoteMeta(words)+`(sha256:[0-9a-f]{64})`).FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		c.Fatalf("no digest after %q in %s", words, text)
	}
	return digest.Digest(all[len(all)-1][1])
}

func (c *clients) skopeoPush(repository string) digest.Digest {
	file := filepath.Join(c.temporary(), "digest")
	c.must("skopeo", "copy", "--all", "--dest-tls-verify=false", "--digestfile", file, "oci:"+c.base.dir+":v1", "docker://"+c.ref(repository))
	return c.digestIn(file)
}

// A directory keeps Docker's media types; skopeo would convert them for a layout.
func (c *clients) skopeoPull(repository string, want digest.Digest) {
	dir := c.temporary()
	c.must("skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+c.ref(repository), "dir:"+dir)
	c.check(os.Rename(filepath.Join(dir, "manifest.json"), filepath.Join(dir, want.Encoded())))
	manifests, err := filepath.Glob(filepath.Join(dir, "*.manifest.json"))
	c.check(err)
	for _, file := range manifests {
		c.check(os.Rename(file, strings.TrimSuffix(file, ".manifest.json")))
	}
	c.wantCopy(repository, want, dir)
}

func (c *clients) cranePush(repository string) digest.Digest {
	return c.digestAfter(c.address+"/"+repository+"@", c.must("crane", "push", c.base.dir, c.ref(repository)))
}

func (c *clients) cranePull(repository string, want digest.Digest) {
	dir := c.temporary()
	c.must("crane", "pull", "--format=oci", c.ref(repository), dir)
	c.wantLayout(repository, want, dir)
}

func (c *clients) regctlPush(repository string) digest.Digest {
	c.regctl("image", "copy", "ocidir://"+c.base.dir+":v1", c.ref(repository))
	return c.digestAfter("", c.regctl("image", "digest", c.ref(repository)))
}

func (c *clients) regctlPull(repository string, want digest.Digest) {
	dir := c.temporary()
	c.regctl("image", "copy", c.ref(repository), "ocidir://"+dir+":v1")
	c.wantLayout(repository, want, dir)
}

func (c *clients) regctl(args ...string) string {
	c.Helper()
	return c.must("regctl", append([]string{"--host", "reg=" + c.address + ",tls=disabled"}, args...)...)
}

// wantLayout makes sure that a layout has the index and all that it leads to.
func (c *clients) wantLayout(repository string, want digest.Digest, dir string) {
	c.Helper()
	if entries := c.entriesOf(dir); !slices.ContainsFunc(entries, func(entry v1.Descriptor) bool { return entry.Digest == want }) {
		c.Errorf("%s has %v, want %s", dir, entries, want)
	}
	c.wantCopy(repository, want, filepath.Join(dir, "blobs", "sha256"))
}

// unmountBelow unmounts what is mounted in a directory, however deep: some clients leave that to whoever
// stops using their images.
func (s *shell) unmountBelow(dir string) {
	s.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	s.check(err)
	lines := strings.Split(string(mounts), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			s.check(syscall.Unmount(fields[1], syscall.MNT_DETACH))
		}
	}
}
