package sdk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

func TestOpenMakesALayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "layout")
	registry, err := sdk.Open(t.Context(), &sdk.Options{Layout: dir, Launcher: embedded.InProcess()})
	must(t, err)
	must(t, registry.Close())
	if content, err := os.ReadFile(filepath.Join(dir, "oci-layout")); err != nil || !strings.Contains(string(content), "1.0.0") {
		t.Errorf("got %q, %v", content, err)
	}
	if len(listed(t, dir)) != 0 {
		t.Errorf("it lists %v", listed(t, dir))
	}
}

func TestOpenErrors(t *testing.T) {
	held, other, newer := t.TempDir(), t.TempDir(), t.TempDir()
	layout, err := ocilayout.Open(t.Context(), held, nil)
	must(t, err)
	defer layout.Close()
	must(t, os.WriteFile(filepath.Join(other, "readme"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(newer, "oci-layout"), []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o644))
	for _, c := range []struct {
		what, layout string
		err          error
		says         string
	}{
		{"a layout that somebody has", held, berth.ErrLayoutInUse, fmt.Sprint("process ", os.Getpid())},
		{"a directory of something else", other, berth.ErrLayoutInvalid, "other files"},
		{"a layout of another version", newer, berth.ErrLayoutInvalid, "1.0.0"},
	} {
		_, err := sdk.Open(t.Context(), &sdk.Options{Layout: c.layout, Launcher: embedded.InProcess()})
		wantErr(t, c.what, err, c.err)
		if err == nil || !strings.Contains(err.Error(), c.layout) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v does not name %s and %q", c.what, err, c.layout, c.says)
		}
	}
}

// All who open a layout share one registry, unless one of them wants it for itself.
func TestALayoutIsShared(t *testing.T) {
	dir := t.TempDir()
	first := open(t, sdk.Options{Layout: dir})
	second := open(t, sdk.Options{Layout: dir})
	want := push(t, first, "one", "app:v1")
	if got, err := second.Resolve(t.Context(), "app:v1"); err != nil || got.Digest != want.Digest {
		t.Errorf("got %v, %v", got, err)
	}
	if first.Endpoint().Host == second.Endpoint().Host || first.Endpoint().Password == second.Endpoint().Password {
		t.Error("they have one address, or one password")
	}
	status, err := second.Status(t.Context())
	if err != nil || len(status.Leases) != 2 || status.Tags != 1 {
		t.Errorf("got %+v, %v", status, err)
	}
}

func TestAPrivateLayoutIsOpenOnceAtATime(t *testing.T) {
	dir := t.TempDir()
	private := sdk.Options{Layout: dir, Launcher: embedded.InProcess(), Private: true}
	first, err := sdk.Open(t.Context(), &private)
	must(t, err)
	for _, second := range []sdk.Options{private, {Layout: dir, Launcher: embedded.InProcess()}} {
		_, err = sdk.Open(t.Context(), &second)
		wantErr(t, "a second Open", err, berth.ErrLayoutInUse)
	}
	must(t, first.Close())
	second, err := sdk.Open(t.Context(), &private)
	must(t, err)
	must(t, second.Close())
}

func TestOpenWithoutALauncherWantsBerthOnPATH(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	_, err := sdk.Open(t.Context(), &sdk.Options{Layout: dir})
	if err == nil || !strings.Contains(err.Error(), `berth binary "berth"`) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

func TestOpenWithoutALayoutTakesTheDefault(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "default")
	t.Setenv(sdk.LayoutVariable, dir)
	registry, err := sdk.Open(t.Context(), &sdk.Options{Launcher: embedded.InProcess()})
	must(t, err)
	push(t, registry, "one", "app:v1")
	must(t, registry.Close())
	if len(listed(t, dir)) != 1 {
		t.Errorf("it lists %v", listed(t, dir))
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := sdk.Open(t.Context(), nil); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("without options: %v", err)
	}
}

func TestDefaultLayout(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the data directory is elsewhere")
	}
	for _, c := range []struct{ what, layout, data, home, want string }{
		{"the variable comes first", "/l", "/data", "/home/ada", "/l"},
		{"it may be relative", "l", "/data", "/home/ada", "l"},
		{"the data directory", "", "/data", "/home/ada", "/data/berth/layout"},
		{"a relative data directory does not count", "", "data", "/home/ada", "/home/ada/.local/share/berth/layout"},
		{"the home directory", "", "", "/home/ada", "/home/ada/.local/share/berth/layout"},
		{"nothing", "", "", "", ""},
	} {
		t.Setenv(sdk.LayoutVariable, c.layout)
		t.Setenv("XDG_DATA_HOME", c.data)
		t.Setenv("HOME", c.home)
		got, err := sdk.DefaultLayout()
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: got %q, %v; want %q", c.what, got, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), sdk.LayoutVariable) {
			t.Errorf("%s: %v does not say what to do", c.what, err)
		}
	}
}

// get asks an endpoint as a program would that knows nothing of berth.
func get(t *testing.T, url string, auth func(*http.Request)) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	if auth != nil {
		auth(req)
	}
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(content)
}

func TestEndpointIsForAnyHTTPClientThatHasTheToken(t *testing.T) {
	registry := open(t, sdk.Options{})
	want := push(t, registry, "one", "app/hello:v1")
	e := registry.Endpoint()
	if e.Username == "" || e.Password == "" {
		t.Fatalf("got %+v", e)
	}
	url := "http://" + e.Host + "/v2/app/hello/manifests/v1"
	for what, c := range map[string]struct {
		auth   func(*http.Request)
		status int
	}{
		"nothing":         {nil, http.StatusUnauthorized},
		"user, password":  {func(r *http.Request) { r.SetBasicAuth(e.Username, e.Password) }, http.StatusOK},
		"any user":        {func(r *http.Request) { r.SetBasicAuth("x", e.Password) }, http.StatusOK},
		"bearer":          {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+e.Password) }, http.StatusOK},
		"a wrong one":     {func(r *http.Request) { r.SetBasicAuth(e.Username, e.Password+"x") }, http.StatusUnauthorized},
		"another session": {func(r *http.Request) { r.SetBasicAuth(e.Username, open(t, sdk.Options{}).Endpoint().Password) }, http.StatusUnauthorized},
	} {
		status, body := get(t, url, c.auth)
		if status != c.status || (status == http.StatusOK && int64(len(body)) != want.Size) {
			t.Errorf("%s: got status %d and %q", what, status, body)
		}
	}
	data, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(data), `"host":"127.0.0.1:`) {
		t.Errorf("got %s, %v", data, err)
	}
}

func TestAnonymousEndpointAsksForNothing(t *testing.T) {
	registry := open(t, sdk.Options{Anonymous: true})
	push(t, registry, "one", "app/hello:v1")
	e := registry.Endpoint()
	if e.Username != "" || e.Password != "" {
		t.Errorf("got %+v", e)
	}
	if status, body := get(t, "http://"+e.Host+"/v2/app/hello/tags/list", nil); status != http.StatusOK || !strings.Contains(body, `"v1"`) {
		t.Errorf("got %d, %s", status, body)
	}
}

func TestAllowMissingTakesSparseImages(t *testing.T) {
	image := build(t, "one")
	raw, err := os.ReadFile(image.file(image.root))
	must(t, err)
	for allowed, want := range map[bool]error{true: nil, false: berth.ErrManifestBlobUnknown} {
		registry := open(t, sdk.Options{AllowMissing: allowed})
		repo, err := registry.Repository("app")
		must(t, err)
		_, err = repo.PushManifest(t.Context(), raw, &berth.PushOptions{Tags: []string{"v1"}})
		wantErr(t, fmt.Sprint("allowed: ", allowed), err, want)
	}
}

func TestFlushShowsThePushInTheDirectory(t *testing.T) {
	dir := t.TempDir()
	registry := open(t, sdk.Options{Layout: dir})
	one := push(t, registry, "one", "app:v1,v2")
	must(t, registry.Flush(t.Context()))
	if got := listed(t, dir); len(got) != 2 || got["app:v1"] != one.Digest || got["app:v2"] != one.Digest {
		t.Errorf("it lists %v", got)
	}
}

func TestCloseLeavesEverythingInTheLayout(t *testing.T) {
	dir := t.TempDir()
	registry, err := sdk.Open(t.Context(), &sdk.Options{Layout: dir, Launcher: embedded.InProcess()})
	must(t, err)
	one := push(t, registry, "one", "app:v1")
	must(t, registry.Close())
	if got := listed(t, dir); len(got) != 1 || got["app:v1"] != one.Digest {
		t.Errorf("it lists %v", got)
	}
	again := open(t, sdk.Options{Layout: dir})
	if got, err := again.Resolve(t.Context(), "app:v1"); err != nil || got.Digest != one.Digest {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAfterCloseEverythingFails(t *testing.T) {
	registry, err := sdk.Open(t.Context(), &sdk.Options{Layout: t.TempDir(), Launcher: embedded.InProcess()})
	must(t, err)
	push(t, registry, "one", "app:v1")
	must(t, registry.Close())
	must(t, registry.Close())
	_, pushErr := registry.Push(t.Context(), build(t, "two").source(), "app:v2", nil)
	_, resolveErr := registry.Resolve(t.Context(), "app:v1")
	for what, err := range map[string]error{"Push": pushErr, "Resolve": resolveErr, "Flush": registry.Flush(t.Context())} {
		if err == nil {
			t.Errorf("%s works after Close", what)
		}
	}
}

// The registry is a berth.Registry, for whoever needs no more than that.
func TestRegistryIsTheContract(t *testing.T) {
	registry := open(t, sdk.Options{})
	want := push(t, registry, "one", "app/hello:v1")
	var contract berth.Registry = registry
	var names []string
	for name, err := range contract.Repositories(t.Context(), "") {
		must(t, err)
		names = append(names, name)
	}
	wantEqual(t, "repositories", names, []string{"app/hello"})
	repo, err := contract.Repository("app/hello")
	must(t, err)
	if got, err := repo.Resolve(t.Context(), "v1"); err != nil || got.Digest != want.Digest {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = repo.Resolve(t.Context(), "v2")
	wantErr(t, "an absent tag", err, berth.ErrManifestUnknown)
	var remoteErr interface{ Unwrap() []error }
	if !errors.As(err, &remoteErr) {
		t.Errorf("the registry's own error is lost: %#v", err)
	}
}
