//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long anything may take that should happen at once.
	patience = 30 * time.Second
	// runTimeout is how long a program may take that does some work and ends.
	runTimeout = 2 * time.Minute
	// pollInterval is the rest between two looks at something that is to come about.
	pollInterval = 5 * time.Millisecond
)

// shell runs programs for one test, apart from what is configured on the machine.
type shell struct {
	*testing.T
	dir  string
	temp string // TMPDIR: apart from dir, because a socket's path must be short
	env  []string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	dir := t.TempDir()
	temp, err := os.MkdirTemp("", "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temp) })
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + temp, "LANG=C.UTF-8",
		"BERTH_IDLE_TIMEOUT=0", // no program of a test lasts longer than it
		"REGCTL_CONFIG=" + filepath.Join(dir, "regctl.json"), "OTEL_TRACES_EXPORTER=none"}
	return &shell{T: t, dir: dir, temp: temp, env: env}
}

// with is the same shell with more variables in its environment.
func (s *shell) with(variables ...string) *shell {
	return &shell{T: s.T, dir: s.dir, temp: s.temp, env: append(slices.Clone(s.env), variables...)}
}

// in is the same shell for a subtest.
func (s *shell) in(t *testing.T) *shell {
	return &shell{T: t, dir: s.dir, temp: s.temp, env: s.env}
}

// path is a path in the test's own directory.
func (s *shell) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

func (s *shell) write(path, content string) {
	s.Helper()
	s.check(os.MkdirAll(filepath.Dir(path), 0o755))
	s.check(os.WriteFile(path, []byte(content), 0o600))
}

func (s *shell) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *shell) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	s.Helper()
	cmd := exec.CommandContext(ctx, program(s.T, name), args...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = s.env, s.dir, 5*time.Second
	return cmd
}

// outcome is how a program ended.
type outcome struct {
	stdout, stderr string
	code           int
}

// run runs a program to its end, whatever that is.
func (s *shell) run(name string, args ...string) outcome {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), runTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := s.command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || (err != nil && !errors.As(err, &exit)) {
		s.Fatalf("%s %s: %v, %v\n%s%s", name, strings.Join(args, " "), err, ctx.Err(), &stdout, &stderr)
	}
	s.noSecretIn(name, stdout.String()+stderr.String())
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs a program that has to succeed, and returns its trimmed standard output.
func (s *shell) must(name string, args ...string) string {
	s.Helper()
	out := s.run(name, args...)
	if out.code != 0 {
		s.Fatalf("%s %s: exit code %d\n%s%s", name, strings.Join(args, " "), out.code, out.stdout, out.stderr)
	}
	return strings.TrimSpace(out.stdout)
}

// output gathers what a running program writes.
type output struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// process is a program that runs beside the test.
type process struct {
	*shell
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
}

// start starts a program, which ends with the test at the latest.
func (s *shell) start(name string, args ...string) *process {
	s.Helper()
	return s.launch(s.command(context.Background(), name, args...))
}

// launch starts a command as start does.
func (s *shell) launch(cmd *exec.Cmd) *process {
	s.Helper()
	p := &process{shell: s, cmd: cmd, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	s.check(p.cmd.Start())
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	s.Cleanup(func() {
		p.kill()
		s.noSecretIn(cmd.Path, p.stdout.String()+p.stderr.String())
	})
	return p
}

// await waits for a line in what the program writes, and returns the first group of the match.
func (p *process) await(out *output, line *regexp.Regexp) string {
	p.Helper()
	var match []string
	p.poll(line.String(), func() bool {
		match = line.FindStringSubmatch(out.String())
		return match != nil || p.hasEnded()
	})
	if match == nil {
		p.Fatalf("%s ended before it wrote %s:\n%s%s", p.cmd.Path, line, &p.stdout, &p.stderr)
	}
	return match[1]
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// kill is kill -9, and returns when the process is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// wait waits for a program that ends by itself.
func (p *process) wait(most time.Duration) outcome {
	p.Helper()
	if !within(most, p.hasEnded) {
		p.Fatalf("%s has not ended within %v:\n%s%s", p.cmd.Path, most, &p.stdout, &p.stderr)
	}
	return outcome{p.stdout.String(), p.stderr.String(), p.cmd.ProcessState.ExitCode()}
}

// stop asks the program to end, which has to go well.
func (p *process) stop() {
	p.Helper()
	p.check(p.cmd.Process.Signal(syscall.SIGTERM))
	p.poll("the end of "+p.cmd.Path, p.hasEnded)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.Errorf("%s ended with %d:\n%s", p.cmd.Path, code, &p.stderr)
	}
}

// end asks a daemon to end, whatever it says to that: what it has started and mounted goes only then.
func (p *process) end() {
	p.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if !within(patience, p.hasEnded) {
		p.Errorf("%s has not ended within %v:\n%s", p.cmd.Path, patience, &p.stderr)
	}
}

// poll waits until something has come about.
func (s *shell) poll(what string, done func() bool) {
	s.Helper()
	if !within(patience, done) {
		s.Fatalf("waited %v for %s", patience, what)
	}
}

func within(limit time.Duration, done func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(pollInterval) {
		if done() {
			return true
		}
	}
	return done()
}

var servingLine = regexp.MustCompile(`(?m)^serving .* at http://(\S+)$`)

// serve starts berth serve on a layout, and returns it with its address.
func (s *shell) serve(layout string, flags ...string) (*process, string) {
	s.Helper()
	p := s.start("berth", append([]string{"serve", "--layout", layout, "--addr", "127.0.0.1:0"}, flags...)...)
	return p, p.await(&p.stdout, servingLine)
}
