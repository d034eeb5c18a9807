//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/berthoci/berth/internal/e2e/systrace"
)

// tracedSize is what is pulled under strace, in MiB.
const tracedSize = 64

// proveSendfile pulls a blob from a berth under strace, and prints by which calls it was sent.
func (b *bench) proveSendfile(ctx context.Context, out io.Writer) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		fmt.Fprintf(out, "\nstrace is not installed, which would show by which calls a blob is sent; it is in the Debian package %s\n", systrace.Package)
		return nil
	}
	counts, err := b.trace(ctx, strace)
	if err != nil {
		return fmt.Errorf("a pull under strace: %w", err)
	}
	sent, written := counts[systrace.Sendfile], counts["write"]
	fmt.Fprintf(out, "\na pull of %d MiB: sendfile sent %d bytes in %d calls; write wrote %d in %d\n",
		tracedSize, sent.Bytes, sent.Calls, written.Bytes, written.Calls)
	if sent.Bytes < tracedSize<<20-written.Bytes {
		return fmt.Errorf("not all of a blob of %d bytes was sent by sendfile", tracedSize<<20)
	}
	return nil
}

// trace stores a blob in a layout, and then pulls it from a process that is traced.
func (b *bench) trace(ctx context.Context, strace string) (map[string]systrace.Count, error) {
	small := bench{settings: settings{size: tracedSize << 20}}
	blob := small.bigBlob()
	all, err := b.launchAll(ctx, berth)
	if err != nil {
		return nil, err
	}
	dir, err := all[0].dir, all[0].alone(func(c *conn) error { return c.pushBlob(bigRepository, blob) })
	all[0].stop()
	defer os.RemoveAll(dir)
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd, err := b.command(berth, dir, address)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(b.dir, "strace")
	traced := exec.Command(strace, append(systrace.Args(file), cmd.Args...)...)
	s, err := b.launch(ctx, &server{name: "berth under strace", dir: dir, address: address, cmd: traced})
	if err != nil {
		return nil, err
	}
	err = s.alone(func(c *conn) error {
		_, err := c.want(200, request{method: "GET", path: blobPath(bigRepository, blob.digest)})
		return err
	})
	s.stop()
	if err != nil {
		return nil, err
	}
	return systrace.Read(file)
}
