//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// buildkitPackages are BuildKit's programs, in a module of their own.
var buildkitPackages = []string{"github.com/moby/buildkit/cmd/buildctl", "github.com/moby/buildkit/cmd/buildkitd"}

// buildBuildkit builds them once for a run, if a test asks for them: they are large.
var buildBuildkit = sync.OnceValue(func() error { return build("buildkit", binaries, buildkitPackages...) })

// buildkitConfig is a daemon's: it runs steps with runc, in the network of the machine, since there is no
// other; the snapshotter native works wherever the test may run in a container.
const buildkitConfig = `root = %q
[grpc]
  address = ["unix://%s"]
[worker.containerd]
  enabled = false
[worker.oci]
  enabled = true
  binary = %q
  networkMode = "host"
  snapshotter = "native"
[registry.%q]
  http = true
`

// buildkitd starts a daemon that has built nothing yet, and returns its socket.
func (c *clients) buildkitd() string {
	c.Helper()
	c.check(buildBuildkit())
	dir := c.temporary()
	config, socket := filepath.Join(dir, "buildkitd.toml"), filepath.Join(c.temp, filepath.Base(dir)+".sock")
	c.write(config, fmt.Sprintf(buildkitConfig, filepath.Join(dir, "root"), socket, program(c.T, "runc"), c.address))
	daemon := c.asRoot().start("buildkitd", "--config", config)
	c.Cleanup(daemon.end)
	daemon.await(&daemon.stderr, regexp.MustCompile(`running server on (\S+)`))
	return socket
}

// building is one build: a directory with a Dockerfile, for a daemon.
type building struct {
	*clients
	dir, socket string
	printed     string
}

func (c *clients) building(socket, dockerfile string) *building {
	c.Helper()
	b := &building{clients: c, dir: c.temporary(), socket: socket}
	b.write(filepath.Join(b.dir, "Dockerfile"), dockerfile)
	return b
}

// run builds for all platforms.
func (b *building) run(flags ...string) {
	b.Helper()
	out := b.shell.run("buildctl", append([]string{"--addr", "unix://" + b.socket, "build", "--progress=plain",
		"--frontend=dockerfile.v0", "--local=context=" + b.dir, "--local=dockerfile=" + b.dir,
		"--opt=platform=" + strings.Join(platforms, ",")}, flags...)...)
	b.printed = out.stderr
	if out.code != 0 {
		b.Fatalf("buildctl: exit code %d\n%s", out.code, out.stderr)
	}
}

// push builds, pushes the index to REPOSITORY:v1, and returns the digest that it is told to have.
func (b *building) push(repository string, flags ...string) digest.Digest {
	b.Helper()
	metadata := filepath.Join(b.dir, "metadata.json")
	b.run(append(flags, "--output=type=image,push=true,name="+b.ref(repository), "--metadata-file="+metadata)...)
	raw, err := os.ReadFile(metadata)
	b.check(err)
	var told struct {
		Digest digest.Digest `json:"containerimage.digest"`
	}
	b.check(json.Unmarshal(raw, &told))
	return told.Digest
}

// buildkitPush builds on the base, so that the files of the platforms are those of the base, and attests
// how.
func (c *clients) buildkitPush(repository string) digest.Digest {
	b := c.building(c.buildkitSocket, "FROM "+c.ref(baseRepository)+"\nCOPY Dockerfile /\n")
	return b.push(repository, "--opt=attest:provenance=mode=max")
}

func (c *clients) buildkitPull(repository string, want digest.Digest) {
	b := c.building(c.buildkitSocket, "FROM "+c.ref(repository)+"\n")
	b.run("--output=type=local,dest=" + filepath.Join(b.dir, "out"))
	if name := c.ref(repository) + "@" + string(want); !strings.Contains(b.printed, name) {
		c.Errorf("BuildKit does not take it for %s:\n%s", name, b.printed)
	}
	for _, platform := range platforms {
		c.wantPlatformFile(c.base, platform, filepath.Join(b.dir, "out", strings.ReplaceAll(platform, "/", "_"), platformFile))
	}
}

// steps is a build with a step that runs, on the machine's own platform, and that gives something else
// whenever it runs. %[1]s is the base.
const steps = `FROM --platform=$BUILDPLATFORM %[1]s AS run
COPY step /step
RUN ["/step", "/result"]
FROM %[1]s
COPY --from=run /result /result
`

// cacheFormats are the forms that BuildKit's cache takes in a registry. As an index, its children are no
// manifests.
var cacheFormats = map[string]string{
	"image":       "image-manifest=true",
	"index":       "image-manifest=false,oci-mediatypes=true",
	"docker list": "image-manifest=false,oci-mediatypes=false",
}

// A build tells where its images come from by their digests, and a daemon that has built nothing takes
// what another has built from the cache, which a collection in between has left.
func TestBuildKitKeepsItsCacheInTheRegistry(t *testing.T) {
	needRoot(t)
	c := newClients(t)
	for name, format := range cacheFormats {
		t.Run(name, func(t *testing.T) {
			c := c.in(t)
			cache := "type=registry,ref=" + c.ref("cache/"+strings.ReplaceAll(name, " ", "-"))
			b := c.stepBuilding(c.buildkitd())
			root := b.push("built/first", "--opt=attest:provenance=mode=max", "--export-cache="+cache+",mode=max,"+format)
			c.wantIndex("built/first", root)
			c.wantProvenance("built/first", root)
			c.must("berth", "gc", "--layout", c.layout, "--grace", "0")

			other := c.stepBuilding(c.buildkitd())
			c.wantIndex("built/second", other.push("built/second", "--import-cache="+cache))
			if first, second := c.exported("built/first", platforms[0], "result"), c.exported("built/second", platforms[0], "result"); first != second {
				t.Errorf("the step has run again, and gave %q after %q:\n%s", second, first, other.printed)
			}
		})
	}
}

// stepBuilding is a build with a step that runs.
func (c *clients) stepBuilding(socket string) *building {
	c.Helper()
	c.check(build(".", binaries, "./step"))
	b := c.building(socket, fmt.Sprintf(steps, c.ref(baseRepository)))
	step, err := os.ReadFile(program(c.T, "step"))
	c.check(err)
	c.check(os.WriteFile(filepath.Join(b.dir, "step"), step, 0o755))
	return b
}

// wantProvenance makes sure that an index attests, for each platform, the base that it was built on.
func (c *clients) wantProvenance(repository string, root digest.Digest) {
	c.Helper()
	found := 0
	for _, d := range c.closure(c.url(repository), string(root)) {
		blob := c.fetch(c.url(repository) + "/blobs/" + string(d))
		if bytes.Contains(blob, []byte("https://slsa.dev/provenance/")) && bytes.Contains(blob, []byte(c.base.root.Encoded())) {
			found++
		}
	}
	if found != len(platforms) {
		c.Errorf("%d attestations name the base, want %d", found, len(platforms))
	}
}
