//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthoci/berth/internal/canary"
)

// noSecretIn makes sure that a program has not told what a test keeps secret.
func (s *shell) noSecretIn(name, told string) {
	s.Helper()
	if secret := canary.Find(told); secret != "" {
		s.Errorf("%s tells %s:\n%s", name, secret, told)
	}
}

// looker looks at the command lines of the processes of one test, which anybody on the machine may do.
type looker struct {
	*shell
	looked chan struct{} // somebody who takes two from it knows of a whole look in between

	seen    map[string]bool // command lines
	secrets []string
}

func (s *shell) looker() *looker {
	return &looker{shell: s, looked: make(chan struct{}), seen: map[string]bool{}}
}

// look looks once.
func (l *looker) look() {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		l.Error(err)
	}
	for _, dir := range dirs {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // a process may have ended
		if len(line) == 0 || !l.isOurs(dir, line) {
			continue
		}
		text := strings.ReplaceAll(strings.TrimSuffix(string(line), "\x00"), "\x00", " ")
		l.seen[text] = true
		if secret := canary.Find(text); secret != "" {
			l.secrets = append(l.secrets, text)
		}
	}
}

// isOurs tells the processes of this test from all others by the test's directory, which is named by them or by their environment.
func (l *looker) isOurs(dir string, line []byte) bool {
	environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
	return strings.Contains(string(line)+string(environ), l.dir)
}

// saw reports whether a command line with that text was seen.
func (l *looker) saw(text string) bool {
	for line := range l.seen {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// until looks until the context ends, and makes a file when it has seen a text.
func (l *looker) until(ctx context.Context, text, file string) {
	for ctx.Err() == nil {
		l.look()
		if l.saw(text) {
			l.write(file, "")
		}
		select {
		case l.looked <- struct{}{}:
		case <-time.After(pollInterval):
		}
	}
}

// before is a way to a registry on which nothing gets on that shows a password, before somebody has looked.
func (l *looker) before(registry string) (host string) {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 2 {
			if r.Header.Get("Authorization") == "" {
				break
			}
			select {
			case <-l.looked:
			case <-r.Context().Done():
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	l.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// helped is the shell of somebody whose password a helper of Docker keeps, which waits for a file.
func (s *shell) helped(file string) *shell {
	s.Helper()
	helper := s.path("bin", "docker-credential-e2e")
	s.write(helper, fmt.Sprintf("#!/bin/sh\nwhile [ ! -e %s ]; do sleep 0.01; done\n"+`echo '{"ServerURL":"","Username":%q,"Secret":%q}'`+"\n", file, user, password))
	s.check(os.Chmod(helper, 0o700))
	s.write(s.path("helped", "config.json"), `{"credsStore":"e2e"}`)
	return s.with("PATH="+s.path("bin")+":"+os.Getenv("PATH"), "DOCKER_CONFIG="+s.path("helped"))
}

// While an image goes to a registry that wants a password, no command line has it: not that of berth, nor of what berth starts.
func TestNoPasswordIsInTheProcessList(t *testing.T) {
	s := newShell(t)
	l := s.looker()
	cmd := exec.Command("sleep", "60")
	cmd.Args[0], cmd.Env = canary.Mark+"control", s.env
	control := s.launch(cmd)
	l.look()
	control.kill()
	if len(l.secrets) == 0 {
		t.Fatalf("a password in a command line is not seen among %q", slices.Collect(maps.Keys(l.seen)))
	}
	l.secrets, l.seen = nil, map[string]bool{} // which is told at the end

	y := s.syncing(l.before(s.htpasswdRegistry()))
	file := s.path("seen")
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	looking.Go(func() { l.until(ctx, "docker-credential-e2e", file) })
	out := y.sync(s.helped(file), "--verbose")
	cancel()
	looking.Wait()
	y.wantCode("sync", out, 0, "synced")
	if len(l.secrets) > 0 || !l.saw("docker-credential-e2e get") || !l.saw("sync --to "+y.host) {
		t.Errorf("secrets are in %q; all that was seen: %q", l.secrets, slices.Sorted(maps.Keys(l.seen)))
	}
	t.Logf("seen: %q", slices.Sorted(maps.Keys(l.seen)))
}
