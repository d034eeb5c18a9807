//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
)

// disk is a file system that images are pushed on.
type disk struct {
	name string
	dir  string
}

// diskXFS is the one whose files can share their bytes.
const diskXFS = "XFS"

// layerCounts are in how many layers an image has its bytes.
var layerCounts = []int{1, 2}

// imageFigure names what is measured of such a push.
func imageFigure(what, disk string, layers int) string {
	return fmt.Sprint(what, " ", disk, " ", layers)
}

// repeats is how often the same image is pushed once more in a round.
const repeats = 5

// layouts measures how long it takes to push an image of a layout, the size of the big blob, into berth, and by skopeo and
// crane into the distribution registry, beside one core that hashes the same bytes.
func (b *bench) layouts(ctx context.Context, round int) error {
	if err := b.makeImages(ctx); err != nil {
		return err
	}
	for _, d := range b.disks {
		for _, layers := range layerCounts {
			if err := b.pushImages(ctx, d, layers, round); err != nil {
				return fmt.Errorf("%s, %d layers: %w", d.name, layers, err)
			}
		}
	}
	return nil
}

func (b *bench) pushImages(ctx context.Context, d disk, layers, round int) error {
	from := d.image(layers)
	ways := []func() error{
		func() error {
			took, err := seconds(func() error { return hashLayout(from) })
			b.addImage("image", bare, d, layers, took)
			return err
		},
		func() error { return b.pushToBerth(ctx, d, layers) },
		func() error {
			took, err := b.pushToPeer(ctx, d, "docker://", "skopeo", "copy", "-q", "--dest-tls-verify=false", "oci:"+from)
			b.addImage("image", distribution, d, layers, took)
			return err
		},
		func() error {
			took, err := b.pushToPeer(ctx, d, "", filepath.Join(b.dir, "bin", "crane"), "push", "--insecure", from)
			b.addImage("image", crane, d, layers, took)
			return err
		},
	}
	for i := range ways {
		syscall.Sync()
		if err := d.warm(from); err != nil {
			return err
		}
		if err := ways[(i+round)%len(ways)](); err != nil {
			return err
		}
	}
	return nil
}

// warm brings a layout into the system's memory. Where the disk is a file itself, what that has of the layout has to be
// there as well: of bytes that were not read for a while the system takes back its memory.
func (d disk) warm(layout string) error {
	return readLayout(layout, io.Discard, d.name == diskXFS)
}

// addImage notes how fast an image went, in MiB a second.
func (b *bench) addImage(what, server string, d disk, layers int, took float64) {
	b.add(imageFigure(what, d.name, layers), server, float64(b.size)/(1<<20)/took)
}

// hashLayout hashes all blobs of a layout, on one core.
func hashLayout(dir string) error { return readLayout(dir, sha256.New(), false) }

// readLayout reads all blobs of a layout, from the disk if what memory has of them is to be forgotten.
func readLayout(dir string, to io.Writer, forget bool) error {
	files, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for _, name := range files {
		if err := readFile(name, to, buf, forget); err != nil {
			return err
		}
	}
	return nil
}

func readFile(name string, to io.Writer, buf []byte, forget bool) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	if forget {
		if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{file}, buf)
	return err
}

// pushToBerth pushes into a plugin that runs, on a fresh layout, and once more what is there.
func (b *bench) pushToBerth(ctx context.Context, d disk, layers int) error {
	dir, err := os.MkdirTemp(d.dir, "data-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	registry, err := sdk.Open(ctx, &sdk.Options{Layout: dir, Launcher: host.Binary(filepath.Join(b.dir, "bin", "berth")), Private: true})
	if err != nil {
		return err
	}
	before := used(d.dir)
	push := func() error {
		from := source.Layout(d.image(layers), "")
		defer from.Close()
		_, err := registry.Push(ctx, from, "app/image:v1", nil)
		return err
	}
	took, err := seconds(push)
	b.addImage("image", berth, d, layers, took)
	for range repeats {
		if err != nil {
			break
		}
		took, err = seconds(push)
		b.add(imageFigure("again", d.name, layers), berth, took*1000)
	}
	syscall.Sync()
	b.add(imageFigure("disk", d.name, layers), berth, float64(used(d.dir)-before)/(1<<20))
	return errors.Join(err, registry.Close())
}

// pushToPeer runs a program that pushes into a distribution registry of its own, whose references begin in some way.
func (b *bench) pushToPeer(ctx context.Context, d disk, scheme string, command ...string) (took float64, err error) {
	dir, err := os.MkdirTemp(d.dir, "data-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	to, err := b.start(ctx, distribution, dir)
	if err != nil {
		return 0, err
	}
	defer to.kill()
	args := append(command[1:], scheme+to.address+"/app/image:v1")
	return seconds(func() error { return runQuietly(exec.CommandContext(ctx, command[0], args...)) })
}

// used is how many bytes of a file system are.
func used(dir string) int64 {
	var stat syscall.Statfs_t
	if syscall.Statfs(dir, &stat) != nil {
		return 0
	}
	return int64(stat.Blocks-stat.Bfree) * stat.Bsize
}

func (d disk) image(layers int) string { return filepath.Join(d.dir, fmt.Sprint("image-", layers)) }

// makeImages makes the images of each disk, once.
func (b *bench) makeImages(ctx context.Context) error {
	if b.disks != nil {
		return nil
	}
	disks := []disk{{"as it is", b.dir}}
	xfs, err := b.mountXFS(ctx)
	if err != nil {
		return err
	}
	if xfs != "" {
		disks = append(disks, disk{diskXFS, xfs})
	}
	for _, d := range disks {
		for _, layers := range layerCounts {
			if err := makeImage(ctx, d.image(layers), layers, b.size); err != nil {
				return err
			}
		}
	}
	b.disks = disks
	return nil
}

// mountXFS mounts a file system whose files can share their bytes, until the bench is closed. Who is not root has none.
func (b *bench) mountXFS(ctx context.Context) (string, error) {
	if os.Geteuid() != 0 {
		return "", nil
	}
	image, at := filepath.Join(b.dir, "xfs.img"), filepath.Join(b.dir, "xfs")
	err := errors.Join(os.Mkdir(at, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 6*b.size+1<<30))
	if err == nil {
		err = runQuietly(exec.CommandContext(ctx, "mkfs.xfs", "-q", "-m", "reflink=1", image))
	}
	if err == nil {
		err = runQuietly(exec.CommandContext(ctx, "mount", "-o", "loop", image, at))
	}
	if err == nil {
		b.unmount = func() error { return runQuietly(exec.Command("umount", at)) }
	}
	return at, err
}

// makeImage makes a layout with one image of random layers.
func makeImage(ctx context.Context, dir string, layers int, size int64) (err error) {
	to, err := source.ToLayout(dir, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	m := v1.Manifest{MediaType: manifestType}
	m.SchemaVersion = 2
	config := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, RootFS: v1.RootFS{Type: "layers"}}
	for i := range layers {
		layer, err := putLayer(ctx, to, byte(i), size/int64(layers))
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, layer)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.Digest)
	}
	if m.Config, err = putJSON(ctx, to, v1.MediaTypeImageConfig, config); err != nil {
		return err
	}
	root, err := putJSON(ctx, to, manifestType, m)
	if err != nil {
		return err
	}
	return to.Commit(ctx, root)
}

func putLayer(ctx context.Context, to source.Destination, seed byte, size int64) (v1.Descriptor, error) {
	layer := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size) }
	sum := digest.SHA256.Digester()
	if _, err := io.Copy(sum.Hash(), layer()); err != nil {
		return v1.Descriptor{}, err
	}
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: sum.Digest(), Size: size}
	return desc, to.Put(ctx, desc, layer())
}

func putJSON(ctx context.Context, to source.Destination, mediaType string, v any) (v1.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	desc := manifest.Descriptor(mediaType, raw)
	return desc, to.Put(ctx, desc, bytes.NewReader(raw))
}
