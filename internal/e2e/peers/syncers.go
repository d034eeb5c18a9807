//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"
)

// The clients that have no name yet, by those of their columns.
const (
	regsync = "regsync"
	skopeo  = "skopeo"
	script  = "script"
)

// syncWidth is how many images or requests clients do at once that can be told.
const syncWidth = 8

// syncer brings all tags of the layout to a target.
type syncer struct {
	name string
	// reads is set if it reads the layout from a registry, and again if it is worth to be run once more.
	reads, again bool
	run          func(b *bench, ctx context.Context, from string, t *target) error
}

var syncers = []syncer{
	{berth, false, true, (*bench).berthSync},
	{crane, true, true, (*bench).craneCopy},
	{regsync, true, true, (*bench).regsyncOnce},
	{skopeo, true, true, (*bench).skopeoSync},
	{script, false, false, (*bench).runScript},
}

// syncTimeout bounds one run of a client.
const syncTimeout = 10 * time.Minute

// program runs one of a client's programs, as somebody who has logged in at the target and has nothing else.
func (b *bench) program(ctx context.Context, t *target, name string, args ...string) error {
	ctx, stop := context.WithTimeout(ctx, syncTimeout)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.home, "DOCKER_CONFIG="+t.home, "REGISTRY_AUTH_FILE="+t.loginFile(),
		"BERTH_LAYOUT="+b.synced.layout, "BERTH_IDLE_TIMEOUT=0s")
	return runQuietly(cmd)
}

func (b *bench) built(name string) string { return filepath.Join(b.dir, "bin", name) }

func (b *bench) berthSync(ctx context.Context, _ string, t *target) error {
	return b.program(ctx, t, b.built("berth"), "sync", "--to", t.reached, syncRepository)
}

func (b *bench) craneCopy(ctx context.Context, from string, t *target) error {
	return b.program(ctx, t, b.built("crane"), "copy", "-a", "-j", fmt.Sprint(syncWidth),
		from+"/"+syncRepository, t.reached+"/"+syncRepository)
}

// regsyncConfig lets regsync have as many requests under way at each registry as images: it begins with fewer.
const regsyncConfig = `version: 1
creds:
- {registry: %[1]q, tls: disabled, reqConcurrent: %[3]d}
- {registry: %[2]q, tls: disabled, reqConcurrent: %[3]d}
defaults: {parallel: %[3]d}
sync:
- {source: %[4]q, target: %[5]q, type: repository}
`

func (b *bench) regsyncOnce(ctx context.Context, from string, t *target) error {
	config := filepath.Join(t.home, "regsync.yml")
	text := fmt.Sprintf(regsyncConfig, from, t.reached, syncWidth, from+"/"+syncRepository, t.reached+"/"+syncRepository)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	return b.program(ctx, t, b.built("regsync"), "once", "-c", config)
}

func (b *bench) skopeoSync(ctx context.Context, from string, t *target) error {
	return b.program(ctx, t, "skopeo", "sync", "--all", "--src", "docker", "--dest", "docker",
		"--src-tls-verify=false", "--dest-tls-verify=false", from+"/"+syncRepository, t.reached+"/"+filepath.Dir(syncRepository))
}

// scriptWorkers is how many connections the script has: with more it is no faster, on neither way.
const scriptWorkers = 32

// runScript is a client that knows all beforehand, and decides nothing: one token, each blob once, and then each tag. It
// ends early with the target, which ends with the context.
func (b *bench) runScript(_ context.Context, _ string, t *target) error {
	token, err := t.askToken()
	if err != nil {
		return err
	}
	conns, err := t.dialAll(scriptWorkers, "Bearer "+token)
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	if err != nil {
		return err
	}
	err = share(conns, b.synced.blobs, func(c *conn, one blob) error { return c.pushBlob(syncRepository, one) })
	if err != nil {
		return err
	}
	return share(conns, b.synced.tags, func(c *conn, one image) error { return c.pushTag(syncRepository, one.tag, one.manifest) })
}

// dialAll opens connections to the target, until one cannot be opened. The kernel shakes hands at once, be the way long or not.
func (t *target) dialAll(n int, auth string) (conns []*conn, err error) {
	for range n {
		c, err := dial(t.reached)
		if err != nil {
			return conns, err
		}
		c.auth = auth
		conns = append(conns, c)
	}
	return conns, nil
}

// share does something with each of all, each connection with the next one that nobody has begun with.
func share[T any](conns []*conn, all []T, do func(*conn, T) error) error {
	var next atomic.Int64
	return concurrently(len(conns), func(i int) error {
		for {
			at := int(next.Add(1)) - 1
			if at >= len(all) {
				return nil
			}
			if err := do(conns[i], all[at]); err != nil {
				return err
			}
		}
	})
}

// askToken asks for one as clients do.
func (t *target) askToken() (string, error) {
	c, err := dial(t.realm)
	if err != nil {
		return "", err
	}
	defer c.close()
	c.auth = "Basic " + basicPair()
	query := url.Values{"service": {tokenService}, "scope": {"repository:" + syncRepository + ":pull,push"}}
	answer, err := c.want(http.StatusOK, request{method: http.MethodGet, path: "/token?" + query.Encode(), keep: true})
	if err != nil {
		return "", err
	}
	var given struct{ Token string }
	err = json.Unmarshal(answer.body, &given)
	if err == nil && given.Token == "" {
		err = errors.New("no token is in it")
	}
	return given.Token, err
}
