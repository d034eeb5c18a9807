//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// The servers, by the names of their columns.
const (
	crane        = "crane"
	distribution = "distribution"
	bare         = "bare handler"
	berth        = "berth"
	berthPower   = "berth, power"
)

// registries are those that do all that is measured.
var registries = []string{crane, distribution, berth}

// distributionConfig is that registry's configuration, with its defaults in all that costs time. Its access
// log is off, and so are its traces, which would go to a collector that is not there.
const distributionConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q, secret: peers}
`

// command is how a server is started on a directory at an address.
func (b *bench) command(name, dir, address string) (*exec.Cmd, error) {
	program := func(base string, args ...string) *exec.Cmd {
		return exec.Command(filepath.Join(b.dir, "bin", base), args...)
	}
	switch name {
	case crane:
		return program("crane", "registry", "serve", "--disk", dir, "--address", address), nil
	case distribution:
		config := filepath.Join(b.dir, "distribution.yml")
		text := fmt.Sprintf(distributionConfig, dir, address)
		return program("registry", "serve", config), os.WriteFile(config, []byte(text), 0o600)
	case berth:
		return program("berth", "serve", "--layout", dir, "--addr", address), nil
	case berthPower:
		return program("berth", "serve", "--layout", dir, "--addr", address, "--durability", "power"), nil
	}
	self, err := os.Executable()
	return exec.Command(self, bareCommand, address), err
}

// server is a running process.
type server struct {
	name    string
	dir     string
	address string
	took    time.Duration // from its start to the first answer
	cmd     *exec.Cmd
	ended   chan struct{}
	unwatch func()
}

// startTimeout is how long a server may take until it answers.
const startTimeout = 20 * time.Second

// start starts a server on a directory, and returns when it answers.
func (b *bench) start(ctx context.Context, name, dir string) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd, err := b.command(name, dir, address)
	if err != nil {
		return nil, err
	}
	return b.launch(ctx, &server{name: name, dir: dir, address: address, cmd: cmd})
}

func (b *bench) launch(ctx context.Context, s *server) (*server, error) {
	s.cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.ended = make(chan struct{})
	go func() {
		s.cmd.Wait()
		close(s.ended)
	}()
	for !answers(s.address) {
		if s.hasEnded() || ctx.Err() != nil || time.Since(begin) > startTimeout {
			s.kill()
			return nil, errors.Join(fmt.Errorf("%v does not answer", s.cmd.Args), ctx.Err())
		}
		time.Sleep(startPoll)
	}
	s.took = time.Since(begin)
	stop := context.AfterFunc(ctx, func() { s.cmd.Process.Kill() }) // whoever waits for it then hears of it
	unwatch := b.watching.watch(s.name, s.cmd.Process.Pid)
	s.unwatch = func() { stop(); unwatch() }
	return s, nil
}

// startPoll is the rest between two looks whether a server answers: much less than the fastest takes.
const startPoll = 200 * time.Microsecond

// answers reports whether a server does, if only by asking who that is.
func answers(address string) bool {
	c, err := dial(address)
	if err != nil {
		return false
	}
	defer c.close()
	r, err := c.do(request{method: http.MethodGet, path: "/v2/"})
	return err == nil && (r.status == http.StatusOK || r.status == http.StatusUnauthorized)
}

// freeAddress is one that nobody listens at.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (s *server) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// kill ends a server at once.
func (s *server) kill() {
	if s.unwatch != nil {
		s.unwatch()
	}
	s.cmd.Process.Kill()
	<-s.ended
}

// stop lets a server end as it wants to. One that does not is killed.
func (s *server) stop() {
	s.unwatch()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(startTimeout):
		s.kill()
	}
}

// fleet is the servers that take turns.
type fleet []*server

// launchAll starts servers on fresh directories.
func (b *bench) launchAll(ctx context.Context, names ...string) (all fleet, err error) {
	for _, name := range names {
		dir, err := os.MkdirTemp(b.dir, "data-")
		if err == nil {
			var s *server
			if s, err = b.start(ctx, name, dir); err == nil {
				all = append(all, s)
			}
		}
		if err != nil {
			all.end()
			return nil, err
		}
	}
	return all, nil
}

// end kills the servers. What they have stored stays until the end of the run: ext4 does not give an inode
// away that was freed within the last half minute, and who creates files where thousands were is slowed by
// looking for another.
func (f fleet) end() {
	for _, s := range f {
		s.kill()
	}
}

// clear ends the servers and removes what they have stored, which should be few files.
func (f fleet) clear() {
	f.end()
	for _, s := range f {
		os.RemoveAll(s.dir)
	}
}

// without is the fleet without a server.
func (f fleet) without(name string) fleet {
	return slices.DeleteFunc(slices.Clone(f), func(s *server) bool { return s.name == name })
}
