package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin"
)

const (
	// startTimeout bounds the time from exec to handshake.
	startTimeout = 30 * time.Second
	// endTimeout is how long a private plugin may take to flush and end before it is killed.
	endTimeout = 15 * time.Second
)

// Binary starts a berth binary: a path, or a name that is looked up on PATH.
func Binary(name string) Launcher {
	return binary{find: func() (string, error) { return findBinary(name) }}
}

// VerifiedBinary is Binary for a file that has a digest, and no other: it is read whole before each start. Who can
// replace the file between that and the start is not kept from it. Launch fails with berth.ErrDigestInvalid for other
// content.
func VerifiedBinary(name string, content digest.Digest) Launcher {
	return binary{find: func() (string, error) {
		path, err := findBinary(name)
		if err == nil {
			err = verify(path, content)
		}
		return path, err
	}}
}

// Self starts the running program's own binary once more. Its main function must begin by calling
// Main of package sdk/embedded, which notices and does not return. A program that forgets that gets an
// error, rather than children without end.
func Self() Launcher { return binary{find: ownBinary} }

func verify(path string, want digest.Digest) error {
	if err := want.Validate(); err != nil {
		return fmt.Errorf("berth binary %s: digest %q to compare with: %w: want one like sha256: and 64 hexadecimal digits", path, want, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := want.Algorithm().FromReader(f)
	if err != nil {
		return fmt.Errorf("berth binary %s: %w", path, err)
	}
	if got != want {
		return fmt.Errorf("berth binary %s: %w: its content is %s, and should be %s; install the one that is meant, or correct the digest", path, berth.ErrDigestInvalid, got, want)
	}
	return nil
}

func ownBinary() (string, error) {
	if plugin.Requested() {
		return "", errStrayPlugin
	}
	return os.Executable()
}

var errStrayPlugin = errors.New("this process was started as a plugin, and went on as something else: its main must begin with embedded.Main()")

func findBinary(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("berth binary %q: %w; install it, or name its path", name, errors.Unwrap(err))
	}
	return filepath.Abs(path) // it is started from another directory
}

type binary struct{ find func() (string, error) }

func (b binary) Launch(ctx context.Context, start Start) (_ Plugin, err error) {
	if start.Lock != nil {
		defer start.Lock.Close() // the plugin has it too, or is gone
	}
	path, err := b.find()
	if err != nil {
		return nil, err
	}
	p := &process{}
	if p.runner, err = newRunner(path, start.Config); err != nil {
		return nil, err
	}
	if start.Lock != nil {
		start.StartLock = bequeath(p.runner.cmd, start.Lock)
	}
	if err := p.start(ctx, start); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p.Connection, err = dial(ctx, start.Layout); err != nil {
		p.abandon()
		return nil, err
	}
	return p, nil
}

// environ is what a plugin gets of the host's environment: what finds files, and nothing of what may
// be secret.
func environ() []string {
	var kept []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TMP", "TEMP", "LANG", "TZ", "SYSTEMROOT", "GOCOVERDIR", "GODEBUG", "GOMEMLIMIT", "GORACE"} {
		if value, ok := os.LookupEnv(name); ok {
			kept = append(kept, name+"="+value)
		}
	}
	return kept
}

// process is a plugin in a process of its own. One goroutine waits for that process as long as it runs: who
// started it has to, also if others use it still.
type process struct {
	*plugin.Connection
	client *goplugin.Client
	runner *cmdRunner
}

// start starts the process and waits until it takes calls. go-plugin's handshake does not know contexts: one that
// ends kills the process.
func (p *process) start(ctx context.Context, start Start) error {
	scratch, err := makeScratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch) // nobody needs the name of go-plugin's socket after the handshake
	start.Scratch = scratch
	if err := p.prepare(start); err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		_, err := p.client.Start()
		result <- err
	}()
	select {
	case err = <-result:
	case <-ctx.Done():
		p.abandon()
		return ctx.Err() // go-plugin's handshake ends with the process, or with the plugin's word
	}
	if err == nil {
		return nil
	}
	p.abandon()
	return p.runner.explain(err)
}

// prepare sets up go-plugin for the launch and the handshake.
func (p *process) prepare(start Start) error {
	config, err := start.Environ()
	if err != nil {
		return err
	}
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake(),
		VersionedPlugins: plugin.Plugins(),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           plugin.HostLogger(start.Logger),
		StartTimeout:     startTimeout,
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: start.Scratch},
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, _ string) (runner.Runner, error) {
			p.runner.cmd.Env = append(environ(), append(spec.Env, config)...)
			return p.runner, nil
		},
	})
	return nil
}

// abandon ends a process by force that is nobody else's, and waits for its end.
func (p *process) abandon() {
	p.runner.hangUp()
	p.runner.Kill(context.Background())
	if p.runner.ID() == "" {
		return
	}
	select {
	case <-p.runner.ended:
	case <-p.runner.spared:
	}
}

// Close leaves a shared plugin to its other hosts, and to itself. It waits for the end of a private one, which
// the end of its lease has begun. go-plugin's own Kill would ask at a socket that is gone.
func (p *process) Close() error {
	err := p.Connection.Close()
	if !p.runner.isPrivate() {
		return err
	}
	p.runner.hangUp()
	select {
	case <-p.runner.ended:
	case <-time.After(endTimeout):
		p.abandon()
	}
	return errors.Join(err, p.runner.exitError())
}
