package berthtest_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/berthtest"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/source"
)

// useful shows that a client can resolve, pull and push.
func useful(t *testing.T, registry *berthtest.Registry) {
	t.Helper()
	want := registry.PushImage("team/app:v1,latest", &berthtest.Image{Layers: 2, Platforms: []string{"linux/amd64", "linux/arm64"}})
	images, ref := client("", ""), registry.Host()+"/team/app"
	if got, err := images.Resolve(t.Context(), ref); err != nil || got.Digest != want.Digest {
		t.Fatalf("resolve: got %v, %v, want %v", got, err, want)
	}
	dir := filepath.Join(t.TempDir(), "pulled")
	to, err := source.ToLayout(dir, "")
	must(t, err)
	defer to.Close()
	pulled, err := images.Pull(t.Context(), ref+":v1", to, nil)
	must(t, err)
	if pulled.Descriptor.Digest != want.Digest || pulled.Stats.Sent != 2*(2+1+1)+1 {
		t.Errorf("pulled %+v of %v: want two images of two layers, and their index", pulled, want)
	}
	pushThrough(t, registry)
}

// pushThrough pushes as a client does, in pieces, and looks for what it has pushed.
func pushThrough(t *testing.T, registry *berthtest.Registry) {
	t.Helper()
	endpoint := registry.Endpoint()
	at, err := remote.New(endpoint.Host, &remote.Options{Credentials: known(endpoint.Username, endpoint.Password)})
	must(t, err)
	repo, err := at.Repository("team/pushed")
	must(t, err)
	up, err := repo.NewUpload(t.Context(), nil)
	must(t, err)
	_, err = up.Write([]byte("{}"))
	must(t, err)
	config := manifest.Descriptor(v1.MediaTypeEmptyJSON, []byte("{}"))
	_, err = up.Commit(t.Context(), config.Digest)
	must(t, err)
	raw := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","config":{"mediaType":"` + config.MediaType + `","digest":"` + string(config.Digest) + `","size":2},"layers":[]}`
	pushed, err := repo.PushManifest(t.Context(), []byte(raw), &berth.PushOptions{Tags: []string{"v2"}})
	must(t, err)
	if got, err := registry.Resolve(t.Context(), "team/pushed:v2"); err != nil || got.Digest != pushed.Digest {
		t.Errorf("got %v, %v, want %v", got, err, pushed)
	}
}

func TestAClientUsesTheRegistry(t *testing.T) { useful(t, berthtest.New(t)) }

// The binary that is started once more is the test's own.
func TestAnyLauncherServes(t *testing.T) {
	registry := berthtest.NewWith(t, &berthtest.Options{Launcher: host.Self()})
	status, err := registry.Status(t.Context())
	must(t, err)
	if status.PID == os.Getpid() || status.Kind != plugin.KindPrivate {
		t.Errorf("got %+v: want another process, for this one alone", status)
	}
	useful(t, registry)
}

// What the developer's machine has stored plays no part.
func TestNothingOfTheMachineIsUsed(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	t.Setenv(sdk.LayoutVariable, elsewhere)
	t.Setenv(sdk.IdleVariable, "nonsense")
	t.Setenv("DOCKER_CONFIG", elsewhere)
	t.Setenv("PATH", "")
	registry := berthtest.New(t)
	registry.RequireBasic("ada", "canary.secret")
	t.Setenv("DOCKER_CONFIG", registry.DockerConfig())
	registry.PushImage("app:v1", nil)
	if _, err := registry.Resolve(t.Context(), registry.Host()+"/app:v1"); !errors.Is(err, berth.ErrUnauthorized) {
		t.Errorf("got %v: it has used stored credentials", err)
	}
	if _, err := os.Stat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the default layout is there: %v", err)
	}
}

func TestALayoutCanBeGiven(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	first := berthtest.NewWith(t, &berthtest.Options{Layout: dir})
	want := first.PushImage("app:v1", nil)
	if got := first.Endpoint().Layout; got != dir {
		t.Errorf("it serves %s, want %s", got, dir)
	}
	must(t, first.Close())
	must(t, first.Close())
	if _, err := client("", "").Resolve(t.Context(), first.Host()+"/app:v1"); err == nil {
		t.Error("it answers after Close")
	}
	second := berthtest.NewWith(t, &berthtest.Options{Layout: dir})
	if got, err := second.Resolve(t.Context(), "app:v1"); err != nil || got.Digest != want.Digest {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestSparseImagesAreTakenWhereThatIsWanted(t *testing.T) {
	layer := manifest.Descriptor(v1.MediaTypeImageLayer, []byte("not there"))
	raw := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","config":{"mediaType":"` + layer.MediaType + `","digest":"` + string(layer.Digest) + `","size":9},"layers":[]}`
	for allowed, want := range map[bool]error{true: nil, false: berth.ErrManifestBlobUnknown} {
		repo, err := berthtest.NewWith(t, &berthtest.Options{AllowMissing: allowed}).Repository("app")
		must(t, err)
		if _, err := repo.PushManifest(t.Context(), []byte(raw), nil); !errors.Is(err, want) {
			t.Errorf("allowed %v: got %v, want %v", allowed, err, want)
		}
	}
}

func TestWhatCannotBeFailsTheTest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for want, work := range map[string]func(testing.TB){
		file: func(tb testing.TB) { berthtest.NewWith(tb, &berthtest.Options{Layout: file}) },
		"no-such-program": func(tb testing.TB) {
			berthtest.NewWith(tb, &berthtest.Options{Launcher: host.Binary("no-such-program")})
		},
		"name invalid": func(tb testing.TB) { berthtest.New(tb).PushImage("Upper:v1", nil) },
		"platform":     func(tb testing.TB) { berthtest.New(tb).PushImage("app", &berthtest.Image{Platforms: []string{"x"}}) },
		"-1 layers":    func(tb testing.TB) { berthtest.New(tb).PushImage("app", &berthtest.Image{Layers: -1}) },
		"status 200":   func(tb testing.TB) { berthtest.New(tb).Fail(nil, 1, http.StatusOK) },
		"request -1":   func(tb testing.TB) { berthtest.New(tb).Fail(nil, -1, http.StatusBadGateway) },
		"-2 bytes":     func(tb testing.TB) { berthtest.New(tb).Cut(nil, 1, -2) },
		"-3 bytes":     func(tb testing.TB) { berthtest.New(tb).Limit(nil, -3) },
	} {
		got := failures(work)
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("got %q, want one that tells %q", got, want)
		}
	}
}

// Clients hear of a registry that has crashed, and so does the test that has not closed it.
func TestACrashFailsTheTest(t *testing.T) {
	var status int
	got := failures(func(tb testing.TB) {
		registry := berthtest.NewWith(tb, &berthtest.Options{Launcher: host.Self()})
		plugin, err := registry.Status(tb.Context())
		if err != nil {
			tb.Fatalf("%v", err)
		}
		process, err := os.FindProcess(plugin.PID) // a child of this one
		if err == nil {
			err = process.Kill()
		}
		if err != nil {
			tb.Fatalf("%v", err)
		}
		eventually(tb, "the registry is gone", func() bool {
			status = ask(tb.Context(), registry, http.MethodGet, "/v2/", "", "").status
			return status != http.StatusOK
		})
	})
	if status != http.StatusBadGateway || len(got) != 1 || !strings.Contains(got[0], "killed") {
		t.Errorf("clients got status %d, the test %q", status, got)
	}
}

func TestImagesOfOneSeedAreTheSame(t *testing.T) {
	registry := berthtest.New(t)
	shape := berthtest.Image{Layers: 3, Size: 5000, Seed: 7, Platforms: []string{"linux/arm64"}}
	first, second := registry.PushImage("one:v1", &shape), berthtest.New(t).PushImage("two:v1", &shape)
	if first.Digest != second.Digest {
		t.Errorf("got %v and %v", first, second)
	}
	other := shape
	other.Seed = 8
	if registry.PushImage("one:v2", &other).Digest == first.Digest {
		t.Error("another seed makes the same image")
	}
	if registry.PushImage("one:v3", nil).Digest == registry.PushImage("one:v4", nil).Digest {
		t.Error("without a seed two images are the same")
	}
	report, err := registry.Inspect(t.Context(), "one:v1", nil)
	must(t, err)
	if len(report.Layers) != 3 || report.Layers[0].Size < 5000 || report.Layers[0].Digest == report.Layers[1].Digest {
		t.Errorf("got %+v", report)
	}
}
