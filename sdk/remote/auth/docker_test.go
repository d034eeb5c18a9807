package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// home gives the test a home, a config and a runtime directory of its own, with nothing in them.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, value := range map[string]string{
		"HOME": dir, "USERPROFILE": dir, "XDG_RUNTIME_DIR": filepath.Join(dir, "run"),
		"XDG_CONFIG_HOME": "", "DOCKER_CONFIG": "", "DOCKER_AUTH_CONFIG": "", "REGISTRY_AUTH_FILE": "",
	} {
		t.Setenv(name, value)
	}
	return dir
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func auths(kv ...string) string {
	var entries []string
	for i := 0; i < len(kv); i += 2 {
		entries = append(entries, fmt.Sprintf(`%q:{"auth":%q}`, kv[i], base64.StdEncoding.EncodeToString([]byte(kv[i+1]))))
	}
	return `{"auths":{` + strings.Join(entries, ",") + `}}`
}

func lookup(t *testing.T, f CredentialFunc, host string, scopes ...Scope) Credential {
	t.Helper()
	c, err := f(WithScopes(t.Context(), scopes...), host)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSourcesAreAskedInTheirOrder(t *testing.T) {
	dir := home(t)
	entry := func(user string) string { return auths("h", user+":canary.pw") }
	sources := []struct {
		user string
		add  func()
	}{ // the last first, so that each wins over those before it
		{"podman-config", func() { write(t, filepath.Join(dir, ".config/containers/auth.json"), entry("podman-config")) }},
		{"podman-xdg", func() {
			t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "xdg"))
			write(t, filepath.Join(dir, "xdg/containers/auth.json"), entry("podman-xdg"))
		}},
		{"podman-runtime", func() { write(t, filepath.Join(dir, "run/containers/auth.json"), entry("podman-runtime")) }},
		{"authfile", func() {
			t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "authfile"))
			write(t, filepath.Join(dir, "authfile"), entry("authfile"))
		}},
		{"docker-home", func() { write(t, filepath.Join(dir, ".docker/config.json"), entry("docker-home")) }},
		{"docker-config", func() {
			t.Setenv("DOCKER_CONFIG", filepath.Join(dir, "docker"))
			write(t, filepath.Join(dir, "docker/config.json"), entry("docker-config"))
		}},
		{"env", func() { t.Setenv("DOCKER_AUTH_CONFIG", entry("env")) }},
	}
	if c := lookup(t, Docker(), "h"); c != (Credential{}) {
		t.Errorf("an empty home has %v", c)
	}
	for _, s := range sources {
		s.add()
		if c := lookup(t, Docker(), "h"); c.Username != s.user || c.Password != "canary.pw" {
			t.Errorf("found %v, want %s", c, s.user)
		}
	}
}

func TestASourceWithoutTheHostPassesToTheNext(t *testing.T) {
	dir := home(t)
	t.Setenv("DOCKER_AUTH_CONFIG", auths("other", "bob:canary.pw"))
	write(t, filepath.Join(dir, ".docker/config.json"), `{"auths":{"h":{}}}`)
	write(t, filepath.Join(dir, "run/containers/auth.json"), auths("h", "alice:canary.pw"))
	if c := lookup(t, Docker(), "h"); c.Username != "alice" {
		t.Errorf("found %v", c)
	}
}

func TestNothingIsReadBeforeTheFirstLookup(t *testing.T) {
	home(t)
	f := Docker()
	t.Setenv("DOCKER_AUTH_CONFIG", auths("h", "alice:canary.pw"))
	if c := lookup(t, f, "h"); c.Username != "alice" {
		t.Errorf("found %v", c)
	}
}

func TestCase19EntriesAreFoundUnderTheKeysThatClientsWrite(t *testing.T) {
	web := Repository("team/web", "pull")
	tests := []struct {
		name, config, host string
		scopes             []Scope
		want               string
	}{
		{"host and port", auths("h:5000", "a:x"), "h:5000", nil, "a"},
		{"another port", auths("h:5000", "a:x"), "h", nil, ""},
		{"host in another case", auths("H.example", "a:x"), "h.Example", nil, "a"},
		{"an address", auths("https://h", "a:x"), "h", nil, "a"},
		{"the address of an API", auths("https://h/v2/", "a:x"), "h", nil, "a"},
		{"plain before an address", auths("http://z", "b:x", "z", "a:x", "https://z/v1/", "c:x"), "z", nil, "a"},
		{"Docker Hub", auths(hubKey, "a:x"), "registry-1.docker.io", nil, "a"},
		{"Docker Hub by podman", auths("docker.io", "a:x"), "registry-1.docker.io", nil, "a"},
		{"Docker Hub by its own name", auths(hubKey, "a:x"), "docker.io", nil, "a"},
		{"Docker Hub twice", auths("docker.io", "b:x", hubKey, "a:x", "index.docker.io", "c:x"), "index.docker.io", nil, "a"},
		{"the repository", auths("h", "c:x", "h/team", "b:x", "h/team/web", "a:x"), "h", []Scope{web}, "a"},
		{"a path above it", auths("h", "c:x", "h/team", "a:x", "h/tea", "b:x"), "h", []Scope{web}, "a"},
		{"the host after paths", auths("h", "a:x", "h/other", "b:x"), "h", []Scope{web}, "a"},
		{"a path is not the host", auths("h/team", "a:x"), "h", nil, ""},
		{"a path of Docker Hub", auths("docker.io/team", "a:x", hubKey, "b:x"), "registry-1.docker.io", []Scope{web}, "a"},
		{"scopes of no repository", auths("h", "a:x"), "h", []Scope{Catalog()}, "a"},
		{"padded with zeros", auths("h", "a:x\x00\x00"), "h", nil, "a"},
		{"legacy fields", `{"auths":{"h":{"username":"a","password":"x"}}}`, "h", nil, "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			home(t)
			t.Setenv("DOCKER_AUTH_CONFIG", tt.config)
			c := lookup(t, Docker(), tt.host, tt.scopes...)
			if c.Username != tt.want || tt.want != "" && c.Password != "x" {
				t.Errorf("found %q %q, want %q", c.Username, c.Password, tt.want)
			}
		})
	}
}

func TestTokensOfAConfigAreTakenAlong(t *testing.T) {
	home(t)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths":{"h":{"auth":"YTo=","identitytoken":"canary.i","registrytoken":"canary.r"}}}`)
	if c, want := lookup(t, Docker(), "h"), (Credential{Username: "a", IdentityToken: "canary.i", AccessToken: "canary.r"}); c != want {
		t.Errorf("found %v", c)
	}
}

func TestBrokenSourcesAreNamedAndShowNoSecret(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString([]byte("canary.SECRET")) // no colon in it
	tests := []struct{ name, config, want string }{
		{"not JSON", `{"auths": canary.SECRET`, "config.json"},
		{"another shape", `{"auths": {"h": "canary.SECRET"}}`, "config.json"},
		{"a number", `{"auths": {"h": {"password": 12345678}}}`, "config.json"},
		{"no pair", fmt.Sprintf(`{"auths":{"h":{"auth":%q}}}`, secret), "auth of h"},
		{"no base64", `{"auths":{"h":{"auth":"canary.SECRET!"}}}`, "auth of h"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := home(t)
			path := filepath.Join(dir, ".docker", "config.json")
			write(t, path, tt.config)
			_, err := Docker()(t.Context(), "h")
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error is %v", err)
			}
			for _, s := range []string{"canary.SECRET", secret, "12345678"} {
				if strings.Contains(err.Error(), s) {
					t.Errorf("error shows a secret: %v", err)
				}
			}
		})
	}
}

func TestASourceThatCannotBeReadIsNamed(t *testing.T) {
	dir := home(t)
	path := filepath.Join(dir, ".docker", "config.json")
	write(t, filepath.Join(path, "file"), "") // the path is a directory
	if _, err := Docker()(t.Context(), "h"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error is %v", err)
	}
}

func TestABrokenSourceIsNoMatterToAnEarlierOne(t *testing.T) {
	dir := home(t)
	t.Setenv("DOCKER_AUTH_CONFIG", auths("h", "alice:canary.pw"))
	write(t, filepath.Join(dir, ".docker", "config.json"), `{`)
	if c := lookup(t, Docker(), "h"); c.Username != "alice" {
		t.Errorf("found %v", c)
	}
}

func TestAHomeThatIsNoDirectoryIsEmpty(t *testing.T) {
	home(t)
	t.Setenv("HOME", os.DevNull)
	t.Setenv("USERPROFILE", os.DevNull)
	if c := lookup(t, Docker(), "h"); c != (Credential{}) {
		t.Errorf("found %v", c)
	}
}

func TestWithoutAHomeNothingIsReadFromTheWorkingDirectory(t *testing.T) {
	dir := home(t)
	for _, file := range []string{"config.json", ".docker/config.json", "containers/auth.json", ".config/containers/auth.json"} {
		write(t, filepath.Join(dir, file), auths("h", "mallory:canary.pw"))
	}
	t.Chdir(dir)
	t.Setenv("HOME", "")
	t.Setenv("USERPROFILE", "")
	if c := lookup(t, Docker(), "h"); c != (Credential{}) {
		t.Errorf("found %v", c)
	}
}

// helper puts a credential helper onto the PATH: a script that counts its runs in a file.
func helper(t *testing.T, dir, name, script string) (runs func() int) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the helper of this test is a shell script")
	}
	count := filepath.Join(dir, name+".runs")
	path := filepath.Join(dir, "bin", "docker-credential-"+name)
	write(t, path, "#!/bin/sh\nread server\necho \"$1 $server\" >> '"+count+"'\n"+script+"\n")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(path)+string(os.PathListSeparator)+os.Getenv("PATH"))
	return func() int {
		raw, _ := os.ReadFile(count)
		return strings.Count(string(raw), "\n")
	}
}

func TestHelpersAreAskedByTheNameOfTheServer(t *testing.T) {
	tests := []struct {
		name, config, host string
		want               Credential
	}{
		{"credsStore", `{"credsStore":"echo"}`, "h:5000", Credential{Username: "h:5000", Password: "canary.pw"}},
		{"credHelpers", `{"credHelpers":{"h":"echo"}}`, "h", Credential{Username: "h", Password: "canary.pw"}},
		{"credHelpers before credsStore", `{"credHelpers":{"h":"echo"},"credsStore":"missing"}`, "h", Credential{Username: "h", Password: "canary.pw"}},
		{"a helper before auths", `{"credsStore":"echo","auths":{"h":{"auth":"YTp4"}}}`, "h", Credential{Username: "h", Password: "canary.pw"}},
		{"a path in auths before a helper", `{"credsStore":"missing","auths":{"h/team":{"auth":"YTp4"}}}`, "h", Credential{Username: "a", Password: "x"}},
		{"auths after a helper that has none", `{"credsStore":"none","auths":{"h":{"auth":"YTp4"}}}`, "h", Credential{Username: "a", Password: "x"}},
		{"no helper for this host", `{"credHelpers":{"other":"missing"}}`, "h", Credential{}},
		{"an empty name is none", `{"credHelpers":{"h":""},"credsStore":"missing"}`, "h", Credential{}},
		{"Docker Hub", `{"credsStore":"echo"}`, "registry-1.docker.io", Credential{Username: hubKey, Password: "canary.pw"}},
		{"Docker Hub by another name", `{"credHelpers":{"index.docker.io":"echo"}}`, "docker.io", Credential{Username: hubKey, Password: "canary.pw"}},
		{"an identity token", `{"credsStore":"token"}`, "h", Credential{IdentityToken: canaryIdentity}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := home(t)
			helper(t, dir, "echo", `printf '{"ServerURL":"x","Username":"%s","Secret":"canary.pw"}' "$server"`)
			helper(t, dir, "token", `echo '{"ServerURL":"x","Username":"<token>","Secret":"canary.identity"}'`)
			helper(t, dir, "none", `echo "credentials not found in native keychain"; exit 1`)
			t.Setenv("DOCKER_AUTH_CONFIG", tt.config)
			if c := lookup(t, Docker(), tt.host, Repository("team/web", "pull")); c != tt.want {
				t.Errorf("found %q %q %q", c.Username, c.Password, c.IdentityToken)
			}
		})
	}
}

func TestAHelperThatFailsNamesItself(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"with a message", `echo "the keychain is locked"; exit 1`, "the keychain is locked"},
		{"without a message", `exit 3`, "exit status 3"},
		{"with a message on standard error", `echo "no D-Bus
here" >&2; exit 3`, "exit status 3 (standard error: no D-Bus here)"},
		{"with one on each", `echo "no session" >&2; echo locked; exit 1`, "locked (standard error: no session)"},
		{"with a message without end", `head -c 100000 /dev/zero | tr '\0' x; exit 1`, "xxx…"},
		{"with one without end on standard error", `head -c 100000 /dev/zero | tr '\0' x >&2; exit 1`, "xxx…"},
		{"with an answer without end", `head -c 2000000 /dev/zero | tr '\0' ' '`, "larger than 1048576 bytes"},
		{"with a credential", `echo '{"Username":"a","Secret":"canary.SECRET"}'; exit 1`, "looks like a credential"},
		{"with a credential on standard error", `echo 'debug: {"Username":"a","Secret":"canary.SECRET' >&2; exit 1`, "looks like a credential"},
		{"with a secret in its murmur", `echo '{"Username":"a","Secret":"canary.SECRET"}'; echo "stored canary.SECRET" >&2; exit 1`, "stored [redacted]"},
		{"with what is no JSON", `echo canary.SECRET`, "not the JSON of a credential"},
		{"with a number for a secret", `echo '{"Username":"a","Secret":12345678}'`, "not the JSON of a credential"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := home(t)
			helper(t, dir, "bad", tt.script)
			t.Setenv("DOCKER_AUTH_CONFIG", `{"credsStore":"bad"}`)
			_, err := Docker()(t.Context(), "h")
			if err == nil || !strings.Contains(err.Error(), "docker-credential-bad, asked for h: ") || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error is %v", err)
			}
			if len(err.Error()) > 3*maxMessage || strings.Contains(err.Error(), "canary.SECRET") || strings.Contains(err.Error(), "12345678") {
				t.Errorf("error shows too much: %v", err)
			}
		})
	}
}

// What a helper says while it succeeds is nobody's business, and what it leaves running holds nobody up.
func TestAHelperThatMurmursAndLeavesADaemon(t *testing.T) {
	dir := home(t)
	helper(t, dir, "chatty", `sleep 5 & echo "warning: canary.SECRET" >&2; echo '{"Username":"a","Secret":"x"}'`)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"credsStore":"chatty"}`)
	out, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	stderr := os.Stderr
	os.Stderr = out
	defer func() { os.Stderr = stderr }()
	if c := lookup(t, Docker(), "h"); c.Username != "a" {
		t.Errorf("found %v", c)
	}
	if said, err := os.ReadFile(out.Name()); err != nil || len(said) > 0 {
		t.Errorf("printed %q, %v", said, err)
	}
}

func TestAHelperIsNoPath(t *testing.T) {
	dir := home(t)
	t.Chdir(dir)
	helper(t, dir, "x", `echo '{"Username":"mallory","Secret":"x"}'`)
	write(t, filepath.Join(dir, "docker-credential-", "file"), "")
	t.Setenv("DOCKER_AUTH_CONFIG", `{"credsStore":"/../bin/docker-credential-x"}`)
	if c, err := Docker()(t.Context(), "h"); err == nil || !strings.Contains(err.Error(), "without a path") {
		t.Errorf("found %v, %v", c, err)
	}
}

func TestAConfigWithoutEndIsNotRead(t *testing.T) {
	dir := home(t)
	path := filepath.Join(dir, ".docker", "config.json")
	write(t, path, "")
	if err := os.Truncate(path, maxDockerConfig+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Docker()(t.Context(), "h"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error is %v", err)
	}
}

func TestAHelperThatIsNotInstalledIsNamed(t *testing.T) {
	home(t)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"credsStore":"nowhere"}`)
	if _, err := Docker()(t.Context(), "h"); err == nil || !strings.Contains(err.Error(), "docker-credential-nowhere") {
		t.Errorf("error is %v", err)
	}
}

func TestASilentHelperIsGivenUp(t *testing.T) {
	dir := home(t)
	// The child that keeps the pipe open outlives the script when that is killed.
	helper(t, dir, "silent", `sleep 5 2>/dev/null`)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"credsStore":"silent"}`)
	s := &dockerStore{now: time.Now, limit: 50 * time.Millisecond}
	began := time.Now()
	_, err := s.lookup(t.Context(), "h")
	if err == nil || !strings.Contains(err.Error(), "docker-credential-silent, asked for h: no answer within 50ms") {
		t.Errorf("error is %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("gave up after %v", took)
	}
}

func TestACancelledLookupIsTheContextsError(t *testing.T) {
	dir := home(t)
	helper(t, dir, "silent", `exec sleep 5`)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"credsStore":"silent"}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Docker()(ctx, "h"); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestLookupsOfAHostAtOnceRunItsHelperOnce(t *testing.T) {
	dir := home(t)
	runs := helper(t, dir, "echo", `printf '{"Username":"%s","Secret":"canary.pw"}' "$server"`)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"credsStore":"echo"}`)
	f := Docker()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ctx := WithScopes(t.Context(), Repository(fmt.Sprint("r", i), "pull"))
			if c, err := f(ctx, "h"); err != nil || c.Username != "h" {
				t.Errorf("found %v, %v", c, err)
			}
		})
	}
	wg.Wait()
	if n := runs(); n != 1 {
		t.Errorf("the helper ran %d times", n)
	}
}

func TestWhatWasLookedUpIsUsedForUnderFiveMinutes(t *testing.T) {
	dir := home(t)
	runs := helper(t, dir, "echo", `printf '{"Username":"%s","Secret":"canary.pw"}' "$server"`)
	path := filepath.Join(dir, ".docker", "config.json")
	write(t, path, `{"credHelpers":{"h":"echo"},"auths":{"g":{"auth":"YTp4"}}}`)
	now := newClock()
	s := &dockerStore{now: now.Now, limit: helperLimit}
	ask := func() (user string) {
		lookup(t, s.lookup, "h")
		return lookup(t, s.lookup, "g").Username
	}
	wantEqual(t, "user", ask(), "a")
	write(t, path, `{"credHelpers":{"h":"echo"},"auths":{"g":{"auth":"Yjp4"}}}`)
	now.advance(4*time.Minute + 50*time.Second - 1)
	if user := ask(); user != "a" || runs() != 1 {
		t.Errorf("a moment before: user %q, %d runs", user, runs())
	}
	now.advance(1)
	if user := ask(); user != "b" || runs() != 2 {
		t.Errorf("at the end: user %q, %d runs", user, runs())
	}
	if len(s.answers) != 1 {
		t.Errorf("%d answers are kept", len(s.answers))
	}
}

func TestAFailureOfAHelperIsNotKept(t *testing.T) {
	dir := home(t)
	runs := helper(t, dir, "flaky", `[ -e "$0.ok" ] || { : > "$0.ok"; echo locked; exit 1; }; echo '{"Username":"a","Secret":"x"}'`)
	t.Setenv("DOCKER_AUTH_CONFIG", `{"credsStore":"flaky"}`)
	f := Docker()
	if _, err := f(t.Context(), "h"); err == nil {
		t.Error("no error")
	}
	if c := lookup(t, f, "h"); c.Username != "a" || runs() != 2 {
		t.Errorf("found %v after %d runs", c, runs())
	}
}
