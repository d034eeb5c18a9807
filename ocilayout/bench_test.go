package ocilayout

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// A benchmark here measures the store and its floor in one run, interleaved, and reports the ratio
// of their medians: absolute times mean little on a machine that does other things too.

// rounds is how often each side is measured.
const rounds = 5

// compare reports how fast ours is, as a share of the floor: 1.0 is as fast. Both return how long
// the same work took.
func compare(b *testing.B, ours, floor func() time.Duration) {
	b.Helper()
	var own, least []time.Duration
	for range rounds {
		least = append(least, floor())
		own = append(own, ours())
	}
	b.ReportMetric(float64(median(least))/float64(median(own)), "of-floor")
	b.ReportMetric(float64(median(own).Microseconds())/1000, "ms")
	b.ReportMetric(float64(median(least).Microseconds())/1000, "floor-ms")
	b.ReportMetric(0, "ns/op")
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// scratch is a directory on the disk that the repository is on: a temporary one may be in memory.
func scratch(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp(".", "bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func openBench(b *testing.B, dir string, d Durability) *Layout {
	b.Helper()
	l, err := Open(b.Context(), dir, &Options{Durability: d})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// concurrently runs work n times, c at once, and returns how long that took.
func concurrently(b *testing.B, c, n int, work func(i int) error) time.Duration {
	b.Helper()
	start := time.Now()
	var group sync.WaitGroup
	for w := range c {
		group.Go(func() {
			for i := w; i < n; i += c {
				if err := work(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return time.Since(start)
}

// parts are the three files of a small image, which no two have in common.
func parts3() (layer, config []byte, raw func() []byte) {
	layer, config = make([]byte, 2048), make([]byte, 512)
	rand.Read(layer)
	rand.Read(config)
	return layer, config, func() []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
			v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, digest.FromBytes(config), len(config), v1.MediaTypeImageLayer, digest.FromBytes(layer), len(layer))
	}
}

func pushSmall(ctx context.Context, r berth.Repository, tag string) error {
	layer, config, raw := parts3()
	for _, content := range [][]byte{layer, config} {
		up, err := r.NewUpload(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := up.Write(content); err != nil {
			return err
		}
		if _, err := up.Commit(ctx, digest.FromBytes(content)); err != nil {
			return err
		}
	}
	_, err := r.PushManifest(ctx, raw(), &berth.PushOptions{Tags: []string{tag}})
	return err
}

// bareFiles writes the files of a small image as the barest program would.
func bareFiles(dir string, flush bool) error {
	layer, config, raw := parts3()
	for _, content := range [][]byte{layer, config, raw()} {
		name := hex.EncodeToString([]byte(digest.FromBytes(content).Encoded()))[:64]
		if err := bareFile(filepath.Join(dir, "new"+name), filepath.Join(dir, "done", name), content, flush); err != nil {
			return err
		}
	}
	return nil
}

func bareFile(temp, name string, content []byte, flush bool) error {
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if flush {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return os.Rename(temp, name)
}

// BenchmarkSmallImages pushes images of two small blobs. The floor is a loop that creates, writes and
// renames the same files, and flushes them in power mode.
func BenchmarkSmallImages(b *testing.B) {
	for _, mode := range []Durability{Process, Power} {
		for _, c := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/c=%d", mode, c), func(b *testing.B) { benchSmallImages(b, mode, c) })
		}
	}
}

func benchSmallImages(b *testing.B, mode Durability, c int) {
	n := map[Durability]int{Process: 2000, Power: 400}[mode]
	dir := scratch(b)
	l := openBench(b, filepath.Join(dir, "layout"), mode)
	r, err := l.Repository("app/small")
	if err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "done"), 0o755); err != nil {
		b.Fatal(err)
	}
	pushed := 0
	compare(b, func() time.Duration {
		pushed += n
		return concurrently(b, c, n, func(i int) error { return pushSmall(b.Context(), r, fmt.Sprint("v", pushed+i)) })
	}, func() time.Duration {
		return concurrently(b, c, n, func(int) error { return bareFiles(dir, mode == Power) })
	})
}
