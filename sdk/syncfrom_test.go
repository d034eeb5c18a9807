package sdk_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
	"github.com/berthoci/berth/server"
)

// stocked is a registry on the network that has app/one:v1, app/two:v1 and base:latest, with one image.
func stocked(t *testing.T) (host string, image v1.Descriptor) {
	t.Helper()
	noLogin(t)
	host = serveRemote(t, nil)
	from := open(t, sdk.Options{})
	image = push(t, from, "one", "app/one:v1")
	push(t, from, "one", "app/two:v1")
	push(t, from, "one", "base")
	_, err := from.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"**"}})
	must(t, err)
	return host, image
}

func into(references ...string) *sdk.SyncFromOptions {
	return &sdk.SyncFromOptions{References: references, Selection: sync.Selection{Referrers: true}}
}

func TestSyncFromBringsImagesIntoTheLayout(t *testing.T) {
	host, image := stocked(t)
	registry := open(t, sdk.Options{})
	opts := into("docker://"+host+"/app/**:v1", host+"/base")
	plan, err := registry.PlanSyncFrom(t.Context(), opts)
	if err != nil || len(plan.Drift()) != 3 || plan.Items[0].From != host || plan.Items[0].Host != "" {
		t.Fatalf("got %+v, %v", plan, err)
	}
	report, err := registry.SyncFrom(t.Context(), opts)
	must(t, err)
	var done []string
	for _, r := range report.Items {
		done = append(done, r.Here()+" "+r.There())
		got, err := registry.Resolve(t.Context(), r.Target)
		if err != nil || got.Digest != image.Digest {
			t.Errorf("%s is %v, %v", r.Target, got, err)
		}
	}
	wantEqual(t, "what came", done, []string{host + "/app/one:v1 app/one:v1", host + "/app/two:v1 app/two:v1", host + "/base:latest base:latest"})
	if report.Total.Sent != 5 || report.Total.Mounted != 4 { // two blobs once, and a manifest for each repository
		t.Errorf("got %+v", report.Total)
	}
	again, err := registry.SyncFrom(t.Context(), opts)
	if err != nil || again.Total != (sync.Stats{}) {
		t.Errorf("got %+v, %v", again, err)
	}
}

func TestSyncFromFetchesNothingThatTheLayoutHas(t *testing.T) {
	host, _ := stocked(t)
	registry := open(t, sdk.Options{})
	push(t, registry, "one", "here/already:v1")
	opts := into(host + "/app/one:v1")
	opts.Prefix, opts.Selection.Rename = "mirror", "{name}:{tag}-x"
	plan, err := registry.PlanSyncFrom(t.Context(), opts)
	if err != nil || plan.Bytes() != 0 {
		t.Errorf("got %+v, %v", plan, err)
	}
	report, err := registry.SyncFrom(t.Context(), opts)
	if err != nil || report.Total.Bytes != 0 || report.Total.Mounted != 2 || report.Items[0].There() != "mirror/one:v1-x" {
		t.Errorf("got %+v, %v", report, err)
	}
}

func TestSyncFromBringsSomePlatforms(t *testing.T) {
	noLogin(t)
	host := serveRemote(t, nil)
	from := open(t, sdk.Options{})
	platforms := []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "s390x"}}
	var images []source.Image
	for _, platform := range platforms {
		images = append(images, source.Image{Platform: platform})
	}
	built := source.Build(nil, images...)
	defer built.Close()
	_, err := from.Push(t.Context(), built, "app:v1", nil)
	must(t, err)
	_, err = from.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app"}})
	must(t, err)

	some := into(host + "/app:v1")
	some.Selection.Platforms = platforms[:2]
	_, err = open(t, sdk.Options{}).SyncFrom(t.Context(), some)
	wantErr(t, "a sparse index, which the layout does not take", err, berth.ErrUnsupported)
	sparse := open(t, sdk.Options{AllowMissing: true})
	_, err = sparse.SyncFrom(t.Context(), some)
	must(t, err)
	for i, platform := range platforms {
		_, err := sparse.Config(t.Context(), "app:v1", &sdk.InspectOptions{Platform: "linux/" + platform.Architecture})
		if there := err == nil; there != (i < 2) {
			t.Errorf("%s is there: %v, %v", platform.Architecture, there, err)
		}
	}
	one := into(host + "/app:v1")
	one.Selection.Platforms = platforms[1:2]
	registry := open(t, sdk.Options{})
	report, err := registry.SyncFrom(t.Context(), one)
	must(t, err)
	if m := report.Items[0].Descriptor; m.MediaType != v1.MediaTypeImageManifest {
		t.Errorf("one platform came as %s", m.MediaType)
	}
}

// What belongs to an image by the convention of cosign comes along, be there few images or many.
func TestSyncFromBringsSignaturesAlong(t *testing.T) {
	noLogin(t)
	host := serveRemote(t, nil)
	from := open(t, sdk.Options{})
	const images = 12
	for n := range images {
		image := push(t, from, fmt.Sprint("image ", n), fmt.Sprintf("app:v%d", n))
		push(t, from, fmt.Sprint("signature ", n), "app:"+strings.Replace(string(image.Digest), ":", "-", 1)+".sig")
	}
	_, err := from.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app"}})
	must(t, err)
	for pattern, want := range map[string]int{"/app:v1": 2, "/app:v*": 2 * images} {
		registry := open(t, sdk.Options{})
		_, err := registry.SyncFrom(t.Context(), into(host+pattern))
		must(t, err)
		if got := tags(t, registry, "app"); len(got) != want {
			t.Errorf("%s: there are the tags %q, want %d", pattern, got, want)
		}
	}
}

func TestSyncFromErrors(t *testing.T) {
	host, _ := stocked(t)
	other, _ := stocked(t)
	registry := open(t, sdk.Options{})
	for what, c := range map[string]struct {
		references []string
		err        error
		says       string
	}{
		"nothing":                  {nil, sync.ErrNothing, "docker://"},
		"what has no host":         {[]string{"localhost"}, berth.ErrNameInvalid, "localhost"},
		"what is no name":          {[]string{host + "/App"}, berth.ErrNameInvalid, "App"},
		"what is not there":        {[]string{host + "/app/one:v9"}, sync.ErrNothing, host + "/app/one:v9"},
		"one tag of two hosts":     {[]string{host + "/base", other + "/base"}, berth.ErrTagInvalid, other + "/base"},
		"a pattern without tags":   {[]string{host + "/app/*"}, berth.ErrTagInvalid, ":*"},
		"nothing but an exclusion": {[]string{"!" + host + "/base"}, sync.ErrNothing, ""},
		"plain http beyond here":   {[]string{"http://registry.example.com/app"}, berth.ErrUnsupported, "--plain-http"},
	} {
		_, err := registry.SyncFrom(t.Context(), into(c.references...))
		wantErr(t, what, err, c.err)
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v does not name %s", what, err, c.says)
		}
	}
	if got := tags(t, registry, "base"); len(got) != 0 {
		t.Errorf("the first of two that cannot both come has the tags %q", got)
	}
	report, err := registry.SyncFrom(t.Context(), into("http://"+host+"/app/one:v1", "docker://http://"+other+"/base"))
	if err != nil || len(report.Items) != 2 {
		t.Errorf("with schemes: %+v, %v", report, err)
	}
}

// halting is a registry that stops in the middle of blobs, and calls what is to happen then.
type halting struct {
	http.Handler
	after  atomic.Int64 // bytes of blobs; 0: it goes on
	halted func()
	served atomic.Int64
}

func (h *halting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
		w = &haltingWriter{w, r, h}
	}
	h.Handler.ServeHTTP(w, r)
}

type haltingWriter struct {
	http.ResponseWriter
	request *http.Request
	halting *halting
}

func (w *haltingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if sent, after := w.halting.served.Add(int64(n)), w.halting.after.Load(); after > 0 && sent > after {
		w.halting.halted()
		<-w.request.Context().Done()
	}
	return n, err
}

// begun is how many bytes a layout has of uploads that have not ended.
func begun(layout string) (n int64) {
	files, err := os.ReadDir(filepath.Join(layout, ".berth", "ingest"))
	if err != nil {
		return 0
	}
	for _, file := range files {
		if info, err := file.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

func TestSyncFromGoesOnWhereItWas(t *testing.T) {
	noLogin(t)
	const size, some = 32 << 20, 8 << 20 // some is more than what is held before it is written
	layout, err := ocilayout.Open(t.Context(), t.TempDir(), nil)
	must(t, err)
	remote := &halting{Handler: server.New(layout, nil)}
	srv := httptest.NewServer(remote)
	defer func() { srv.Close(); must(t, layout.Close()) }()
	host := srv.Listener.Addr().String()
	from := open(t, sdk.Options{})
	push(t, from, strings.Repeat("0123456789abcdef", size/16), "app:v1")
	_, err = from.Sync(t.Context(), &sdk.SyncOptions{To: host, Patterns: []string{"app"}})
	must(t, err)

	mine := filepath.Join(t.TempDir(), "mine")
	ctx, cancel := context.WithCancel(t.Context())
	remote.halted = func() { // when what is on its way has arrived
		for begun(mine) < size/2-some/2 && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}
	remote.after.Store(size / 2)
	registry := open(t, sdk.Options{Layout: mine})
	_, err = registry.SyncFrom(ctx, into(host+"/app:v1"))
	wantErr(t, "a pull that is called off", err, context.Canceled)
	must(t, registry.Close())
	remote.after.Store(0)
	report, err := open(t, sdk.Options{Layout: mine}).SyncFrom(t.Context(), into(host+"/app:v1"))
	if err != nil || report.Items[0].Error != "" {
		t.Fatalf("got %+v, %v", report, err)
	}
	if served := remote.served.Load(); served > size+some {
		t.Errorf("%d bytes were fetched of %d", served, size)
	}
}
