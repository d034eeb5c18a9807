//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What berth endpoint prints is what other programs need to use the registry without a flag of their own.
func TestEndpointIsWhatOtherProgramsNeed(t *testing.T) {
	needRoot(t) // containerd
	c := newClients(t)
	var at struct{ Host, DockerConfig, HostsToml, RegistriesConf string }
	printed := c.must("berth", "endpoint", "--layout", c.layout, "--json", "--while-pid", strconv.Itoa(os.Getpid()))
	c.check(json.Unmarshal([]byte(printed), &at))
	ref, want := at.Host+"/"+baseRepository+":v1", c.base.root.String()

	auth, registries, hosts := c.path("docker-config", "config.json"), c.path("registries.conf"), c.path("certs.d")
	c.write(auth, at.DockerConfig)
	c.write(registries, at.RegistriesConf)
	c.write(filepath.Join(hosts, at.Host, "hosts.toml"), at.HostsToml)

	if out := c.run("crane", "digest", ref); out.code == 0 {
		t.Error("it asks nobody who it is")
	}
	if got := c.with("DOCKER_CONFIG="+filepath.Dir(auth)).must("crane", "digest", ref); strings.TrimSpace(got) != want {
		t.Errorf("crane finds %s, want %s", got, want)
	}
	copied := c.path("copied")
	c.must("skopeo", "--registries-conf", registries, "copy", "--all", "--authfile", auth, "docker://"+ref, "oci:"+copied+":v1")
	c.dockerSocket = c.dockerd() // which brings containerd
	socket := filepath.Join(c.temp, "docker", "containerd", "containerd.sock")
	c.must("ctr", "--address", socket, "images", "pull", "--hosts-dir", hosts, "--snapshotter=native", ref)
}
