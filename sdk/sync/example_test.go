package sync_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/sync"
	"github.com/berthoci/berth/server"
)

// contents is anything that can fetch what a descriptor describes.
type contents map[string]string

func (c contents) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	content, ok := c[string(desc.Digest)]
	if !ok {
		return nil, berth.ErrBlobUnknown
	}
	return io.NopCloser(bytes.NewReader([]byte(content))), nil
}

func (c contents) add(mediaType, content string) v1.Descriptor {
	desc := manifest.Descriptor(mediaType, []byte(content))
	c[string(desc.Digest)] = content
	return desc
}

// hello is a source with one image in it.
func hello() (contents, v1.Descriptor) {
	c := contents{}
	config := c.add(v1.MediaTypeEmptyJSON, "{}")
	root := c.add(v1.MediaTypeImageManifest, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[]}`,
		v1.MediaTypeImageManifest, config.MediaType, config.Digest))
	return c, root
}

// exampleRegistry is an empty registry behind HTTP.
func exampleRegistry() (registry *remote.Registry, end func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	layout, err := ocilayout.Open(context.Background(), dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	srv := httptest.NewServer(server.New(layout, nil))
	registry, err = remote.New(srv.Listener.Addr().String(), nil)
	if err != nil {
		log.Fatal(err)
	}
	return registry, func() { srv.Close(); layout.Close(); os.RemoveAll(dir) }
}

func ExampleCopy() {
	ctx := context.Background()
	registry, end := exampleRegistry()
	defer end()
	repo, err := registry.Open("app/hello")
	if err != nil {
		log.Fatal(err)
	}
	from, root := hello()
	stats, err := sync.Copy(ctx, from, sync.ToRepository(repo, []string{"v1", "latest"}, nil), root, nil)
	if err != nil {
		log.Fatal(err)
	}
	desc, err := repo.Resolve(ctx, "latest")
	fmt.Println(stats.Sent, desc.Digest == root.Digest, err)
	// Output: 2 true <nil>
}

func ExampleApply() {
	ctx := context.Background()
	local, end := exampleRegistry()
	defer end()
	target, endTarget := exampleRegistry()
	defer endTarget()
	repo, err := local.Open("app/hello")
	if err != nil {
		log.Fatal(err)
	}
	from, root := hello()
	if _, err := sync.Copy(ctx, from, sync.ToRepository(repo, []string{"v1"}, nil), root, nil); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		to := []sync.To{{Registry: target, Prefix: "team"}}
		plan, err := sync.Make(ctx, local, to, sync.Selection{Patterns: []string{"app/*:v*"}})
		if err != nil {
			log.Fatal(err)
		}
		report, err := sync.Apply(ctx, local, to, plan, nil)
		if err != nil {
			log.Fatal(err)
		}
		for _, r := range report.Items {
			fmt.Println(r.Source, r.Target, "drifted:", r.Drifted(), "sent:", r.Stats.Sent)
		}
	}
	// Output:
	// app/hello:v1 team/app/hello:v1 drifted: true sent: 2
	// app/hello:v1 team/app/hello:v1 drifted: false sent: 0
}
