package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/berthoci/berth/internal/smallfile"
)

// maxDockerConfig bounds, in bytes, a file that has credentials.
const maxDockerConfig = 16 << 20

// dockerConfig is what docker's config.json and podman's auth.json say about credentials.
type dockerConfig struct {
	Auths       map[string]dockerEntry `json:"auths"`
	CredHelpers map[string]string      `json:"credHelpers"`
	CredsStore  string                 `json:"credsStore"`

	name string // of the file or variable, for errors
	err  error  // why it cannot be used; known only to who gets this far
}

type dockerEntry struct {
	Auth          string `json:"auth"` // base64 of "username:password"
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// readDockerConfig reads a file. One that does not exist is empty; so is one below something that is
// no directory, for a sandbox has its home at /dev/null.
func readDockerConfig(path string) *dockerConfig {
	raw, err := smallfile.Read(path, maxDockerConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return &dockerConfig{err: err} // it names the file
	}
	return parseDockerConfig(path, raw)
}

// parseDockerConfig parses raw and brings the keys into their plain form. The error does not repeat
// the decoder's, which may quote what it stumbled over.
func parseDockerConfig(name string, raw []byte) *dockerConfig {
	c := &dockerConfig{name: name}
	if len(bytes.TrimSpace(raw)) == 0 {
		return c
	}
	if err := json.Unmarshal(raw, c); err != nil {
		return &dockerConfig{err: fmt.Errorf("%s is not in the JSON form of docker's config.json", name)}
	}
	c.Auths = plainKeys(c.Auths)
	c.CredHelpers = plainKeys(c.CredHelpers)
	return c
}

// entry returns what auths has for a plain key.
func (c *dockerConfig) entry(key string) (Credential, error) {
	e := c.Auths[key]
	cred := Credential{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, AccessToken: e.RegistryToken}
	if e.Auth == "" {
		return cred, nil
	}
	pair, err := base64.StdEncoding.DecodeString(e.Auth)
	username, password, ok := strings.Cut(string(pair), ":")
	if err != nil || !ok {
		return Credential{}, fmt.Errorf("%s: auth of %s is not the base64 form of user:password", c.name, key)
	}
	// Docker once padded what it encoded with zero bytes.
	cred.Username, cred.Password = username, strings.TrimRight(password, "\x00")
	return cred, nil
}

// helper returns the name of the credential helper for a host, without "docker-credential-"; "" if
// there is none.
func (c *dockerConfig) helper(host string) string {
	if helper, ok := c.CredHelpers[host]; ok {
		return helper
	}
	return c.CredsStore
}

// plainKeys returns m by plain keys. Of several that are the same key, the one that is written
// plainly wins, but for Docker Hub the one that docker writes.
func plainKeys[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		plain := plainKey(key)
		if _, taken := out[plain]; !taken || key == plain || key == hubKey {
			out[plain] = m[key]
		}
	}
	return out
}

// plainKey returns the form "host:port/path" of a key, which older clients wrote as the address of
// an API: "https://registry.example/v2/".
func plainKey(key string) string {
	rest, isURL := strings.CutPrefix(key, "https://")
	if !isURL {
		rest, isURL = strings.CutPrefix(key, "http://")
	}
	host, path, _ := strings.Cut(rest, "/")
	path = strings.Trim(path, "/")
	if path == "" || isURL && (path == "v1" || path == "v2") {
		return plainHost(host)
	}
	return plainHost(host) + "/" + path
}
