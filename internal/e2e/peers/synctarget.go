//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// way is how clients reach the registry that they bring images to, and the server of its tokens.
type way struct {
	name  string
	delay time.Duration // in one direction; 0: they speak to both themselves
}

var ways = []way{{far, 10 * time.Millisecond}, {near, 0}}

const (
	far  = "20 ms"
	near = "loopback"
)

// targetConfig is a distribution registry's configuration that gives nothing without a token. It tells no client
// another address than the one that it came by.
const targetConfig = `version: 0.1
log: {level: error, accesslog: {disabled: %t}}
storage: {filesystem: {rootdirectory: %q}}
http: {addr: %q, secret: peers, relativeurls: true}
auth: {token: {realm: %q, service: %q, issuer: %q, jwks: %q}}
`

// target is an empty registry that images are brought to, and the way there.
type target struct {
	*server
	tokens *tokenServer
	// reached and realm are the addresses of the registry and of the token server for clients.
	reached, realm string
	links          []*link
	home           string   // of clients, who are logged in
	access         *os.File // has a line for each request; nil: nothing is counted
}

// openTarget starts one. All that it needs lies in a fresh directory.
func (b *bench) openTarget(ctx context.Context, w way) (*target, error) {
	dir, err := os.MkdirTemp(b.dir, "target-")
	if err != nil {
		return nil, err
	}
	own, err := freeAddress()
	if err != nil {
		return nil, err
	}
	t := &target{tokens: b.tokenServer, reached: own, realm: b.tokenServer.address, home: filepath.Join(dir, "home")}
	err = t.open(w, dir)
	if err == nil {
		err = errors.Join(t.configure(dir, own), t.login())
	}
	if err == nil {
		t.server, err = b.launch(ctx, &server{name: distribution, dir: dataDir(dir), address: own, cmd: t.command(b, dir)})
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *target) command(b *bench, dir string) *exec.Cmd {
	cmd := exec.Command(b.built("registry"), "serve", configFile(dir))
	if t.access != nil {
		cmd.Stdout = t.access
	}
	return cmd
}

func configFile(dir string) string { return filepath.Join(dir, "config.yml") }
func dataDir(dir string) string    { return filepath.Join(dir, "data") }

// open lays the way to the target, where it is a long one. Requests are counted there: it matters little what that costs.
func (t *target) open(w way, dir string) (err error) {
	if w.delay == 0 {
		return nil
	}
	for _, address := range []*string{&t.reached, &t.realm} {
		l, err := openLink(*address, w.delay)
		if err != nil {
			return err
		}
		t.links = append(t.links, l)
		*address = l.address()
	}
	t.access, err = os.Create(filepath.Join(dir, "access.log"))
	return err
}

// configure writes the registry's configuration. crane asks no server for tokens whose host is an address of this
// machine, but one with a name.
func (t *target) configure(dir, address string) error {
	realm := "http://" + strings.Replace(t.realm, "127.0.0.1", "localhost", 1) + "/token"
	text := fmt.Sprintf(targetConfig, t.access == nil, dataDir(dir), address, realm, tokenService, tokenIssuer, t.tokens.keys)
	return os.WriteFile(configFile(dir), []byte(text), 0o600)
}

// login stores the user's name as docker login does.
func (t *target) login() error {
	config, err := json.Marshal(map[string]any{"auths": map[string]any{t.reached: map[string]string{"auth": basicPair()}}})
	if err != nil {
		return err
	}
	return errors.Join(os.Mkdir(t.home, 0o700), os.WriteFile(t.loginFile(), config, 0o600))
}

func (t *target) loginFile() string { return filepath.Join(t.home, "config.json") }

func basicPair() string {
	return base64.StdEncoding.EncodeToString([]byte(tokenUser + ":" + tokenPassword))
}

// close ends the registry and all ways to it. Its files stay for as long as those of a fleet do, but with few bytes.
func (t *target) close() {
	if t.server != nil {
		t.kill()
		shed(t.dir)
	}
	for _, l := range t.links {
		l.close()
	}
	if t.access != nil {
		t.access.Close()
	}
}

// shed empties the large files of a directory.
func shed(dir string) {
	filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Size() >= ownLayerSize {
			os.Truncate(name, 0)
		}
		return nil
	})
}

// spent is what a target was asked for.
type spent struct{ bytes, conns, requests int64 }

// logged is how long the registry may take to write down what it has answered.
const logged = 50 * time.Millisecond

// spent is what went over the links until now.
func (t *target) spent() (s spent, err error) {
	if t.access == nil {
		return s, nil
	}
	for _, l := range t.links {
		s.bytes += l.up.Load()
		s.conns += l.conns.Load()
	}
	time.Sleep(logged)
	lines, err := os.ReadFile(t.access.Name())
	s.requests = int64(bytes.Count(lines, []byte("\n"))) + t.tokens.asked.Load()
	return s, err
}

// verify makes sure that every tag is there, and is the image that it should be: who did nothing was not fast.
func (t *target) verify(want *synced) error {
	token, err := t.tokens.token("repository:" + syncRepository + ":pull")
	if err != nil {
		return err
	}
	return t.alone(func(c *conn) error {
		c.auth = "Bearer " + token
		for _, tag := range want.tags {
			got, err := c.want(http.StatusOK, request{method: http.MethodGet, path: manifestPath(syncRepository, tag.tag), keep: true})
			if err != nil {
				return err
			}
			if !bytes.Equal(got.body, tag.manifest) {
				return fmt.Errorf("%s is %s, not what it should be", tag.tag, digest.FromBytes(got.body))
			}
		}
		return nil
	})
}
