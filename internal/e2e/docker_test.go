//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// dockerd starts a daemon whose files are all in directories of the test, and returns its socket. It
// makes no network, so that it changes nothing on the machine; the driver vfs works wherever the test
// may run in a container.
func (c *clients) dockerd() string {
	c.Helper()
	socket := filepath.Join(c.temp, "docker.sock")
	daemon := c.asRoot().start("dockerd", "--host", "unix://"+socket, "--pidfile", filepath.Join(c.temp, "docker.pid"),
		"--data-root", c.path("docker"), "--exec-root", filepath.Join(c.temp, "docker"), "--storage-driver", "vfs",
		"--bridge=none", "--iptables=false", "--ip6tables=false")
	c.Cleanup(daemon.end)
	daemon.await(&daemon.stderr, regexp.MustCompile(`API listen on (\S+docker\.sock)`))
	return socket
}

// asRoot is a shell that finds the programs of the system, as those do that look for each other.
func (s *shell) asRoot() *shell { return s.with("PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin") }

func (c *clients) docker(args ...string) string {
	c.Helper()
	return c.with("DOCKER_HOST=unix://"+c.dockerSocket).must("docker", args...)
}

// dockerPush pushes the image of each platform, which it has pulled, and then the index.
func (c *clients) dockerPush(repository string) digest.Digest {
	index := []string{"manifest", "create", "--insecure", c.ref(repository)}
	for _, platform := range platforms {
		image := c.ref(repository) + "-" + platformOf(platform).Architecture
		c.docker("pull", "--platform", platform, c.ref(baseRepository))
		c.docker("tag", c.ref(baseRepository), image)
		pushed := c.digestAfter("digest: ", c.docker("push", image))
		c.fetchWhole(c.url(repository)+"/manifests/"+string(pushed), string(pushed))
		c.docker("image", "rm", image, c.ref(baseRepository))
		index = append(index, image)
	}
	c.docker(index...)
	return c.digestAfter("", c.docker("manifest", "push", "--insecure", c.ref(repository)))
}

func (c *clients) dockerPull(repository string, want digest.Digest) {
	for _, platform := range platforms {
		if got := c.digestAfter("Digest: ", c.docker("pull", "--platform", platform, c.ref(repository))); got != want {
			c.Errorf("docker pulls %s for %s, want %s", got, platform, want)
		}
		digests := c.docker("image", "inspect", "--format", "{{.RepoDigests}}", c.ref(repository))
		if name := c.address + "/" + repository + "@" + string(want); !strings.Contains(digests, name) {
			c.Errorf("docker knows the image for %s as %s, want %s", platform, digests, name)
		}
		c.wantPlatformFile(c.base, platform, c.copyOut(platform, c.ref(repository)))
		c.docker("image", "rm", c.ref(repository)) // docker knows one image by an index, whichever platform it is for
	}
}

// copyOut copies platformFile out of an image that docker has.
func (c *clients) copyOut(platform, ref string) string {
	c.Helper()
	file := filepath.Join(c.temporary(), platformFile)
	container := c.docker("create", "--platform", platform, ref, "/none")
	c.docker("cp", container+":/"+platformFile, file)
	c.docker("rm", container)
	return file
}
