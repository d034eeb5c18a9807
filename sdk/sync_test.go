package sdk_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/remote/auth"
	"github.com/berthoci/berth/sdk/sync"
	"github.com/berthoci/berth/server"
)

// noLogin keeps what the user of this machine has stored out of a test.
func noLogin(t *testing.T) {
	t.Helper()
	for _, name := range []string{"DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"} {
		t.Setenv(name, t.TempDir())
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_AUTH_CONFIG", "")
}

// login stores credentials where docker login does.
func login(t *testing.T, host, user, password string) {
	t.Helper()
	noLogin(t)
	secret := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": secret}}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), config, 0o600))
}

func static(host, password string) auth.CredentialFunc {
	return auth.Static(host, auth.Credential{Username: remoteUser, Password: password})
}

func TestSyncBringsTagsToARegistryThatAsksForAPassword(t *testing.T) {
	host := serveRemote(t, withPassword(t))
	for what, c := range map[string]struct {
		prepare func(t *testing.T) auth.CredentialFunc
		err     error
	}{
		"by Options.Credentials": {func(t *testing.T) auth.CredentialFunc { noLogin(t); return static(host, remotePassword) }, nil},
		"by DOCKER_CONFIG":       {func(t *testing.T) auth.CredentialFunc { login(t, host, remoteUser, remotePassword); return nil }, nil},
		"by a wrong password":    {func(t *testing.T) auth.CredentialFunc { noLogin(t); return static(host, "canary.wrong") }, berth.ErrUnauthorized},
		"for another host": {func(t *testing.T) auth.CredentialFunc {
			login(t, "other.example.com", remoteUser, remotePassword)
			return nil
		}, berth.ErrUnauthorized},
		"by nothing": {func(t *testing.T) auth.CredentialFunc { noLogin(t); return nil }, berth.ErrUnauthorized},
	} {
		t.Run(what, func(t *testing.T) {
			registry := open(t, sdk.Options{Credentials: c.prepare(t)})
			want := push(t, registry, what, "app:v1")
			opts := &sdk.SyncOptions{To: host + "/" + strings.ReplaceAll(strings.ToLower(what), " ", "-"), Patterns: []string{"app:v1"}}
			_, planErr := registry.PlanSync(t.Context(), opts)
			report, err := registry.Sync(t.Context(), opts)
			wantErr(t, "PlanSync", planErr, c.err)
			wantErr(t, "Sync", err, c.err)
			if c.err != nil {
				if !strings.Contains(err.Error(), host) || strings.Contains(err.Error(), remotePassword) {
					t.Errorf("got %v", err)
				}
				return
			}
			got, err := registry.Resolve(t.Context(), host+"/"+report.Items[0].Target)
			if err != nil || got.Digest != want.Digest {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// denying lets nobody push.
type denying struct{}

func (denying) Authorize(*http.Request, server.Access) error {
	return fmt.Errorf("%w: the project is archived", berth.ErrDenied)
}

func (denying) Challenge(*http.Request, server.Access, error) string { return "" }

func TestPlanSyncTellsTheRegistrysOwnWords(t *testing.T) {
	host := serveRemote(t, &server.Options{Authorizer: denying{}})
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "app:v1")
	// A HEAD has no words; what it is about is told all the same.
	_, err := registry.PlanSync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app"}})
	wantErr(t, "PlanSync", err, berth.ErrDenied)
	if err == nil || !strings.Contains(err.Error(), host+"/app:v1") {
		t.Errorf("got %v", err)
	}
	_, err = registry.FetchReference(t.Context(), host+"/app:v1")
	if err == nil || !strings.Contains(err.Error(), "the project is archived") {
		t.Errorf("got %v", err)
	}
}

func TestSyncTwiceSendsNothingTheSecondTime(t *testing.T) {
	host, registry := serveRemote(t, nil), open(t, sdk.Options{})
	push(t, registry, "one", "app/one:v1,v2")
	push(t, registry, "two", "app/two:v1")
	opts := &sdk.SyncOptions{To: host + "/team", Patterns: []string{"app/**"}}
	plan, err := registry.PlanSync(t.Context(), opts)
	if err != nil || len(plan.Drift()) != 3 || plan.Items[0].Host != host {
		t.Fatalf("got %+v, %v", plan, err)
	}
	first, err := registry.Sync(t.Context(), opts)
	if err != nil || first.Total.Sent == 0 || first.Items[0].Target != "team/app/one:v1" {
		t.Errorf("got %+v, %v", first, err)
	}
	second, err := registry.Sync(t.Context(), opts)
	if err != nil || second.Total != (sync.Stats{}) || len(second.Items) != 3 {
		t.Errorf("got %+v, %v", second, err)
	}
	push(t, registry, "three", "app/two:v1")
	plan, err = registry.PlanSync(t.Context(), opts)
	if err != nil || len(plan.Drift()) != 1 || plan.Drift()[0].Was == "" {
		t.Errorf("after a push: %+v, %v", plan, err)
	}
}

func TestSyncTellsItsProgress(t *testing.T) {
	host, registry := serveRemote(t, nil), open(t, sdk.Options{})
	push(t, registry, "one", "app:v1")
	var mu gosync.Mutex
	sent := 0
	report, err := registry.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app"}, Progress: func(e sync.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Action == sync.Sent {
			sent++
		}
	}})
	if err != nil || sent != report.Total.Sent || sent != 3 {
		t.Errorf("%d were told: %+v, %v", sent, report, err)
	}
}

func TestSyncErrors(t *testing.T) {
	host, registry := serveRemote(t, nil), open(t, sdk.Options{})
	push(t, registry, "one", "app:v1")
	app := []string{"app"}
	for what, c := range map[string]struct {
		opts *sdk.SyncOptions
		err  error
		says string
	}{
		"nothing matches":         {&sdk.SyncOptions{To: host, Patterns: []string{"none"}}, sync.ErrNothing, `"none"`},
		"no pattern":              {&sdk.SyncOptions{To: host}, sync.ErrNothing, "no pattern"},
		"a bad pattern":           {&sdk.SyncOptions{To: host, Patterns: []string{"[", "app"}}, berth.ErrNameInvalid, `"["`},
		"no options":              {nil, berth.ErrNameInvalid, "HOST"},
		"no target":               {&sdk.SyncOptions{Patterns: app}, berth.ErrNameInvalid, "HOST"},
		"a target that is none":   {&sdk.SyncOptions{To: "a b", Patterns: app}, berth.ErrNameInvalid, "a b"},
		"a prefix that is none":   {&sdk.SyncOptions{To: host + "/Team", Patterns: app}, berth.ErrNameInvalid, "/Team"},
		"a prefix with a tag":     {&sdk.SyncOptions{To: host + "/team:v1", Patterns: app}, berth.ErrNameInvalid, "/team:v1"},
		"another scheme":          {&sdk.SyncOptions{To: "ftp://" + host, Patterns: app}, berth.ErrNameInvalid, "ftp://"},
		"plain http to somewhere": {&sdk.SyncOptions{To: "http://registry.example.com", Patterns: app}, berth.ErrUnsupported, "http://registry.example.com"},
	} {
		report, err := registry.Sync(t.Context(), c.opts)
		wantErr(t, what, err, c.err)
		if err == nil || !strings.Contains(err.Error(), c.says) || report != nil {
			t.Errorf("%s: got %+v, %v", what, report, err)
		}
	}
}

func TestSyncReportsWhatFailed(t *testing.T) {
	dir := t.TempDir()
	host, registry := serveRemote(t, nil), open(t, sdk.Options{Layout: dir})
	push(t, registry, "one", "app/good:v1")
	bad := build(t, "two")
	_, err := registry.Push(t.Context(), bad.source(), "app/bad:v1", nil)
	must(t, err)
	must(t, os.Remove(filepath.Join(dir, "blobs", "sha256", bad.layer.Digest.Encoded())))
	report, err := registry.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app/*"}})
	wantErr(t, "Sync", err, berth.ErrBlobUnknown)
	if report == nil || len(report.Items) != 2 || report.Items[0].Error == "" || report.Items[1].Error != "" {
		t.Errorf("got %+v", report)
	}
	wantEqual(t, "the good one", tags(t, registry, host+"/app/good"), []string{"v1"})
	wantEqual(t, "the bad one", tags(t, registry, host+"/app/bad"), nil)
}

// A host that is not on this machine is spoken to in plain http only where that was asked for, with
// or without its scheme.
func TestPlainHTTPIsForTheHostsThatAreListed(t *testing.T) {
	for _, c := range []struct {
		listed []string
		host   string
		ok     bool
	}{
		{nil, "registry.example.com", true},
		{nil, "http://registry.example.com", false},
		{[]string{"registry.example.com"}, "http://registry.example.com", true},
		{[]string{"registry.example.com"}, "https://registry.example.com", true},
		{[]string{"registry.example.com"}, "REGISTRY.example.com", true},
		{[]string{"registry.example.com"}, "http://registry.example.com:5000", false},
		{[]string{"registry.example.com:5000"}, "http://registry.example.com:5000", true},
		{[]string{"http://registry.example.com"}, "http://registry.example.com", true},
		{nil, "http://127.0.0.1:5000", true},
	} {
		_, err := sdk.NewRemotes(&sdk.Options{PlainHTTP: c.listed}).Registry(c.host)
		if (err == nil) != c.ok {
			t.Errorf("%q, with %q listed: got %v", c.host, c.listed, err)
		}
	}
}

func TestACredentialThatIsOutOfDateIsPassedOverWhereThatIsWanted(t *testing.T) {
	registry := hostile.NewRegistry(&hostile.Options{Tokens: hostile.NewTokenServer(&hostile.TokenOptions{Users: map[string]string{"ada": "canary.new"}})})
	want := registry.PutManifest("app", "v1", v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
	srv := httptest.NewServer(registry)
	defer srv.Close()
	ref := srv.Listener.Addr().String() + "/app:v1"
	opts := &sdk.Options{Credentials: func(context.Context, string) (auth.Credential, error) {
		return auth.Credential{Username: "ada", Password: "canary.old"}, nil
	}}
	_, err := sdk.NewImages(opts).Resolve(t.Context(), ref)
	wantErr(t, "with it", err, berth.ErrUnauthorized)
	opts.AnonymousRetry = true
	got, err := sdk.NewImages(opts).Resolve(t.Context(), ref)
	if err != nil || got.Digest != want {
		t.Errorf("without it: %s, %v", got.Digest, err)
	}
}

func TestRemotesAreKeptAndSayWhoAsks(t *testing.T) {
	var mu gosync.Mutex
	agents := map[string]bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		agents[r.UserAgent()] = true
		w.WriteHeader(http.StatusNotFound)
	}))
	defer srv.Close()
	remotes := sdk.NewRemotes(&sdk.Options{UserAgent: "tool/1.2"})
	first, err := remotes.Registry(srv.Listener.Addr().String())
	must(t, err)
	second, err := remotes.Registry(srv.Listener.Addr().String())
	if err != nil || first != second {
		t.Errorf("one host is two registries: %v", err)
	}
	if err := first.Ping(t.Context()); err == nil || !agents["tool/1.2"] || len(agents) != 1 {
		t.Errorf("asked as %v, %v", agents, err)
	}
	if _, err := remotes.Registry("no host"); !errors.Is(err, berth.ErrNameInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := sdk.NewRemotes(nil).Registry("registry.example.com"); err != nil {
		t.Error(err)
	}
}
