package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"
)

const user = "quickstart"

// remoteRegistry stands in for a registry on the network: a second berth, which asks for a password.
type remoteRegistry struct {
	host, password string
	process        *exec.Cmd
}

// startRemote starts it, and stores the password where docker login would.
func startRemote(ctx context.Context, out string) (*remoteRegistry, error) {
	r := &remoteRegistry{password: rand.Text()}
	hash, err := bcrypt.GenerateFromPassword([]byte(r.password), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	users := filepath.Join(out, "users")
	if err := os.WriteFile(users, []byte(user+":"+string(hash)+"\n"), 0o600); err != nil {
		return nil, err
	}
	r.process = exec.CommandContext(ctx, "berth", "serve", "--json", "--addr", "127.0.0.1:0",
		"--layout", filepath.Join(out, "remote"), "--htpasswd", users)
	r.process.Stderr = os.Stderr
	stdout, err := r.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.process.Start(); err != nil {
		return nil, fmt.Errorf("%w; is bin/berth on PATH? make demo sees to it", err)
	}
	var ready struct{ Address string }
	if err := json.NewDecoder(bufio.NewReader(stdout)).Decode(&ready); err != nil {
		return nil, errors.Join(fmt.Errorf("the second berth did not start: %w", err), r.process.Wait())
	}
	r.host = ready.Address
	if err := r.login(out); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	return r, nil
}

func (r *remoteRegistry) login(out string) error {
	dir := filepath.Join(out, "docker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	secret := base64.StdEncoding.EncodeToString([]byte(user + ":" + r.password))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{r.host: map[string]string{"auth": secret}}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		return err
	}
	return os.Setenv("DOCKER_CONFIG", dir)
}

func (r *remoteRegistry) stop() error {
	if err := r.process.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return r.process.Wait()
}

// digest downloads the manifest with nothing but net/http, and hashes it.
func (r *remoteRegistry) digest(ctx context.Context) (digest.Digest, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.host+"/v2/demo/hello/manifests/v1", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", v1.MediaTypeImageManifest)
	req.SetBasicAuth(user, r.password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the remote answered %s", resp.Status)
	}
	return digest.FromReader(resp.Body)
}
