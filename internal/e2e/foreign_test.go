//go:build linux

package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, of manifests in schema 2.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// elsewhere serves one layer that is not in the registry.
type elsewhere struct {
	layer []byte
	url   string
	asked atomic.Int32
}

func (s *shell) elsewhere(layer []byte) *elsewhere {
	s.Helper()
	e := &elsewhere{layer: layer}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(layer))
	}))
	s.Cleanup(server.Close)
	e.url = server.URL + "/layer"
	return e
}

// native is the platform that programs choose which are not told any.
const native = "linux/" + runtime.GOARCH

// foreign is an image that says of its second layer that it lies elsewhere.
type foreign struct {
	*clients
	*elsewhere
	repository string
	content    string // of platformFile, which is in that layer
	root       digest.Digest
	absent     v1.Descriptor // the layer that the registry does not have
}

func (c *clients) foreign(repository string) *foreign {
	c.Helper()
	f := &foreign{clients: c, repository: repository, content: rand.Text()}
	archives := [][]byte{c.tarball("first", "first"), c.tarball(platformFile, f.content)}
	f.elsewhere = c.elsewhere(c.compress(archives[1]))
	f.absent = v1.Descriptor{MediaType: dockerForeignLayer, Digest: digest.FromBytes(f.layer), Size: int64(len(f.layer)), URLs: []string{f.elsewhere.url}}
	config := v1.Image{Platform: platformOf(native), RootFS: v1.RootFS{Type: "layers"}}
	for _, archive := range archives {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(archive))
	}
	manifest := c.encode(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: dockerManifest,
		Config: c.upload(c.url(repository), dockerConfig, c.encode(config)),
		Layers: []v1.Descriptor{c.upload(c.url(repository), dockerLayer, c.compress(archives[0])), f.absent}})
	c.send(http.MethodPut, c.url(repository)+"/manifests/v1", dockerManifest, manifest, http.StatusCreated)
	f.root = digest.FromBytes(manifest)
	return f
}

// upload puts a blob into the repository at an address.
func (s *shell) upload(repository, mediaType string, content []byte) v1.Descriptor {
	s.Helper()
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	s.send(http.MethodPost, repository+"/blobs/uploads/?digest="+string(desc.Digest), "application/octet-stream", content, http.StatusCreated)
	return desc
}

// send sends a request that has to be answered with a status.
func (s *shell) send(method, url, mediaType string, body []byte, want int) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, url, bytes.NewReader(body))
	s.check(err)
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	s.check(err)
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != want {
		s.Fatalf("%s %s: %s, want %d: %s", method, url, resp.Status, want, answer)
	}
}

// pullers are programs that fetch a layer from where a manifest says that it lies. Each returns
// platformFile, of the image that it has pulled. containerd is the one that dockerd has started, whose image
// store dockerd can be told to use.
var pullers = map[string]func(*foreign) string{
	"skopeo":     (*foreign).skopeoLayer,
	"podman":     (*foreign).podmanFile,
	"buildah":    (*foreign).buildahFile,
	"containerd": (*foreign).containerdFile,
	"buildkit":   (*foreign).buildkitFile,
}

// The registry takes an image with a layer that it does not have, if the manifest says where else that is,
// and clients fetch the layer from there.
func TestALayerThatLiesElsewhere(t *testing.T) {
	needRoot(t)
	c := newClients(t)
	c.dockerSocket, c.buildkitSocket = c.dockerd(), c.buildkitd()
	f := c.foreign("foreign/image")
	for name, pull := range pullers {
		t.Run(name, func(t *testing.T) {
			f.clients = c.in(t)
			f.asked.Store(0)
			if got := pull(f); got != f.content {
				t.Errorf("the file in the layer has %q, want %q", got, f.content)
			}
			if f.asked.Load() == 0 {
				t.Error("the layer was not fetched from where it lies")
			}
		})
	}
}

func (f *foreign) skopeoLayer() string {
	dir := f.temporary()
	f.must("skopeo", "copy", "--src-tls-verify=false", "docker://"+f.ref(f.repository), "dir:"+dir)
	layer, err := os.Open(filepath.Join(dir, f.absent.Digest.Encoded()))
	f.check(err)
	defer layer.Close()
	plain, err := gzip.NewReader(layer)
	f.check(err)
	return f.fileIn(plain, platformFile)
}

func (f *foreign) podmanFile() string {
	image := f.podman("pull", "--quiet", "--tls-verify=false", f.ref(f.repository))
	return f.fileBelow(f.podman("image", "mount", image))
}

func (f *foreign) buildahFile() string {
	return f.fileBelow(f.buildah("mount", f.buildah("from", "--quiet", "--tls-verify=false", f.ref(f.repository))))
}

func (f *foreign) containerdFile() string {
	socket, at := filepath.Join(f.temp, "docker", "containerd", "containerd.sock"), f.temporary()
	f.must("ctr", "--address", socket, "images", "pull", "--plain-http", "--snapshotter=native", f.ref(f.repository))
	f.must("ctr", "--address", socket, "images", "mount", "--snapshotter=native", f.ref(f.repository), at)
	return f.fileBelow(at)
}

func (f *foreign) buildkitFile() string {
	b := f.building(f.buildkitSocket, "FROM "+f.ref(f.repository)+"\n")
	b.run("--opt=platform="+native, "--output=type=local,dest="+filepath.Join(b.dir, "out"))
	return f.fileBelow(filepath.Join(b.dir, "out"))
}

// fileBelow is what platformFile has in a directory where the image was unpacked.
func (f *foreign) fileBelow(dir string) string {
	f.Helper()
	content, err := os.ReadFile(filepath.Join(dir, platformFile))
	f.check(err)
	return string(content)
}

// dockerd on Linux, with its own image store, is the exception: only on Windows does it look at where else
// a layer lies. It asks the registry, which has to tell it that there is none, and pulls such an image if
// the registry has the layer as well.
func TestDockerTakesEveryLayerFromTheRegistry(t *testing.T) {
	needRoot(t)
	c := newClients(t)
	c.dockerSocket = c.dockerd()
	f := c.foreign("foreign/image")
	out := c.with("DOCKER_HOST=unix://"+c.dockerSocket).run("docker", "pull", c.ref(f.repository))
	if out.code == 0 || !strings.Contains(out.stderr, "unknown blob") {
		t.Errorf("docker pulls what the registry has not: exit code %d\n%s%s", out.code, out.stdout, out.stderr)
	}
	f.upload(f.clients.url(f.repository), dockerForeignLayer, f.layer)
	if got := c.digestAfter("Digest: ", c.docker("pull", c.ref(f.repository))); got != f.root {
		t.Errorf("docker pulls %s, want %s", got, f.root)
	}
	if got := f.fileBelow(filepath.Dir(c.copyOut(native, c.ref(f.repository)))); got != f.content {
		t.Errorf("the file in the layer has %q, want %q", got, f.content)
	}
	if n := f.asked.Load(); n != 0 {
		t.Errorf("docker fetched the layer %d times from elsewhere", n)
	}
}

// A copy says the same of the layer, and needs it no more than the original.
func TestACopyLeavesALayerWhereItLies(t *testing.T) {
	c := newClients(t)
	f := c.foreign("foreign/image")
	c.must("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+c.ref(f.repository), "docker://"+c.ref("foreign/skopeo"))
	c.must("crane", "copy", c.ref(f.repository), c.ref("foreign/crane"))
	c.regctl("image", "copy", c.ref(f.repository), c.ref("foreign/regctl"))
	for _, name := range []string{"foreign/image", "foreign/skopeo", "foreign/crane", "foreign/regctl"} {
		if got := digest.FromBytes(c.fetchWhole(c.url(name)+"/manifests/v1", "v1")); got != f.root {
			t.Errorf("%s is %s, want %s", name, got, f.root)
		}
		c.send(http.MethodGet, c.url(name)+"/blobs/"+string(f.absent.Digest), "", nil, http.StatusNotFound)
	}
	if n := f.asked.Load(); n != 0 {
		t.Errorf("the layer was fetched %d times", n)
	}
}
