//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// shop has an image in a layout directory, and all the places that it can go through.
type shop struct {
	*clients
	image  string // the layout directory, with the image as v1
	root   v1.Descriptor
	remote string // the distribution registry
	live   string // another berth
	lives  string // its layout
}

// maker is a program that makes an image.
type maker struct {
	name string
	make func(c *clients, dir string)
	// loads says that old programs can load it: docker before version 23 knows no zstd, and a file of 2 GiB takes it long.
	loads bool
}

var makers = []maker{
	{"umoci", func(c *clients, dir string) { c.umociImage(dir, "v1", 100<<10, 0, 70<<10) }, true},
	{"buildah", (*clients).buildahLayout, true},
	{"BuildKit", (*clients).buildkitLayout, true},
	{"Build, many platforms", (*clients).builtIndex, true},
	{"Build, zstd", func(c *clients, dir string) { c.builtImage(dir, source.Zstd, 3) }, false},
	{"Build, gzip", func(c *clients, dir string) { c.builtImage(dir, source.Gzip, 3) }, true},
	{"Build, 100 layers", func(c *clients, dir string) { c.builtImage(dir, source.None, 100) }, true},
	{"Build, empty layers", (*clients).builtEmpty, true},
	{"foreign layer", (*clients).foreignLayout, false},
	{"Build, a large layer", (*clients).builtLarge, false},
}

// Whatever made an image, wherever it comes from and whatever it goes to, it has the digest that it had; in an archive of
// docker it has its config and its layers. The programs that read these forms say so.
func TestEveryImageThroughEveryForm(t *testing.T) {
	needRoot(t)
	c := newClients(t)
	c.dockerSocket, c.buildkitSocket = c.dockerd(), c.buildkitd()
	all := shop{clients: c, remote: c.registry(""), lives: c.path("live")}
	_, all.live = c.serve(all.lives)
	for i, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			one := all
			one.clients = c.in(t)
			one.image = c.path(fmt.Sprint("made-", i))
			m.make(one.clients, one.image)
			one.root = one.entry(one.image)
			repository := fmt.Sprint("made/", i)
			one.takesFromEvery(repository)
			one.givesToEvery(repository, m.loads)
		})
	}
}

// entry is the image of a layout that is called v1.
func (c *clients) entry(dir string) v1.Descriptor {
	c.Helper()
	all := c.entriesOf(dir)
	at := slices.IndexFunc(all, func(d v1.Descriptor) bool { return d.Annotations[v1.AnnotationRefName] == "v1" })
	if at < 0 {
		c.Fatalf("%s has no v1: %v", dir, all)
	}
	return all[at]
}

// isIndex reports whether the image is for several platforms.
func (s *shop) isIndex() bool { return manifest.KindOf(s.root.MediaType) == manifest.Index }

// takesFromEvery pushes the image from every form that it has, each time into a layout that has nothing.
func (s *shop) takesFromEvery(repository string) {
	name := strings.ReplaceAll(repository, "/", "-")
	archive, packed := s.path(name+".tar"), s.path(name+".tgz")
	layout, remote, live := "oci:"+s.image+":v1", s.remote+"/"+repository+":v1", s.live+"/"+repository+":v1"
	s.skopeo(layout, "oci-archive:"+archive+":v1")
	s.skopeo(layout, "docker://"+remote)
	s.skopeo(layout, "docker://"+live)
	s.must("sh", "-c", "gzip -1 < "+archive+" > "+packed)
	for _, from := range []string{layout, "oci-archive:" + archive + ":v1", "oci-archive:" + packed, "docker://" + remote, "docker://" + live} {
		s.takes(from, "berth", "push", from)
	}
	s.takes("a pipe", "sh", "-c", "cat "+archive+" | "+program(s.T, "berth")+` push oci-archive:/dev/stdin:v1 "$@"`, "sh")
	s.must("berth", "push", "--layout", s.layout, layout, repository+":v1")
	s.craneReads(s.ref(repository))
	if !s.isIndex() && !s.hasForeign() && !s.hasZstd(s.image) { // skopeo would fetch the one, and cannot write the other
		s.takesFromDocker(repository)
	}
	s.check(errors.Join(os.Remove(archive), os.Remove(packed)))
}

// takes pushes into a fresh layout, by a command that lacks the layout and the reference, and has skopeo read what is there.
func (s *shop) takes(what string, command ...string) {
	s.Helper()
	layout := s.temporary()
	out := s.must(command[0], append(command[1:], "taken/image:v1", "--layout", layout)...)
	if want := "taken/image:v1@" + string(s.root.Digest); out != want {
		s.Errorf("from %s: berth says %q, want %q", what, out, want)
	}
	s.wantSame("oci:"+layout+":taken/image:v1", s.root.Digest)
	s.check(os.RemoveAll(layout))
}

func (s *shop) content(file string) []byte {
	content, err := os.ReadFile(file)
	s.check(err)
	return content
}

func (s *shop) skopeo(from, to string) {
	s.Helper()
	s.must("skopeo", "copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", from, to)
}

// takesFromDocker pushes what skopeo writes for docker, which has no manifest: config and layers are as they were. skopeo
// decompresses the layers.
func (s *shop) takesFromDocker(repository string) {
	archive := s.path(strings.ReplaceAll(repository, "/", "-") + "-docker.tar")
	s.must("skopeo", "copy", "-q", "oci:"+s.image+":v1", "docker-archive:"+archive+":"+repository+":v1")
	s.must("berth", "push", "--layout", s.layout, "docker-archive:"+archive, repository+":docker")
	s.sameConfig(repository, "docker", s.root.Digest)
	s.check(os.Remove(archive))
}

// imageAt reads a manifest of the layout's registry.
func (s *shop) imageAt(repository, ref string) (m v1.Manifest) {
	s.Helper()
	s.check(json.Unmarshal(s.fetch(s.url(repository)+"/manifests/"+ref), &m))
	return m
}

// sameConfig makes sure that a tag has the config of an image, and as many layers as that says.
func (s *shop) sameConfig(repository, tag string, of digest.Digest) {
	s.Helper()
	want, got := s.imageAt(repository, string(of)), s.imageAt(repository, tag)
	if got.Config.Digest != want.Config.Digest || len(got.Layers) != len(want.Layers) {
		s.Errorf("%s:%s has the config %s and %d layers, want %s and %d", repository, tag, got.Config.Digest, len(got.Layers), want.Config.Digest, len(want.Layers))
	}
}

func (s *shop) hasForeign() bool {
	return !s.isIndex() && slices.ContainsFunc(s.manifestIn(s.image).Layers, func(d v1.Descriptor) bool { return len(d.URLs) > 0 })
}

func (s *shop) hasZstd(dir string) bool {
	return slices.ContainsFunc(s.manifestIn(dir).Layers, func(d v1.Descriptor) bool { return d.MediaType == v1.MediaTypeImageLayerZstd })
}

func (s *shop) manifestIn(dir string) (m v1.Manifest) {
	s.check(json.Unmarshal(s.content(blobFile(dir, s.root.Digest)), &m))
	return m
}

// givesToEvery pulls the image into every form, and has other programs look at it.
func (s *shop) givesToEvery(repository string, loads bool) {
	name := strings.ReplaceAll(repository, "/", "-") + "-out"
	dir, archive := s.path(name), s.path(name+".tar")
	pull := func(to string) { s.must("berth", "pull", "--layout", s.layout, repository+":v1", to) }

	pull("oci:" + dir + ":v1")
	s.wantSame("oci:"+dir+":v1", s.root.Digest)
	s.umociReads(dir)
	pull("oci-archive:" + archive + ":v1")
	s.wantSame("oci-archive:"+archive+":v1", s.root.Digest)
	s.check(errors.Join(os.Remove(archive), os.RemoveAll(dir)))
	for _, host := range []string{s.remote, s.live} {
		ref := host + "/pulled/" + name + ":v1"
		pull("docker://" + ref)
		s.wantSame("docker://"+ref, s.root.Digest)
		s.craneReads(ref)
	}
	if !s.hasForeign() {
		s.givesToDocker(repository, s.path(name+"-docker.tar"), loads)
	}
}

// wantSame has skopeo read an image whole.
func (s *shop) wantSame(form string, want digest.Digest) {
	s.Helper()
	if got := digest.FromString(s.raw(form)); got != want {
		s.Errorf("%s: skopeo reads %s, want %s", form, got, want)
	}
	to := s.temporary()
	s.skopeo(form, "dir:"+to)
	s.check(os.RemoveAll(to))
}

func (s *shop) raw(form string) string {
	s.Helper()
	out := s.run("skopeo", "inspect", "--raw", "--tls-verify=false", form)
	if out.code != 0 {
		s.Fatalf("skopeo inspect %s: %s", form, out.stderr)
	}
	return out.stdout
}

// craneReads has crane pull the image, whole where it lies in the registry.
func (s *shop) craneReads(ref string) {
	s.Helper()
	if s.hasForeign() {
		s.must("crane", "manifest", "--insecure", ref)
		return
	}
	to := s.temporary()
	s.must("crane", "pull", "--insecure", "--format=oci", ref, to)
	if got := s.rootOf(to); got != s.root.Digest {
		s.Errorf("%s: crane pulls %s, want %s", ref, got, s.root.Digest)
	}
	s.check(os.RemoveAll(to))
}

// umociReads unpacks the image. It knows neither indexes nor zstd.
func (s *shop) umociReads(dir string) {
	if s.isIndex() || s.hasForeign() || s.hasZstd(dir) {
		return
	}
	s.must("umoci", "unpack", "--rootless", "--image", dir+":v1", filepath.Join(s.temporary(), "bundle"))
}

// givesToDocker pulls an archive for docker, of one platform where there are more, which docker and podman load: they know
// the image by its config's digest.
func (s *shop) givesToDocker(repository, archive string, loads bool) {
	args := []string{"pull", "--layout", s.layout, "--json", repository + ":v1", "docker-archive:" + archive}
	if s.isIndex() {
		args = append(args, "--platform", platforms[0])
	}
	var pulled struct{ Descriptor v1.Descriptor }
	s.check(json.Unmarshal([]byte(s.must("berth", args...)), &pulled))
	want := s.imageAt(repository, string(pulled.Descriptor.Digest)).Config.Digest
	if got := digest.FromString(s.config(archive)); got != want {
		s.Errorf("skopeo reads the config %s, want %s", got, want)
	}
	s.podman("load", "-i", archive)
	if got := s.podman("image", "inspect", "--format", "{{.Id}}", "docker.io/"+repository+":v1"); got != want.Encoded() {
		s.Errorf("podman loads %s, want %s", got, want.Encoded())
	}
	s.podman("image", "rm", "docker.io/"+repository+":v1")
	if loads {
		s.docker("load", "-i", archive)
		if got := s.docker("image", "inspect", "--format", "{{.Id}}", repository+":v1"); got != string(want) {
			s.Errorf("docker loads %s, want %s", got, want)
		}
		s.docker("image", "rm", repository+":v1")
	}
	again := *s
	again.root = pulled.Descriptor
	again.takes(archive, "berth", "push", "docker-archive:"+archive)
	s.check(os.Remove(archive))
}

func (s *shop) config(archive string) string {
	s.Helper()
	out := s.run("skopeo", "inspect", "--config", "--raw", "docker-archive:"+archive)
	if out.code != 0 {
		s.Fatalf("skopeo inspect %s: %s", archive, out.stderr)
	}
	return out.stdout
}

// buildahLayout has buildah build for all platforms.
func (c *clients) buildahLayout(dir string) {
	at, list := c.temporary(), "localhost/layout"
	c.write(filepath.Join(at, "Dockerfile"), "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /"+platformFile+"\n")
	for platform, content := range c.base.content {
		c.write(filepath.Join(at, platformOf(platform).Architecture), content)
	}
	c.buildah("build", "--platform", strings.Join(platforms, ","), "--manifest", list, at)
	c.buildah("manifest", "push", "--all", list, "oci:"+dir+":v1")
}

// buildkitLayout has BuildKit build for all platforms, with attestations, into an archive.
func (c *clients) buildkitLayout(dir string) {
	b := c.building(c.buildkitSocket, "FROM "+c.ref(baseRepository)+"\nCOPY Dockerfile /\n")
	archive := filepath.Join(b.dir, "out.tar")
	b.run("--output=type=oci,name=layout:v1,dest="+archive, "--opt=attest:provenance=mode=max")
	c.must("skopeo", "copy", "-q", "--all", "--preserve-digests", "oci-archive:"+archive, "oci:"+dir+":v1")
}

// put builds an image as berth does, into a layout.
func (c *clients) put(dir string, images ...source.Image) {
	c.Helper()
	from := source.Build(nil, images...)
	defer from.Close()
	to, err := source.ToLayout(dir, "v1")
	c.check(err)
	defer to.Close()
	root, err := from.Root(c.Context())
	c.check(err)
	c.putTree(from, to, root)
	c.check(to.Commit(c.Context(), root))
}

func (c *clients) putTree(from source.Source, to source.Destination, desc v1.Descriptor) {
	c.Helper()
	content, err := from.Fetch(c.Context(), desc)
	c.check(err)
	defer content.Close()
	if manifest.KindOf(desc.MediaType) == 0 {
		c.check(to.Put(c.Context(), desc, content))
		return
	}
	raw, err := io.ReadAll(content)
	c.check(err)
	doc, err := manifest.Parse(desc.MediaType, raw)
	c.check(err)
	for _, child := range doc.Required() {
		c.putTree(from, to, child)
	}
	c.check(to.Put(c.Context(), desc, bytes.NewReader(raw)))
}

func (c *clients) builtIndex(dir string) {
	var images []source.Image
	for i, platform := range platforms {
		files := c.temporary()
		c.write(filepath.Join(files, platformFile), c.base.content[platform])
		images = append(images, source.Image{
			Platform: platformOf(platform),
			Layers:   []source.Layer{{FS: os.DirFS(files), Compression: []source.Compression{source.Gzip, source.None}[i%2]}},
		})
	}
	c.put(dir, images...)
}

func (c *clients) builtImage(dir string, compression source.Compression, layers int) {
	image := source.Image{Platform: platformOf(platforms[0]), Config: v1.ImageConfig{Cmd: []string{"/bin/app"}}}
	for i := range layers {
		files := c.temporary()
		c.write(filepath.Join(files, fmt.Sprint("file", i)), strings.Repeat(fmt.Sprint(i), 1+i*1000))
		image.Layers = append(image.Layers, source.Layer{FS: os.DirFS(files), Compression: compression})
	}
	c.put(dir, image)
}

// builtEmpty has layers of nothing, twice the same.
func (c *clients) builtEmpty(dir string) {
	nothing := source.Layer{FS: os.DirFS(c.temporary())}
	c.put(dir, source.Image{Platform: platformOf(platforms[0]), Layers: []source.Layer{nothing, nothing}})
}

// foreignLayout has a layer that lies elsewhere.
func (c *clients) foreignLayout(dir string) {
	layer := c.tarball("file", "elsewhere")
	config := v1.Image{Platform: platformOf(platforms[0]), RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}}}
	foreign := manifest.Descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", layer)
	foreign.URLs = []string{c.elsewhere(layer).url}
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{foreign}}
	m.SchemaVersion = 2
	m.Config = c.putBlob(dir, v1.MediaTypeImageConfig, c.encode(config))
	c.writeIndex(dir, "v1", c.putBlob(dir, v1.MediaTypeImageManifest, c.encode(m)))
}

// large is the size of the largest layer in MiB. The programs that read it again and again take minutes for one of 2 GiB.
var large = flag.Int64("large", 256, "size of the largest layer that goes through every form, in MiB")

func (c *clients) builtLarge(dir string) {
	files := c.temporary()
	content := filepath.Join(files, "large")
	c.randomFile(content, 1<<20)
	c.check(os.Truncate(content, *large<<20)) // what programs make of it is quickly compressed
	c.put(dir, source.Image{Platform: platformOf(platforms[0]), Layers: []source.Layer{{FS: os.DirFS(files)}}})
	c.check(os.RemoveAll(files))
}
