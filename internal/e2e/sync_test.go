//go:build linux

package e2e

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// syncing is a layout with one image, app/big:v1, that is to go to another registry.
type syncing struct {
	*shell
	layout, host string
	root         digest.Digest
}

func (s *shell) syncing(host string) *syncing {
	s.Helper()
	made := s.path("made")
	y := &syncing{shell: s, layout: s.path("layout"), host: host, root: s.umociImage(made, "v1", 20<<10, 12<<20)}
	s.must("berth", "--layout", y.layout, "push", "oci:"+made+":v1", "app/big:v1")
	return y
}

// sync runs berth sync as somebody.
func (y *syncing) sync(as *shell, flags ...string) outcome {
	y.Helper()
	return as.run("berth", append([]string{"--layout", y.layout, "sync", "--to", y.host, "app/big:v1"}, flags...)...)
}

// arrived makes sure that an independent client finds the image at the host.
func (y *syncing) arrived(as *shell) {
	y.Helper()
	if got := as.must("crane", "digest", y.host+"/app/big:v1"); got != string(y.root) {
		y.Errorf("crane finds %s at %s, want %s", got, y.host, y.root)
	}
}

// refused makes sure that a program failed with one line, which names the host.
func (y *syncing) refused(out outcome) string {
	y.Helper()
	lines := errorLines(out.stderr)
	if out.code != 1 || len(lines) != 1 || !strings.Contains(lines[0], y.host) {
		y.Errorf("exit code %d, want 1 and one line that names %s; standard error:\n%s", out.code, y.host, out.stderr)
	}
	y.Logf("%s", out.stderr)
	return strings.Join(lines, "\n")
}

// wantCode compares an exit code, and looks for a text in what was printed.
func (y *syncing) wantCode(what string, out outcome, code int, text string) {
	y.Helper()
	if out.code != code || !strings.Contains(out.stdout, text) {
		y.Errorf("%s: exit code %d, want %d and %q in\n%s%s", what, out.code, code, text, out.stdout, out.stderr)
	}
}

func TestSyncToARegistryWithPasswords(t *testing.T) {
	s := newShell(t)
	y := s.syncing(s.htpasswdRegistry())
	right, stranger := s.loggedIn(y.host, password), s.loggedIn(y.host, wrong)

	y.refused(y.sync(s))
	y.noSecret(y.sync(stranger))
	y.noSecret(y.sync(stranger, "--dry-run"))
	y.noSecret(y.sync(stranger, "--verbose"))

	y.wantCode("dry run before", y.sync(right, "--dry-run"), 3, "new")
	y.wantCode("first sync", y.sync(right), 0, "synced")
	y.arrived(right)
	y.wantCode("second sync", y.sync(right), 0, "unchanged")
	y.wantCode("dry run after", y.sync(right, "--dry-run"), 0, "unchanged")
	y.arrived(right)
}

// noSecret makes sure that a wrong password is refused and not told to anybody.
func (y *syncing) noSecret(out outcome) {
	y.Helper()
	y.refused(out)
	pair := base64.StdEncoding.EncodeToString([]byte(user + ":" + wrong))
	for _, secret := range []string{wrong, pair} {
		if strings.Contains(out.stdout+out.stderr, secret) {
			y.Errorf("the output tells the password:\n%s%s", out.stdout, out.stderr)
		}
	}
}

func TestSyncToARegistryWithTokens(t *testing.T) {
	s := newShell(t)
	tokens := s.tokenServer()
	y := s.syncing(s.registry(tokens.config()))
	right := s.loggedIn(y.host, password)

	y.refused(y.sync(s))
	tokens.grant("pull")
	if line := y.refused(y.sync(right)); !strings.Contains(line, "authentication required") {
		t.Errorf("the registry's own words are not told: %s", line)
	}
	tokens.grant("pull", "push")
	tokens.forget()
	y.wantCode("dry run before", y.sync(right, "--dry-run"), 3, "new")
	y.wantCode("first sync", y.sync(right), 0, "synced")
	if !tokens.gave("repository:app/big:pull,push") {
		t.Errorf("no token was asked for to pull and push; asked were %q", tokens.requests())
	}
	y.arrived(right)
	y.wantCode("second sync", y.sync(right), 0, "unchanged")
	t.Logf("scopes asked for: %q", tokens.requests())
}

// A CA is believed for the host whose directory has it, and for no other.
func TestSyncToARegistryOfAPrivateCA(t *testing.T) {
	s := newShell(t)
	a := s.authority()
	registry := s.tlsRegistry(a)
	known, unknown := s.breakable(registry, 0), s.breakable(registry, 0)
	known.believe(a)
	y := s.syncing(known.host())
	sync := []string{"--layout", y.layout, "sync", "app/big:v1", "--to"}
	s.refused("certificate", "berth", append(sync, "https://"+unknown.host())...)
	s.must("berth", append(sync, "https://"+known.host())...)
	y.arrived(s.with("SSL_CERT_FILE=" + a.caFile))
}

// A refusal leaves the registry as it was.
func TestWhatWasRefusedIsNotThere(t *testing.T) {
	s := newShell(t)
	tokens := s.tokenServer()
	y := s.syncing(s.registry(tokens.config()))
	right := s.loggedIn(y.host, password)
	tokens.grant("pull")
	y.refused(y.sync(right))
	if out := right.run("crane", "digest", y.host+"/app/big:v1"); out.code == 0 {
		t.Errorf("crane finds %s", out.stdout)
	}
}
