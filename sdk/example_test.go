package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/server"
)

// exampleDir is a directory with an image in the layout "built", and what removes it.
func exampleDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	to, err := source.ToLayout(filepath.Join(dir, "built"), "hello")
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	put := func(mediaType, content string) v1.Descriptor {
		desc := manifest.Descriptor(mediaType, []byte(content))
		if err := to.Put(context.Background(), desc, strings.NewReader(content)); err != nil {
			log.Fatal(err)
		}
		return desc
	}
	config := put(v1.MediaTypeEmptyJSON, "{}")
	root := put(v1.MediaTypeImageManifest, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[]}`,
		v1.MediaTypeImageManifest, config.MediaType, config.Digest))
	if err := to.Commit(context.Background(), root); err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// exampleRegistry is an open registry that holds app/hello:v1.
func exampleRegistry() (registry *sdk.Registry, dir string, end func()) {
	ctx := context.Background()
	dir, remove := exampleDir()
	registry, err := sdk.Open(ctx, &sdk.Options{Layout: filepath.Join(dir, "layout"), Launcher: embedded.InProcess()})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := registry.Push(ctx, source.Layout(filepath.Join(dir, "built"), "hello"), "app/hello:v1", nil); err != nil {
		log.Fatal(err)
	}
	return registry, dir, func() { registry.Close(); remove() }
}

// exampleRemote is a registry somewhere else.
func exampleRemote() (host string, end func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	layout, err := ocilayout.Open(context.Background(), dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	srv := httptest.NewServer(server.New(layout, nil))
	return srv.Listener.Addr().String(), func() { srv.Close(); layout.Close(); os.RemoveAll(dir) }
}

func ExampleOpen() {
	dir, remove := exampleDir()
	defer remove()
	// A tool leaves Launcher out to use the berth binary on PATH, or sets host.Self() to use itself.
	registry, err := sdk.Open(context.Background(), &sdk.Options{
		Layout:   filepath.Join(dir, "layout"),
		Launcher: embedded.InProcess(),
	})
	if err != nil {
		log.Fatal(err)
	}
	for name, err := range registry.Repositories(context.Background(), "") {
		fmt.Println(name, err)
	}
	fmt.Println(registry.Close())
	// Output: <nil>
}

func ExampleRegistry_Push() {
	registry, dir, end := exampleRegistry()
	defer end()
	from := source.Layout(filepath.Join(dir, "built"), "hello")
	defer from.Close()
	pushed, err := registry.Push(context.Background(), from, "app/hello:v2,latest", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(pushed.Descriptor.Digest.Encoded()[:12], pushed.Tags)
	fmt.Println("all was there:", pushed.Stats.Unchanged())
	// Output:
	// 1ccb399e44f3 [v2 latest]
	// all was there: true
}

func ExampleRegistry_Pull() {
	registry, dir, end := exampleRegistry()
	defer end()
	to, err := source.ToArchive(filepath.Join(dir, "hello.tar"), "v1")
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	pulled, err := registry.Pull(context.Background(), "app/hello:v1", to, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(pulled.Descriptor.Digest.Encoded()[:12], pulled.Stats.Sent)
	// Output: 1ccb399e44f3 2
}

func ExampleRegistry_Resolve() {
	registry, _, end := exampleRegistry()
	defer end()
	for _, ref := range []string{"app/hello:v1", "app/hello:v2"} {
		desc, err := registry.Resolve(context.Background(), ref)
		if errors.Is(err, berth.ErrManifestUnknown) {
			fmt.Println("no " + ref)
			continue
		}
		fmt.Println(ref + "@" + desc.Digest.String()[:19])
	}
	// Output:
	// app/hello:v1@sha256:1ccb399e44f3
	// no app/hello:v2
}

func ExampleRegistry_Tags() {
	registry, _, end := exampleRegistry()
	defer end()
	for tag, err := range registry.Tags(context.Background(), "app/hello") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(tag)
	}
	// Output: v1
}

func ExampleRegistry_Pin() {
	registry, dir, end := exampleRegistry()
	defer end()
	lock := filepath.Join(dir, "berth.lock")
	changes, err := registry.Pin(context.Background(), lock, "app/hello:v1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(changes), "pinned")
	content, err := os.ReadFile(lock)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(content))
	// Output:
	// 1 pinned
	// version: 1
	// pins:
	//   app/hello:v1:
	//     digest: sha256:1ccb399e44f3e0ec86bb1a95031c6b9f81ac77860556a81a90acb79bab8005d9
	//     mediaType: application/vnd.oci.image.manifest.v1+json
	//     size: 239
}

func ExampleRegistry_VerifyPins() {
	ctx := context.Background()
	registry, dir, end := exampleRegistry()
	defer end()
	lock := filepath.Join(dir, "berth.lock")
	if _, err := registry.Pin(ctx, lock, "app/hello:v1"); err != nil {
		log.Fatal(err)
	}
	repo, err := registry.Repository("app/hello")
	if err != nil {
		log.Fatal(err)
	}
	if err := repo.Untag(ctx, "v1", nil); err != nil {
		log.Fatal(err)
	}
	drifts, err := registry.VerifyPins(ctx, lock)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range drifts {
		fmt.Println(d.Reference+":", d.Reason)
	}
	// Output: app/hello:v1: it names nothing any more
}

func ExampleRegistry_PlanSync() {
	registry, _, end := exampleRegistry()
	defer end()
	host, endRemote := exampleRemote()
	defer endRemote()
	plan, err := registry.PlanSync(context.Background(), &sdk.SyncOptions{To: host + "/team", Patterns: []string{"app/**"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, item := range plan.Drift() {
		fmt.Println(item.Source, "→", item.Target)
	}
	// Output: app/hello:v1 → team/app/hello:v1
}

func ExampleRegistry_Sync() {
	registry, _, end := exampleRegistry()
	defer end()
	host, endRemote := exampleRemote()
	defer endRemote()
	for range 2 {
		report, err := registry.Sync(context.Background(), &sdk.SyncOptions{To: host + "/team", Patterns: []string{"app/hello:v*"}})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(report.Items[0].Target, "sent:", report.Total.Sent)
	}
	// Output:
	// team/app/hello:v1 sent: 2
	// team/app/hello:v1 sent: 0
}

func ExampleRegistry_Endpoint() {
	registry, _, end := exampleRegistry()
	defer end()
	e := registry.Endpoint()
	req, err := http.NewRequest(http.MethodGet, "http://"+e.Host+"/v2/app/hello/tags/list", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.SetBasicAuth(e.Username, e.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(strings.TrimSpace(string(body)), err)
	// Output: {"name":"app/hello","tags":["v1"]} <nil>
}

func ExampleRegistry_Flush() {
	registry, dir, end := exampleRegistry()
	defer end()
	if err := registry.Flush(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Any program that reads OCI layouts sees the tag now.
	src := source.Layout(filepath.Join(dir, "layout"), "app/hello:v1")
	defer src.Close()
	root, err := src.Root(context.Background())
	fmt.Println(root.Digest.Encoded()[:12], err)
	// Output: 1ccb399e44f3 <nil>
}
