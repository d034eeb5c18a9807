// Command quickstart is a build tool of about a hundred lines: it compiles a static Go program, packs
// it into an image, and does with that image what berth is for. It pushes the image into a local
// registry, resolves and pins its digest, and syncs its tag to a remote registry that asks for a
// password. At the end it reads the digest from the three places where it lies now.
//
//	go run ./examples/quickstart OUT
//
// It finds the berth binary on PATH; make demo builds it and sees to that.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
)

const image = "demo/hello:v1"

func main() {
	log.SetFlags(0)
	out := "out/demo"
	if len(os.Args) > 1 {
		out = os.Args[1]
	}
	if err := run(context.Background(), out); err != nil {
		log.Fatal("quickstart: ", err)
	}
}

func run(ctx context.Context, out string) (err error) {
	program, err := compile(ctx, out)
	if err != nil {
		return err
	}
	built := filepath.Join(out, "image")
	if err := pack(ctx, built, program); err != nil {
		return err
	}
	remote, err := startRemote(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remote.stop()) }()
	lock := filepath.Join(out, "berth.lock")
	if err := release(ctx, out, built, lock, remote.host); err != nil {
		return err
	}
	return report(ctx, filepath.Join(out, "layout"), lock, remote)
}

// release is the main job, as a build tool does it.
func release(ctx context.Context, out, built, lock, remoteHost string) (err error) {
	registry, err := sdk.Open(ctx, &sdk.Options{Layout: filepath.Join(out, "layout")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	if _, err := registry.Push(ctx, source.Layout(built, "hello"), image, nil); err != nil {
		return err
	}
	if _, err := registry.Pin(ctx, lock, image); err != nil {
		return err
	}
	_, err = registry.Sync(ctx, &sdk.SyncOptions{To: remoteHost, Patterns: []string{image}})
	return err
}

// compile builds a program that needs nothing around it.
func compile(ctx context.Context, out string) (string, error) {
	program, err := filepath.Abs(filepath.Join(out, "hello"))
	if err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "./examples/quickstart/hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	build.Stderr = os.Stderr
	return program, build.Run()
}

// report reads the digest back from the layout, the lock file and the remote, and compares.
func report(ctx context.Context, layout, lock string, remote *remoteRegistry) error {
	pushed, err := digestInLayout(layout)
	if err != nil {
		return err
	}
	pinned, err := digestInLock(lock)
	if err != nil {
		return err
	}
	synced, err := remote.digest(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("pushed %s  (%s)\npinned %s  (%s)\nsynced %s  (http://%s, by Basic auth)\n",
		pushed, filepath.Join(layout, "index.json"), pinned, lock, synced, remote.host)
	if pushed != pinned || pinned != synced {
		return errors.New("the three digests differ")
	}
	return nil
}

func encode(v any) *bytes.Reader {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // the values are this program's own
	}
	return bytes.NewReader(data)
}
