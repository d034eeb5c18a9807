// Command onefile is a build tool in one file: it makes an image of a directory, pushes it into the layout, pins its
// digest in berth.lock, and brings it to the remote registries that are named.
//
//	go run ./examples/onefile ./rootfs app/hello:v1 /bin/hello [HOST[/PREFIX]...]
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/source"
)

func main() {
	embedded.Main() // where this binary was started to be the registry, it is that, and nothing below happens
	if len(os.Args) < 4 {
		log.Fatal("onefile: want DIRECTORY NAME COMMAND [HOST[/PREFIX]...]")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		log.Fatal("onefile: ", err)
	}
}

func run(ctx context.Context, directory, name, command string, remotes []string) (err error) {
	registry, err := sdk.Open(ctx, &sdk.Options{Launcher: host.Self()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	image := source.Build(nil, source.Image{
		Layers: []source.Layer{{FS: os.DirFS(directory)}},
		Config: v1.ImageConfig{Entrypoint: []string{command}},
	})
	defer image.Close()
	pushed, err := registry.Push(ctx, image, name, nil)
	if err != nil {
		return err
	}
	fmt.Println(name, pushed.Descriptor.Digest)
	_, err = registry.Pin(ctx, "berth.lock", name)
	for _, remote := range remotes {
		_, failed := registry.Sync(ctx, &sdk.SyncOptions{To: remote, Patterns: []string{name}})
		err = errors.Join(err, failed)
	}
	return err
}
