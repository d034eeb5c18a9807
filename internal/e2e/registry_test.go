//go:build linux

package e2e

import (
	"encoding/base64"
	"fmt"
	"regexp"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth/internal/canary"
)

const (
	user     = "builder"
	password = canary.Mark + "correct-horse-Battery9"
	wrong    = canary.Mark + "wrong-horse-Battery7"
)

// registryConfig is the distribution registry's configuration, up to who may do what: anybody, if nothing follows.
const registryConfig = `version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0", secret: e2e}
validation: {manifests: {urls: {allow: ["^https?://"]}}}
`

var listeningLine = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// oldRegistry is Debian's distribution registry, of version 2.
const oldRegistry = "docker-registry"

// registry starts the distribution registry, and returns its address.
func (s *shell) registry(auth string) string {
	s.Helper()
	return s.registryOf("registry", auth)
}

// registryOf starts the distribution registry as the program that is named.
func (s *shell) registryOf(program, auth string) string {
	s.Helper()
	config := s.path("registry", "config.yml")
	s.write(config, fmt.Sprintf(registryConfig, s.registryData())+auth)
	p := s.start(program, "serve", config)
	return p.await(&p.stderr, listeningLine)
}

// registryData is where the registry of this test keeps what it has.
func (s *shell) registryData() string { return s.path("registry", "data") }

// htpasswdRegistry is one that asks for user and password.
func (s *shell) htpasswdRegistry() string {
	s.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	s.check(err)
	file := s.path("registry", "htpasswd")
	s.write(file, user+":"+string(hash)+"\n")
	return s.registry(fmt.Sprintf("auth:\n  htpasswd: {realm: e2e, path: %q}\n", file))
}

// loggedIn is the shell of somebody who has logged in at a host, as Docker keeps that.
func (s *shell) loggedIn(host, password string) *shell {
	s.Helper()
	dir := s.path("docker-" + digest.FromString(password).Encoded()[:8])
	pair := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	s.write(dir+"/config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, pair))
	return s.with("DOCKER_CONFIG=" + dir)
}
