package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

const (
	// maxFirstWords bounds what is kept of a plugin's standard error, in bytes.
	maxFirstWords = 2 << 10
	// lastWords is how long the end of a plugin that did not start may take, and its reason to come through.
	lastWords = time.Second
)

// cmdRunner runs a plugin for go-plugin: with an environment of its own and away from the host's terminal, so
// that Ctrl-C there is the host's to answer. A private plugin has a pipe as standard input, which ends when the
// host does; a shared one has none, and holds no directory but the layout.
type cmdRunner struct {
	cmd    *exec.Cmd
	stdout io.ReadCloser
	stderr io.ReadCloser
	stdin  io.Closer // nil: there is none
	serves plugin.Config
	ended  chan struct{}
	once   sync.Once

	spared chan struct{} // closed when it was to be killed, and has other hosts
	spare  func()        // closes it

	mu      sync.Mutex // guards the fields below, and cmd.Process
	started time.Time
	killed  bool
	spoke   bool   // on standard output
	words   []byte // on standard error
	err     error
}

func newRunner(path string, serves plugin.Config) (*cmdRunner, error) {
	r := &cmdRunner{cmd: exec.Command(path), serves: serves, ended: make(chan struct{}), spared: make(chan struct{})}
	r.spare = sync.OnceFunc(func() { close(r.spared) })
	var err error
	if r.isPrivate() {
		r.cmd.SysProcAttr = ownGroup()
		if r.stdin, err = r.cmd.StdinPipe(); err != nil {
			return nil, err
		}
	} else {
		r.cmd.SysProcAttr, r.cmd.Dir = detached()
	}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.stdout = &heard{stdout, r}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	r.stderr = &firstWords{ReadCloser: stderr, runner: r}
	return r, nil
}

func (r *cmdRunner) isPrivate() bool { return r.serves.Key != "" }

// firstWords keeps the beginning of what a plugin says on standard error, where its reasons are.
type firstWords struct {
	io.ReadCloser
	runner *cmdRunner
}

func (w *firstWords) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	r := w.runner
	r.mu.Lock()
	r.words = append(r.words, p[:min(n, maxFirstWords-len(r.words))]...)
	r.mu.Unlock()
	return n, err
}

// heard notes whether a plugin says anything on standard output.
type heard struct {
	io.ReadCloser
	runner *cmdRunner
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if n > 0 {
		h.runner.mu.Lock()
		h.runner.spoke = true
		h.runner.mu.Unlock()
	}
	return n, err
}

// explain says in one line why a binary did not become a plugin.
func (r *cmdRunner) explain(err error) error {
	if r.ID() == "" {
		return err
	}
	killed := r.endsKilled()
	r.mu.Lock()
	defer r.mu.Unlock()
	line, _, _ := strings.Cut(strings.TrimSpace(string(r.words)), "\n")
	for said := range strings.Lines(string(r.words)) { // it may have logged something before
		if reason := plugin.StartError(said); reason != nil {
			return reason
		}
	}
	// One that says nothing until its time is over, or something else, was killed by go-plugin.
	if !r.spoke && time.Since(r.started) < startTimeout && killed {
		return fmt.Errorf("%w: it was killed while it started (%s)", plugin.ErrGone, r.cmd.ProcessState)
	}
	if line == "" {
		return errNoPlugin
	}
	return fmt.Errorf("%w It said: %s", errNoPlugin, line)
}

// endsKilled waits for the process's end, with which all that it had to say is there, and reports whether somebody made
// it. One that was spared because it serves a layout may be gone all the same, or runs on.
func (r *cmdRunner) endsKilled() bool {
	select {
	case <-r.ended:
		return wasKilled(r.cmd.ProcessState)
	case <-time.After(lastWords):
		return false
	}
}

var errNoPlugin = errors.New("did not start as a plugin: is it a berth binary, or one whose main begins with embedded.Main()?")

// hangUp ends the plugin's standard input.
func (r *cmdRunner) hangUp() {
	if r.stdin != nil {
		r.stdin.Close()
	}
}

// exitError tells whether the plugin ended well. Before its end it is nil.
func (r *cmdRunner) exitError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var exit *exec.ExitError
	if errors.As(r.err, &exit) {
		return fmt.Errorf("%s ended badly: %s", r.cmd.Path, exit.ProcessState)
	}
	return nil
}

// Start starts the process, unless it was killed before.
func (r *cmdRunner) Start(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed {
		return os.ErrProcessDone
	}
	r.started = time.Now()
	return r.cmd.Start()
}

// Wait waits for its end.
func (r *cmdRunner) Wait(context.Context) error {
	r.once.Do(func() {
		err := r.cmd.Wait()
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
		close(r.ended)
	})
	<-r.ended
	return r.err
}

// Kill ends it by force, unless it takes calls of others already: if none comes, it ends by itself.
func (r *cmdRunner) Kill(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	if r.cmd.Process == nil {
		return nil
	}
	if !r.isPrivate() && control.Serves(r.serves.Layout, r.cmd.Process.Pid) {
		r.spare()
		return nil
	}
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Stdout is where the handshake is read.
func (r *cmdRunner) Stdout() io.ReadCloser { return r.stdout }

// Stderr is where the plugin logs.
func (r *cmdRunner) Stderr() io.ReadCloser { return r.stderr }

// Name is the binary's path.
func (r *cmdRunner) Name() string { return r.cmd.Path }

// ID is the process's number, or empty before it runs.
func (r *cmdRunner) ID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(r.cmd.Process.Pid)
}

// Diagnose has nothing to add to what the plugin said itself.
func (r *cmdRunner) Diagnose(context.Context) string { return "" }

// PluginToHost leaves addresses as they are: both are on one machine.
func (r *cmdRunner) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin leaves addresses as they are.
func (r *cmdRunner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}
