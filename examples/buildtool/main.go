// Command buildtool is a build tool of one file that has berth within itself: one binary, which needs no other
// program. It "builds" an image of one text for each name that it is given, pushes it into a registry that it shares
// with all other processes that work on the same layout, and tells its digest.
//
//	CGO_ENABLED=0 go build -o buildtool ./examples/buildtool
//	./buildtool -layout out/layout app/hello:v1 app/world:v1
//
// The first process starts the registry, as a second process of the same binary; the others find it. When nobody
// has used it for a while, it ends.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

func main() {
	embedded.Main() // where the binary was started to be the registry, it is that, and nothing below happens
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "buildtool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("buildtool", flag.ExitOnError)
	layout := flags.String("layout", "layout", "the layout directory")
	idle := flags.Duration("idle-timeout", 10*time.Second, "how long the registry stays when nobody uses it any more")
	launcher := flags.String("launcher", "self", "what starts the registry: self, in-process, or a berth binary")
	verbose := flags.Bool("v", false, "tell what the registry tells")
	timed := flags.Bool("time", false, "tell how many milliseconds it took until the registry was open, and until it had answered")
	flags.Parse(args)
	opts := sdk.Options{Layout: *layout, IdleTimeout: *idle, Launcher: launchers(*launcher)}
	if *verbose {
		opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	begin := time.Now()
	registry, err := sdk.Open(ctx, &opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	if *timed {
		opened := time.Since(begin)
		if err := registry.Ping(ctx); err != nil {
			return err
		}
		fmt.Fprintln(out, milliseconds(opened), milliseconds(time.Since(begin)))
	}
	for _, name := range flags.Args() {
		pushed, err := registry.Push(ctx, build(name), name, nil)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, name, pushed.Descriptor.Digest)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// launchers are the three ways to come by a registry.
func launchers(name string) host.Launcher {
	switch name {
	case "self":
		return host.Self()
	case "in-process":
		return embedded.InProcess()
	}
	return host.Binary(name)
}

// image is an image in memory. It is a source of sdk.Push, which takes anything that can fetch a descriptor.
type image struct {
	root    v1.Descriptor
	content map[digest.Digest][]byte
}

// build makes an image whose one layer is a text.
func build(text string) *image {
	i := &image{content: map[digest.Digest][]byte{}}
	layer := i.add(v1.MediaTypeImageLayer, []byte(text))
	config := i.add(v1.MediaTypeImageConfig, encode(v1.Image{
		Platform: v1.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	}))
	i.root = i.add(v1.MediaTypeImageManifest, encode(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{layer},
	}))
	return i
}

func (i *image) add(mediaType string, content []byte) v1.Descriptor {
	desc := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	i.content[desc.Digest] = content
	return desc
}

func (i *image) Root(context.Context) (v1.Descriptor, error) { return i.root, nil }

func (i *image) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(i.content[desc.Digest])), nil
}

func (i *image) Close() error { return nil }

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // these types have no value that is no JSON
	}
	return data
}
