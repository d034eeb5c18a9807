package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// maxFirstWords bounds what is kept of a plugin's standard error.
const maxFirstWords = 2 << 10

// cmdRunner runs a plugin for go-plugin: with an environment of its own, in a process group of its
// own, so that Ctrl-C in the terminal is the host's to answer, and with a pipe as standard input
// that ends when the host does.
type cmdRunner struct {
	cmd    *exec.Cmd
	stdout io.ReadCloser
	stderr io.ReadCloser
	stdin  io.Closer
	ended  chan struct{}
	once   sync.Once

	mu     sync.Mutex // guards the fields below, and cmd.Process
	killed bool
	words  []byte
	err    error
}

func newRunner(path string) (*cmdRunner, error) {
	r := &cmdRunner{cmd: exec.Command(path), ended: make(chan struct{})}
	r.cmd.SysProcAttr = ownGroup()
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if r.stdout, err = r.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	r.stderr = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(stderr, (*firstWords)(r)), stderr}
	return r, nil
}

// firstWords keeps the beginning of what a plugin says on standard error, where its reasons are.
type firstWords cmdRunner

func (l *firstWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.words = append(l.words, p[:min(len(p), maxFirstWords-len(l.words))]...)
	return len(p), nil
}

// explain says in one line why a binary did not become a plugin.
func (r *cmdRunner) explain(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cmd.Process == nil {
		return err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(r.words)), "\n")
	if line == "" {
		return errors.New("did not start as a plugin: is it a berth binary, or one whose main calls embedded.Main?")
	}
	return fmt.Errorf("did not start as a plugin: %s", sentence(line))
}

// sentence makes a line that a plugin logged one for people; another program's line is one already.
func sentence(line string) string {
	var entry struct {
		Message string `json:"@message"`
		Error   string `json:"error"`
	}
	if json.Unmarshal([]byte(line), &entry) != nil || entry.Message == "" {
		return line
	}
	return entry.Message + ": " + entry.Error
}

// hangUp ends the plugin's standard input.
func (r *cmdRunner) hangUp() { r.stdin.Close() }

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

// Kill ends it by force.
func (r *cmdRunner) Kill(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	if r.cmd.Process == nil {
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
