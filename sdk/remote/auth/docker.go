package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// keepFor is how long what was looked up is used: long enough that a helper does not run for each
	// token, short enough that one whose credentials live for five minutes is asked in time.
	keepFor = 4*time.Minute + 50*time.Second
	// helperLimit is how long a credential helper may take.
	helperLimit = 10 * time.Second
)

// Docker looks credentials up where docker and podman keep them. The first of these that has one for
// the host is taken:
//
//  1. the environment variable DOCKER_AUTH_CONFIG, whose value is what config.json has in it
//  2. config.json in the directory DOCKER_CONFIG, or in ~/.docker
//  3. the file REGISTRY_AUTH_FILE
//  4. podman's containers/auth.json in XDG_RUNTIME_DIR (or /run/containers/UID/auth.json), then in
//     XDG_CONFIG_HOME or ~/.config
//
// Within each, an entry for the repository or a path above it ("harbor.example/team") comes before
// those for the host, and of these credHelpers, credsStore and auths are asked in this order. The
// repository is the first that the context's scopes name. Docker Hub's three names are one host.
//
// Nothing is read before the first lookup, and what was read is used for 4 minutes and 50 seconds. A
// file that does not exist is empty; one of more than 16 MiB is an error. A helper runs once at a time for
// a host, for 10 seconds at most.
//
// Errors name the file, or the helper, with what that wrote to its standard output and standard error, and
// never what a credential is.
func Docker() CredentialFunc {
	return (&dockerStore{now: time.Now, limit: helperLimit}).lookup
}

// dockerStore is the state behind Docker.
type dockerStore struct {
	now   func() time.Time
	limit time.Duration // for a helper

	asking flights[Credential]

	mu      sync.Mutex // mu guards the fields below
	configs []*dockerConfig
	read    time.Time
	answers map[string]helperAnswer // by helper and server
}

type helperAnswer struct {
	cred    Credential
	expires time.Time
}

func (s *dockerStore) lookup(ctx context.Context, host string) (Credential, error) {
	keys := entryKeys(plainHost(host), scopesOf(ctx))
	for _, config := range s.sources() {
		c, err := s.from(ctx, config, keys)
		if err != nil || c != (Credential{}) {
			return c, err
		}
	}
	return Credential{}, nil
}

// from looks keys up in one config; the last of them is the host.
func (s *dockerStore) from(ctx context.Context, config *dockerConfig, keys []string) (Credential, error) {
	if config.err != nil {
		return Credential{}, config.err
	}
	last := len(keys) - 1
	for _, key := range keys[:last] {
		if c, err := config.entry(key); err != nil || c != (Credential{}) {
			return c, err
		}
	}
	if helper := config.helper(keys[last]); helper != "" {
		if c, err := s.ask(ctx, helper, serverAddress(keys[last])); err != nil || c != (Credential{}) {
			return c, err
		}
	}
	return config.entry(keys[last])
}

// entryKeys returns the keys under which a credential may be stored, the most specific first:
// "host/team/app", "host/team", "host" (containers-auth.json(5)).
func entryKeys(host string, scopes []Scope) []string {
	var keys []string
	for path := firstRepository(scopes); path != ""; path = path[:max(0, strings.LastIndexByte(path, '/'))] {
		keys = append(keys, host+"/"+path)
	}
	return append(keys, host)
}

func firstRepository(scopes []Scope) string {
	for _, s := range scopes {
		if s.Type == "repository" {
			return s.Name
		}
	}
	return ""
}

// serverAddress is what a helper knows a host by.
func serverAddress(host string) string {
	if host == hubHost {
		return hubKey
	}
	return host
}

// ask runs a credential helper, or returns what it said a short while ago.
func (s *dockerStore) ask(ctx context.Context, helper, server string) (Credential, error) {
	limited, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	c, err := s.asking.do(limited, helper+"\n"+server, func(ctx context.Context) (Credential, error) {
		return s.run(ctx, helper, server)
	})
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return Credential{}, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer within %v", s.limit)
	}
	return Credential{}, fmt.Errorf("docker-credential-%s, asked for %s: %w", helper, server, err)
}

func (s *dockerStore) run(ctx context.Context, helper, server string) (Credential, error) {
	key := helper + "\n" + server
	if c, ok := s.recall(key); ok {
		return c, nil
	}
	c, err := getCredential(ctx, helper, server)
	if err != nil {
		return Credential{}, err
	}
	s.remember(key, c)
	return c, nil
}

func (s *dockerStore) recall(key string) (Credential, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer, ok := s.answers[key]
	return answer.cred, ok && s.now().Before(answer.expires)
}

func (s *dockerStore) remember(key string, c Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers == nil {
		s.answers = make(map[string]helperAnswer)
	}
	now := s.now()
	maps.DeleteFunc(s.answers, func(_ string, old helperAnswer) bool { return !now.Before(old.expires) })
	s.answers[key] = helperAnswer{cred: c, expires: now.Add(keepFor)}
}

// sources returns the configs in the order of their precedence.
func (s *dockerStore) sources() []*dockerConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.configs != nil && s.now().Before(s.read.Add(keepFor)) {
		return s.configs
	}
	s.read = s.now()
	s.configs = []*dockerConfig{parseDockerConfig("DOCKER_AUTH_CONFIG", []byte(os.Getenv("DOCKER_AUTH_CONFIG")))}
	for _, path := range dockerConfigPaths() {
		s.configs = append(s.configs, readDockerConfig(path))
	}
	return s.configs
}

// dockerConfigPaths returns the files that may hold credentials, in the order of their precedence.
func dockerConfigPaths() []string {
	var paths []string
	add := func(dir string, below ...string) {
		// A directory that is not known must not become one below the working directory.
		if dir != "" {
			paths = append(paths, filepath.Join(append([]string{dir}, below...)...))
		}
	}
	add(envOrHome("DOCKER_CONFIG", ".docker"), "config.json")
	add(os.Getenv("REGISTRY_AUTH_FILE"))
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		add(dir, "containers", "auth.json")
	} else {
		add(fmt.Sprintf("/run/containers/%d", os.Getuid()), "auth.json")
	}
	add(envOrHome("XDG_CONFIG_HOME", ".config"), "containers", "auth.json")
	return paths
}

// envOrHome returns the directory that a variable names, or one in the user's home; "" if there is
// neither.
func envOrHome(variable, name string) string {
	if dir := os.Getenv(variable); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, name)
}
