//go:build linux

package e2e

import (
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// storage are the flags that keep podman's and buildah's images in a directory of the test. The driver
// vfs mounts nothing, and works wherever the test itself may run in a container.
func (c *clients) storage(name string) []string {
	return []string{"--root", c.path(name, "root"), "--runroot", filepath.Join(c.temp, name), "--storage-driver", "vfs"}
}

func (c *clients) podman(args ...string) string {
	c.Helper()
	return c.must("podman", append(append(c.storage("podman"), "--tmpdir", filepath.Join(c.temp, "podman-tmp")), args...)...)
}

func (c *clients) buildah(args ...string) string {
	c.Helper()
	return c.must("buildah", append(c.storage("buildah"), args...)...)
}

// podmanPush pulls the images of all platforms, and puts them into an index anew.
func (c *clients) podmanPush(repository string) digest.Digest {
	list, file := "localhost/"+repository, filepath.Join(c.temporary(), "digest")
	c.podman("manifest", "create", list)
	for _, platform := range platforms {
		image := c.podman("pull", "--quiet", "--tls-verify=false", "--platform", platform, c.ref(baseRepository))
		c.podman("manifest", "add", list, "containers-storage:"+image)
	}
	c.podman("manifest", "push", "--all", "--tls-verify=false", "--digestfile", file, list, "docker://"+c.ref(repository))
	return c.digestIn(file)
}

func (c *clients) podmanPull(repository string, want digest.Digest) {
	for _, platform := range platforms {
		image := c.podman("pull", "--quiet", "--tls-verify=false", "--platform", platform, c.ref(repository))
		digests := c.podman("image", "inspect", "--format", "{{.RepoDigests}}", image)
		if name := c.address + "/" + repository + "@" + string(want); !strings.Contains(digests, name) {
			c.Errorf("podman knows the image for %s as %s, want %s", platform, digests, name)
		}
		c.wantPlatformFile(c.base, platform, filepath.Join(c.podman("image", "mount", image), platformFile))
		c.podman("image", "unmount", image)
	}
}

// buildahPush builds for all platforms at once, from nothing.
func (c *clients) buildahPush(repository string) digest.Digest {
	dir, list := c.temporary(), "localhost/"+repository
	file := filepath.Join(dir, "digest")
	c.write(filepath.Join(dir, "Dockerfile"), "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /"+platformFile+"\n")
	for platform, content := range c.base.content {
		c.write(filepath.Join(dir, platformOf(platform).Architecture), content)
	}
	c.buildah("build", "--platform", strings.Join(platforms, ","), "--manifest", list, dir)
	c.buildah("manifest", "push", "--all", "--tls-verify=false", "--digestfile", file, list, "docker://"+c.ref(repository))
	return c.digestIn(file)
}

// buildahPull compares with the manifests of the platforms: buildah does not tell by what digest it knows
// the index.
func (c *clients) buildahPull(repository string, want digest.Digest) {
	children := c.children(repository, want)
	for _, platform := range platforms {
		container := c.buildah("from", "--quiet", "--pull-always", "--tls-verify=false", "--platform", platform, c.ref(repository))
		if got := c.buildah("inspect", "--format", "{{.FromImageDigest}}", container); got != string(children[platform]) {
			c.Errorf("buildah pulls %s for %s, want %s", got, platform, children[platform])
		}
		c.wantPlatformFile(c.base, platform, filepath.Join(c.buildah("mount", container), platformFile))
		c.buildah("rm", container)
	}
}
