//go:build linux

package e2e

import (
	"crypto/rand"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// attackScript is what a page tries. It is a function.
//
//go:embed testdata/attack.js
var attackScript string

// otherHost is a name on the internet whose owner makes it lead to this machine.
const otherHost = "evil.test"

// blobArgument is a blob, as the script wants it.
type blobArgument struct {
	Digest  digest.Digest `json:"digest"`
	Content string        `json:"content"`
}

func newBlobArgument(content string) blobArgument {
	return blobArgument{Digest: digest.FromString(content), Content: content}
}

// attack is what the script is told.
type attack struct {
	Registry   string            `json:"registry"`
	Repository string            `json:"repository"`
	Blob       digest.Digest     `json:"blob"`
	Pushed     blobArgument      `json:"pushed"`
	Formed     blobArgument      `json:"formed"`
	Field      map[string]string `json:"field"`
	Manifest   string            `json:"manifest"`
}

// sight is what a page gets to see of an attempt.
type sight struct {
	Status int
	Text   string
}

// attacked is a registry with something to hide.
type attacked struct {
	*clients
	log     string // of who has asked for what
	attack  attack
	secrets []string
	traces  []string // of those who put something into it, before anybody else tried
}

func newAttacked(t *testing.T) *attacked {
	t.Helper()
	log := filepath.Join(t.TempDir(), "access.log")
	a := &attacked{clients: newClients(t, "--access-log", log), log: log}
	secret := rand.Text()
	kept := a.upload(a.url(baseRepository), v1.MediaTypeImageLayer, []byte(secret))
	a.secrets = []string{secret, baseRepository, a.base.root.Encoded()}
	a.attack = attack{
		Repository: baseRepository,
		Blob:       kept.Digest,
		Manifest: string(a.encode(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: kept, Layers: []v1.Descriptor{kept}})),
	}
	a.traces = a.stored()
	return a
}

// stored are the blobs of the layout, and the requests that have put something into it or have begun to.
func (a *attacked) stored() []string {
	a.Helper()
	all, err := filepath.Glob(filepath.Join(a.layout, "blobs/*/*"))
	a.check(err)
	return append(all, a.answered(http.StatusCreated, http.StatusAccepted)...)
}

// answered are the lines of the access log with these statuses.
func (a *attacked) answered(statuses ...int) (lines []string) {
	a.Helper()
	log, err := os.ReadFile(a.log)
	a.check(err)
	for line := range strings.Lines(string(log)) {
		for _, status := range statuses {
			if strings.Contains(line, fmt.Sprintf(" status=%d ", status)) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// A page that somebody looks at on the machine where a registry runs reads nothing from it and pushes
// nothing to it: not from another port or name of the machine, not from a frame without an origin, and not
// when the page's own host name has come to lead to the registry. What the script tries does work for a
// page of the registry itself, if it had one.
func TestNoWebPageReachesTheRegistry(t *testing.T) {
	a := newAttacked(t)
	b := a.browser(otherHost)
	site := a.website()
	_, port, _ := strings.Cut(a.address, ":")
	own, localhost := "http://"+a.address, "http://localhost:"+port
	trials := []struct{ name, page, registry string }{
		{"another port", site + "/", own},
		{"a name of the machine", renamed(site, "localhost") + "/", own},
		{"an address of the machine", site + "/", localhost},
		{"no origin", site + "/sandboxed", own},
		{"another host", renamed(site, otherHost) + "/", own},
		{"another host that leads to the registry", "http://" + otherHost + ":" + port + "/v2/", ""},
	}
	for _, trial := range trials {
		t.Run(trial.name, func(t *testing.T) {
			a.clients, b.shell = a.in(t), a.shell.in(t)
			a.attack.Registry = trial.registry
			a.withstands(b.open(trial.page))
		})
	}
	a.clients, b.shell = a.in(t), a.shell.in(t)
	a.attack.Registry = ""
	a.letsIn(b.open(own + "/v2/"))
}

// renamed is the address of a server of this machine under another name of its host.
func renamed(address, host string) string { return strings.Replace(address, "127.0.0.1", host, 1) }

// website serves empty pages.
func (s *shell) website() string {
	s.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.URL.Path == "/sandboxed" {
			w.Header().Set("Content-Security-Policy", "sandbox allow-scripts allow-forms")
		}
		io.WriteString(w, "<!DOCTYPE html><title>page</title>")
	}))
	s.Cleanup(server.Close)
	return server.URL
}

// withstands makes sure that nothing comes of what a page tries.
func (a *attacked) withstands(p *page) {
	a.Helper()
	for name, got := range a.run(p) {
		if got.Status != 0 && got.Status != http.StatusForbidden {
			a.Errorf("%s: the page sees status %d", name, got.Status)
		}
		for _, secret := range a.secrets {
			if strings.Contains(got.Text, secret) {
				a.Errorf("%s: the page reads %s", name, got.Text)
			}
		}
	}
	if now := a.stored(); !slices.Equal(now, a.traces) {
		a.Errorf("the page has put something into the layout: there was %v and is\n%v", a.traces, now)
		a.traces = now
	}
	if tags := a.must("crane", "ls", a.address+"/"+baseRepository); tags != "v1" {
		a.Errorf("the page has set a tag: there are %q", tags)
	}
}

// run lets a page try everything, with blobs that nobody has pushed before.
func (a *attacked) run(p *page) map[string]sight {
	a.Helper()
	field := rand.Text()
	a.attack.Field = map[string]string{"name": "field", "value": field}
	a.attack.Formed = newBlobArgument("field=" + field + "\r\n")
	a.attack.Pushed = newBlobArgument(rand.Text())
	var seen map[string]sight
	p.call(attackScript, a.attack, &seen)
	if len(seen) < 20 {
		a.Fatalf("the page has tried only %v", seen)
	}
	return seen
}

// letsIn makes sure that all of it can be done from a page whose origin is the registry's: else a page that
// does not get it done shows nothing.
func (a *attacked) letsIn(p *page) {
	a.Helper()
	begun := len(a.answered(http.StatusAccepted))
	seen := a.run(p)
	if !strings.Contains(seen["cors GET blob"].Text, a.secrets[0]) || !strings.Contains(seen["frame"].Text, baseRepository) {
		a.Errorf("the registry's own page reads %v", seen)
	}
	for name, got := range seen {
		if strings.HasPrefix(name, "cors") && got.Status/100 != 2 {
			a.Errorf("%s: the registry's own page sees status %d and %s", name, got.Status, got.Text)
		}
	}
	if tags := strings.Fields(a.must("crane", "ls", a.address+"/"+baseRepository)); !slices.Contains(tags, "evil") {
		a.Errorf("the registry's own page has set no tag: there are %q", tags)
	}
	for _, blob := range []blobArgument{a.attack.Pushed, a.attack.Formed} {
		a.fetchWhole(a.url(baseRepository)+"/blobs/"+string(blob.Digest), string(blob.Digest))
	}
	if len(a.answered(http.StatusAccepted)) <= begun {
		a.Error("the registry's own page has begun no upload")
	}
}
