package sdk

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	gosync "sync"

	"github.com/berthoci/berth/plugin"
)

// Endpoint is where other programs find the registry, for as long as it is open.
type Endpoint struct {
	// URL is where the distribution API is, without its /v2/.
	URL string `json:"url"`
	// Host is HOST:PORT of that, as references to images begin.
	Host string `json:"host"`
	// Username and Password are what the registry asks for. Empty: nothing. The password is a bearer token too.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// Socket is the path of a Unix socket at which the same is served, in plain http. Empty: none was asked for.
	Socket string `json:"socket,omitempty"`
	// Layout is the directory, absolute.
	Layout string `json:"layout"`
}

// Endpoint tells where other programs find the registry, for as long as it is open. It stays the same when the process
// is replaced that serves the layout, unless another program has taken the address meanwhile.
func (r *Registry) Endpoint() Endpoint {
	hold := r.session.Current()
	return NewEndpoint(hold.Endpoint(), hold.Info().Layout)
}

// NewEndpoint describes an address that a plugin has opened.
func NewEndpoint(at plugin.Endpoint, layout string) Endpoint {
	e := Endpoint{URL: "http://" + at.Address, Host: at.Address, Socket: at.Socket, Layout: layout}
	if at.Token != "" {
		e.Username, e.Password = tokenUser, at.Token
	}
	return e
}

// basic is the credentials as basic authentication sends them (RFC 7617).
func (e Endpoint) basic() string {
	return base64.StdEncoding.EncodeToString([]byte(e.Username + ":" + e.Password))
}

// DockerConfig is the content of a config.json that gives docker and its like the credentials; podman and skopeo
// take it by --authfile.
func (e Endpoint) DockerConfig() []byte {
	type entry struct {
		Auth string `json:"auth"`
	}
	config := struct {
		Auths map[string]entry `json:"auths"`
	}{map[string]entry{}}
	if e.Password != "" {
		config.Auths[e.Host] = entry{e.basic()}
	}
	data, _ := json.MarshalIndent(config, "", "  ") // strings alone
	return append(data, '\n')
}

// HostsTOML is the content of a hosts.toml that lets containerd use the registry: for the directory
// certs.d/HOST of its configuration, where HOST is e.Host.
func (e Endpoint) HostsTOML() string {
	text := fmt.Sprintf("server = %q\n\n[host.%[1]q]\n  capabilities = [\"pull\", \"resolve\", \"push\"]\n", e.URL)
	if e.Password != "" {
		text += fmt.Sprintf("  [host.%q.header]\n    authorization = %q\n", e.URL, "Basic "+e.basic())
	}
	return text
}

// BuildkitTOML is what a buildkitd.toml needs to use the registry. The credentials are the client's to give: see
// DockerConfig.
func (e Endpoint) BuildkitTOML() string { return fmt.Sprintf("[registry.%q]\n  http = true\n", e.Host) }

// RegistriesConf is what a registries.conf needs for podman, buildah and skopeo to use the registry without
// flags. The credentials go into an auth file: see DockerConfig.
func (e Endpoint) RegistriesConf() string {
	return fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", e.Host)
}

// dockerConfig is a temporary directory with a config.json in it.
type dockerConfig struct {
	mu  gosync.Mutex // guards the field below
	dir string
}

// DockerConfig makes a directory for DOCKER_CONFIG, with a config.json that has the credentials of the registry and
// no others. It is removed by Close. Each call brings the file up to date, and returns the same directory.
func (r *Registry) DockerConfig() (dir string, err error) {
	r.config.mu.Lock()
	defer r.config.mu.Unlock()
	if r.config.dir == "" {
		if r.config.dir, err = os.MkdirTemp("", "berth-docker-"); err != nil {
			return "", err
		}
	}
	return r.config.dir, os.WriteFile(filepath.Join(r.config.dir, "config.json"), r.Endpoint().DockerConfig(), 0o600)
}

func (c *dockerConfig) remove() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir == "" {
		return nil
	}
	err := os.RemoveAll(c.dir)
	c.dir = ""
	return err
}
