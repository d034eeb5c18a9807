//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The rows of the table.
const (
	rowStart = 1 + iota
	rowPush
	rowPull
	rowSmall
	rowManifest
	rowHead
	rowTag
	rowList
	rowRestart
	rowMemory
	rowImage
	rowSync
)

// figure is what one server shows of one thing.
type figure struct{ what, server string }

// bench is one run.
type bench struct {
	settings
	dir         string // of all that is written, on the disk that is meant
	figures     map[figure][]float64
	watching    watcher
	disks       []disk       // that images are pushed on, once they are there
	unmount     func() error // nil: nothing is mounted
	synced      *synced      // nil: it is not made yet
	tokenServer *tokenServer // nil: it is not started yet
}

func newBench(ctx context.Context, s settings) (*bench, error) {
	out, err := filepath.Abs(s.out)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(out, "peers-")
	if err != nil {
		return nil, err
	}
	b := &bench{settings: s, dir: dir, figures: map[figure][]float64{}}
	if err := b.build(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() error {
	if b.tokenServer != nil {
		b.tokenServer.close()
	}
	if b.unmount != nil {
		if err := b.unmount(); err != nil {
			return err
		}
	}
	return os.RemoveAll(b.dir)
}

// peers are built of this module; berth, in its own, with what it is released with, and as make build does it.
var peers = []string{
	"github.com/distribution/distribution/v3/cmd/registry",
	"github.com/google/go-containerregistry/cmd/crane",
	"github.com/regclient/regclient/cmd/regsync",
}

func (b *bench) build(ctx context.Context) error {
	make := exec.CommandContext(ctx, "make", "build", "buildtool", "BIN="+b.dir+"/bin")
	make.Dir = filepath.Join("..", "..")
	if err := runQuietly(make); err != nil {
		return err
	}
	return runQuietly(exec.CommandContext(ctx, "go", append([]string{"build", "-o", b.dir + "/bin/"}, peers...)...))
}

func runQuietly(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

func (b *bench) add(what, server string, value float64) {
	b.figures[figure{what, server}] = append(b.figures[figure{what, server}], value)
}

// value is the median of a figure. It reports whether there is one.
func (b *bench) value(f figure) (float64, bool) {
	all := slices.Sorted(slices.Values(b.figures[f]))
	if len(all) == 0 {
		return 0, false
	}
	if middle := len(all) / 2; len(all)%2 == 1 {
		return all[middle], true
	} else {
		return (all[middle-1] + all[middle]) / 2, true
	}
}

// stretch is a part of a round, of rows that the same servers can show.
type stretch struct {
	rows []int
	do   func(*bench, context.Context, int) error
}

var stretches = []stretch{
	{[]int{rowStart, rowRestart}, (*bench).starts},
	{[]int{rowPush, rowPull, rowHead}, (*bench).big},
	{[]int{rowSmall}, (*bench).small},
	{[]int{rowTag}, (*bench).fewTags},
	{[]int{rowImage}, (*bench).layouts},
	{[]int{rowSync}, (*bench).syncs},
}

func (b *bench) measure(ctx context.Context) error {
	for round := range b.rounds {
		for _, s := range stretches {
			if !b.wants(s.rows...) {
				continue
			}
			if err := s.do(b, ctx, round); err != nil {
				return err
			}
		}
	}
	if b.wants(rowManifest, rowTag, rowList, rowRestart) {
		if err := b.manyTags(ctx); err != nil {
			return err
		}
	}
	if b.tags > 0 && b.wants(rowTag) {
		return b.tagsAt(ctx, b.tags)
	}
	return nil
}

// inTurn calls each of some servers, in an order that changes with the round, on a disk that has nothing
// left to write of the one before.
func inTurn(servers []*server, round int, do func(*server) error) error {
	for i := range servers {
		syscall.Sync()
		s := servers[(i+round)%len(servers)]
		if err := do(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// seconds is how long something took.
func seconds(do func() error) (float64, error) {
	begin := time.Now()
	err := do()
	return time.Since(begin).Seconds(), err
}
