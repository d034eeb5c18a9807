package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/berthoci/berth/plugin"
)

const (
	// startTimeout bounds the time from exec to handshake.
	startTimeout = 30 * time.Second
	// endTimeout is how long a plugin may take to flush and end before it is killed.
	endTimeout = 15 * time.Second
)

// Binary starts a berth binary: a path, or a name that is looked up on PATH.
func Binary(name string) Launcher {
	return binary{find: func() (string, error) { return findBinary(name) }}
}

// Self starts the running program's own binary once more. Its main function must begin by calling
// Main of package sdk/embedded, which notices and does not return. A program that forgets that gets an
// error, rather than children without end.
func Self() Launcher { return binary{find: ownBinary} }

func ownBinary() (string, error) {
	if plugin.Requested() {
		return "", errors.New("this process was started as a plugin, and went on as something else: its main must begin with embedded.Main()")
	}
	return os.Executable()
}

func findBinary(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("berth binary %q: %w; install it, or name its path", name, errors.Unwrap(err))
	}
	return path, nil
}

type binary struct{ find func() (string, error) }

func (b binary) Launch(ctx context.Context, cfg plugin.Config, log *slog.Logger) (Plugin, error) {
	path, err := b.find()
	if err != nil {
		return nil, err
	}
	p := &process{}
	if p.runner, err = newRunner(path); err != nil {
		return nil, err
	}
	if p.scratch, err = makeScratch(); err != nil {
		return nil, err
	}
	cfg.Scratch = p.scratch
	config, err := cfg.Environ()
	if err != nil {
		return nil, err
	}
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake(),
		VersionedPlugins: plugin.Plugins(),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           plugin.HostLogger(log),
		StartTimeout:     startTimeout,
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: p.scratch},
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, _ string) (runner.Runner, error) {
			p.runner.cmd.Env = append(environ(), append(spec.Env, config)...)
			return p.runner, nil
		},
	})
	if err := p.start(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// environ is what a plugin gets of the host's environment: what finds files, and nothing of what may
// be secret.
func environ() []string {
	var kept []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TMP", "TEMP", "LANG", "TZ", "SYSTEMROOT", "GOCOVERDIR", "GODEBUG", "GORACE"} {
		if value, ok := os.LookupEnv(name); ok {
			kept = append(kept, name+"="+value)
		}
	}
	return kept
}

// process is a plugin in a process of its own.
type process struct {
	plugin.Controller
	client  *goplugin.Client
	runner  *cmdRunner
	scratch string
}

// Hello also removes the scratch directory: a connection that stands does not need its socket's name.
func (p *process) Hello(ctx context.Context) (plugin.Info, error) {
	info, err := p.Controller.Hello(ctx)
	if err == nil {
		err = os.RemoveAll(p.scratch)
	}
	return info, err
}

// start runs the handshake. go-plugin's does not know contexts: one that ends kills the process.
func (p *process) start(ctx context.Context) error {
	result := make(chan error, 1)
	go func() {
		var err error
		p.Controller, err = plugin.Dispense(p.client)
		result <- err
	}()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		p.runner.Kill(context.Background())
		<-result
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	p.client.Kill()
	os.RemoveAll(p.scratch)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return p.runner.explain(err)
}

// Close waits for the plugin's end, which the end of the last lease has begun.
func (p *process) Close() error {
	p.runner.hangUp()
	select {
	case <-p.runner.ended:
	case <-time.After(endTimeout):
		// go-plugin would ask it to end, and wait for an answer first.
		p.runner.Kill(context.Background())
	}
	p.client.Kill()
	return errors.Join(p.runner.exitError(), os.RemoveAll(p.scratch))
}
