package sdk_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

func TestEndpointSpeaksToOtherPrograms(t *testing.T) {
	e := sdk.Endpoint{URL: "http://127.0.0.1:4123", Host: "127.0.0.1:4123", Username: "berth", Password: "canary.secret"}
	var config struct {
		Auths map[string]struct{ Auth string }
	}
	must(t, json.Unmarshal(e.DockerConfig(), &config))
	if got := config.Auths["127.0.0.1:4123"].Auth; got != "YmVydGg6Y2FuYXJ5LnNlY3JldA==" {
		t.Errorf("config.json has %q", got)
	}
	for what, c := range map[string]struct{ got, want string }{
		"hosts.toml": {e.HostsTOML(), `server = "http://127.0.0.1:4123"

[host."http://127.0.0.1:4123"]
  capabilities = ["pull", "resolve", "push"]
  [host."http://127.0.0.1:4123".header]
    authorization = "Basic YmVydGg6Y2FuYXJ5LnNlY3JldA=="
`},
		"buildkitd.toml":  {e.BuildkitTOML(), "[registry.\"127.0.0.1:4123\"]\n  http = true\n"},
		"registries.conf": {e.RegistriesConf(), "[[registry]]\nlocation = \"127.0.0.1:4123\"\ninsecure = true\n"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got\n%swant\n%s", what, c.got, c.want)
		}
	}
	open := sdk.Endpoint{URL: "http://127.0.0.1:1", Host: "127.0.0.1:1"}
	if strings.Contains(open.HostsTOML(), "authorization") || string(open.DockerConfig()) != "{\n  \"auths\": {}\n}\n" {
		t.Errorf("credentials for one that asks for none: %s%s", open.HostsTOML(), open.DockerConfig())
	}
}

func TestDockerConfigIsRemovedWithTheRegistry(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	registry, err := sdk.Open(t.Context(), &sdk.Options{Layout: filepath.Join(t.TempDir(), "layout"), Launcher: embedded.InProcess()})
	must(t, err)
	dir, err := registry.DockerConfig()
	must(t, err)
	again, err := registry.DockerConfig()
	must(t, err)
	content, err := os.ReadFile(filepath.Join(dir, "config.json"))
	must(t, err)
	if again != dir || string(content) != string(registry.Endpoint().DockerConfig()) {
		t.Errorf("%s, then %s, has %s", dir, again, content)
	}
	if info, err := os.Stat(filepath.Join(dir, "config.json")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("it has mode %v, %v", info.Mode(), err)
	}
	must(t, registry.Close())
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

// What serves the layout is told to end, and the registry goes on, at the same address.
func TestTheRegistryGoesOnWhenItWasStopped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	registry := open(t, sdk.Options{Layout: dir})
	want := push(t, registry, "one", "app:v1,gone")
	before := registry.Endpoint()
	for round, use := range map[string]func() error{
		"resolve": func() error { _, err := registry.Resolve(t.Context(), "app:v1"); return err },
		"push": func() error {
			_, err := registry.Push(t.Context(), build(t, "two").source(), "app:v2", nil)
			return err
		},
		"delete": func() error { _, err := registry.Remove(t.Context(), "app:gone@"+string(want.Digest)); return err },
		"flush":  func() error { return registry.Flush(t.Context()) },
		"gc":     func() error { _, err := registry.GC(t.Context(), nil); return err },
		"fsck":   func() error { _, err := registry.Fsck(t.Context(), nil); return err },
		"checkout": func() error {
			done, err := registry.Checkout(t.Context())
			if err == nil {
				err = done(t.Context())
			}
			return err
		},
	} {
		stop(t, dir)
		if err := use(); err != nil {
			t.Errorf("%s: %v", round, err)
		}
	}
	if registry.Endpoint() != before {
		t.Errorf("it is at %+v, and was at %+v", registry.Endpoint(), before)
	}
	status, _ := get(t, before.URL+"/v2/", func(r *http.Request) { r.SetBasicAuth(before.Username, before.Password) })
	if status != http.StatusOK {
		t.Errorf("for others: status %d", status)
	}
}

// stop does what berth stop does, as soon as a registry that has just begun takes calls.
func stop(t *testing.T, dir string) {
	t.Helper()
	owner, err := host.Attach(t.Context(), dir)
	for end := time.Now().Add(time.Minute); errors.Is(err, host.ErrNotRunning) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		owner, err = host.Attach(t.Context(), dir)
	}
	must(t, err)
	defer owner.Close()
	must(t, owner.Drain(t.Context()))
}

func TestWatchTellsOfAllWhoPush(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	watching, pushing := open(t, sdk.Options{Layout: dir}), open(t, sdk.Options{Layout: dir})
	var position string
	for event, err := range watching.Watch(t.Context(), nil) {
		must(t, err)
		if event.Kind == berth.EventBookmark {
			push(t, pushing, "one", "app:v1")
			continue
		}
		if event.Kind != berth.EventPush || event.Repository != "app" || len(event.Tags) != 1 || event.Tags[0] != "v1" {
			t.Errorf("got %+v", event)
		}
		position = event.Position
		break
	}
	stop(t, dir)
	second := push(t, pushing, "two", "app:v2")
	for event, err := range watching.Watch(t.Context(), &berth.WatchOptions{After: position}) {
		must(t, err)
		if event.Kind == berth.EventBookmark {
			continue
		}
		if event.Descriptor.Digest != second.Digest {
			t.Errorf("got %+v", event)
		}
		break
	}
}

func TestIdleTimeoutOfTheEnvironment(t *testing.T) {
	for value, want := range map[string]string{"": "0s", "30s": "30s", "0": "-1ns", "soon": "", "-1s": ""} {
		t.Setenv(sdk.IdleVariable, value)
		got, err := sdk.DefaultIdleTimeout()
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: got %v, %v, want %s", value, got, err, want)
		}
		if err != nil && (!strings.Contains(err.Error(), sdk.IdleVariable) || !strings.Contains(err.Error(), value)) {
			t.Errorf("%q: %v does not tell which", value, err)
		}
	}
}
