// Package berthtest is a registry for a Go test, in the manner of net/http/httptest.
//
//	func TestDeploy(t *testing.T) {
//		registry := berthtest.New(t)
//		image := registry.PushImage("team/app:v1", nil)
//		registry.Fail(berthtest.On("GET /v2/*/blobs/*"), 2, http.StatusServiceUnavailable)
//
//		if err := deploy(t.Context(), registry.Host()+"/team/app:v1"); err != nil { // what is tested
//			t.Fatal(err)
//		}
//		if n := registry.Count(berthtest.On("GET /v2/*/manifests/"+string(image.Digest))); n != 1 {
//			t.Errorf("the manifest was asked for %d times", n)
//		}
//	}
//
// Each registry has a layout of its own in a temporary directory, and runs within the test's process unless [Options]
// name another launcher. It ends with its test. Nothing that the machine has stored is used: no layout, no credentials.
// What it costs is mostly its files: where TMPDIR is on a file system in memory, many tests of this kind are quicker.
//
// # Two ways in
//
// What is tested goes to [Registry.Host], in plain http. What it does there is written down, and goes wrong or is slow as
// the test says. Nobody has to log in unless [Registry.RequireBasic] or [Registry.RequireToken] ask for it.
//
// The test itself uses the methods that a [Registry] has of [sdk.Registry], such as Push, Resolve and Tags. These go
// straight to the registry: they are never written down, never fail and are never slow, and need no password. Only a
// reference that begins with a host is one for that host, here too.
//
// # Two registries
//
// What goes from one registry to another is tested with two of them: the one's [sdk.Registry.Sync] goes to the other's
// Host, where it is written down, fails and has to log in like anybody.
//
// # Concurrency
//
// All methods of Registry may run at once, also while requests are under way. Those that fail the test, which are New,
// NewWith, PushImage, Fail, Cut, Limit and DockerConfig, belong into the goroutine that runs it, as t.Fatal does.
package berthtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// Options say what a registry is made of. Nil is the zero value.
type Options struct {
	// Layout is the directory that is served, and written to. It is left as it is at the end. Empty: a new one, which is
	// removed.
	Layout string
	// Launcher starts what serves it: host.Binary("berth") for the program that users have, or host.Self where the test
	// binary's TestMain begins with embedded.Main. Nil: this process.
	Launcher host.Launcher
	// AllowMissing takes images and indexes whose children are missing.
	AllowMissing bool
	// Credentials are those that the test itself uses with other registries, as in a sync to one of them. Nil: none.
	Credentials auth.CredentialFunc
}

// Registry is a registry that ends with its test. What it has of [sdk.Registry] is for the test itself.
type Registry struct {
	*sdk.Registry
	tb    testing.TB
	front *front

	closing sync.Once
	closed  error
}

// New starts a registry that holds nothing. It fails the test if it cannot.
func New(tb testing.TB) *Registry {
	tb.Helper()
	return NewWith(tb, nil)
}

// NewWith is New with options.
func NewWith(tb testing.TB, opts *Options) *Registry {
	tb.Helper()
	if opts == nil {
		opts = &Options{}
	}
	handle, err := sdk.Open(tb.Context(), opts.serving(tb))
	if err != nil {
		tb.Fatalf("berthtest: %v", err)
	}
	r := &Registry{Registry: handle, tb: tb}
	if r.front, err = newFront(handle.Endpoint); err != nil {
		tb.Fatalf("berthtest: %v", errors.Join(err, handle.Close()))
	}
	tb.Cleanup(r.cleanUp)
	return r
}

// serving are the options for the SDK. What serves the layout is private: it ends with the test's process even if that
// is killed. The idle timeout says nothing then, but keeps the environment's from being read.
func (o *Options) serving(tb testing.TB) *sdk.Options {
	opts := &sdk.Options{
		Layout: o.Layout, Launcher: o.Launcher, AllowMissing: o.AllowMissing,
		Private: true, IdleTimeout: -1, Credentials: o.Credentials,
	}
	if opts.Credentials == nil {
		opts.Credentials = none
	}
	if opts.Layout == "" {
		opts.Layout = filepath.Join(tb.TempDir(), "layout")
	}
	if opts.Launcher == nil {
		opts.Launcher = embedded.InProcess()
	}
	return opts
}

// none finds no credentials.
func none(context.Context, string) (auth.Credential, error) { return auth.Credential{}, nil }

// Host is 127.0.0.1:PORT, as references to images begin for what is tested.
func (r *Registry) Host() string { return r.front.host() }

// URL is where the distribution API is for what is tested, without its /v2/.
func (r *Registry) URL() string { return r.front.server.URL }

// Endpoint is the same for programs that are configured: see what [sdk.Endpoint] can write. It has the user and the
// password that are asked for now.
func (r *Registry) Endpoint() sdk.Endpoint {
	user, password := r.front.gate.credentials()
	return sdk.Endpoint{URL: r.URL(), Host: r.Host(), Username: user, Password: password, Layout: r.Registry.Endpoint().Layout}
}

// DockerConfig makes a directory for DOCKER_CONFIG, with a config.json that has the user and the password that are
// asked for now, and no others. It is removed with the test.
func (r *Registry) DockerConfig() (dir string) {
	r.tb.Helper()
	dir = r.tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), r.Endpoint().DockerConfig(), 0o600); err != nil {
		r.tb.Fatalf("berthtest: %v", err)
	}
	return dir
}

// Close ends the registry before its test does: requests that are under way are cut, and when it returns nothing of
// the registry runs any more. Its layout can be opened again.
func (r *Registry) Close() error {
	r.closing.Do(r.shutDown)
	return r.closed
}

func (r *Registry) shutDown() {
	r.front.close()
	r.closed = r.Registry.Close()
}

// cleanUp closes what the test has not closed: who does that itself hears what goes wrong.
func (r *Registry) cleanUp() {
	r.closing.Do(func() {
		if r.shutDown(); r.closed != nil {
			r.tb.Errorf("berthtest: %v", r.closed)
		}
	})
}
