package ocilayout

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
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

// smallParts are the three files of a small image, which no two have in common.
func smallParts() (layer, config []byte, raw func() []byte) {
	layer, config = make([]byte, 2048), make([]byte, 512)
	rand.Read(layer)
	rand.Read(config)
	return layer, config, func() []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
			v1.MediaTypeImageManifest, v1.MediaTypeImageConfig, digest.FromBytes(config), len(config), v1.MediaTypeImageLayer, digest.FromBytes(layer), len(layer))
	}
}

func pushSmall(ctx context.Context, r berth.Repository, tag string) error {
	layer, config, raw := smallParts()
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
	layer, config, raw := smallParts()
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
//
// All files stay until the last of them: ext4 does not give away at once what was just freed, and looks for
// longer the more of it there is, which slows the one that comes next.
func BenchmarkSmallImages(b *testing.B) {
	dir := scratch(b)
	for _, mode := range []Durability{Process, Power} {
		for _, c := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/c=%d", mode, c), func(b *testing.B) { benchSmallImages(b, dir, mode, c) })
		}
	}
}

func benchSmallImages(b *testing.B, dir string, mode Durability, c int) {
	n := map[Durability]int{Process: 2000, Power: 400}[mode]
	dir, err := os.MkdirTemp(dir, "")
	if err != nil {
		b.Fatal(err)
	}
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

// BenchmarkIngest stores a blob of 1 GiB. The floor is SHA-256 of the same bytes on one core. Beside it
// stands what it takes to write them to a file and no more: a virtual machine may have to ask its host
// for each page of memory that the file takes, and then that is what bounds a push.
func BenchmarkIngest(b *testing.B) {
	content := make([]byte, ingestStep)
	rand.Read(content)
	want, _ := hashRepeated(content)
	for _, mode := range []Durability{Process, Power} {
		b.Run(mode.String(), func(b *testing.B) {
			dir := scratch(b)
			l := openBench(b, filepath.Join(dir, "layout"), mode)
			r, err := l.Repository("app/big")
			if err != nil {
				b.Fatal(err)
			}
			var bare []time.Duration
			compare(b, func() time.Duration {
				bare = append(bare, writeRepeated(b, filepath.Join(dir, "bare"), content, mode == Power))
				took := ingest(b, r, content, want)
				forgetAll(b, l, r, want)
				return took
			}, func() time.Duration {
				_, took := hashRepeated(content)
				return took
			})
			b.ReportMetric(float64(median(bare).Microseconds())/1000, "write-ms")
		})
	}
}

const (
	ingestSize = 1 << 30
	ingestStep = 1 << 20
)

func ingest(b *testing.B, r berth.Repository, content []byte, want digest.Digest) time.Duration {
	b.Helper()
	start := time.Now()
	up, err := r.NewUpload(b.Context(), nil)
	if err == nil {
		_, err = io.Copy(up, &repeated{content, ingestSize})
	}
	if err == nil {
		_, err = up.Commit(b.Context(), want)
	}
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

func hashRepeated(content []byte) (digest.Digest, time.Duration) {
	start, d := time.Now(), digest.SHA256.Digester()
	for range ingestSize / ingestStep {
		d.Hash().Write(content)
	}
	return d.Digest(), time.Since(start)
}

func writeRepeated(b *testing.B, name string, content []byte, flush bool) time.Duration {
	b.Helper()
	start := time.Now()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer os.Remove(name)
	defer f.Close()
	for range ingestSize / ingestStep {
		if _, err := f.Write(content); err != nil {
			b.Fatal(err)
		}
	}
	if flush {
		err = f.Sync()
	}
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// repeated reads the same bytes until so many were read.
type repeated struct {
	content []byte
	left    int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.content[len(r.content)-1-(r.left-1)%len(r.content):])
	r.left -= n
	return n, nil
}

// forgetAll removes a blob, so that the next round stores it anew on an even disk.
func forgetAll(b *testing.B, l *Layout, r berth.Repository, d digest.Digest) {
	b.Helper()
	if err := r.DeleteBlob(b.Context(), d); err != nil {
		b.Fatal(err)
	}
	if err := l.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := l.GC(b.Context(), &berth.GCOptions{Grace: -1}); err != nil {
		b.Fatal(err)
	}
	if err := l.dir.SyncAll(); err != nil && !errors.Is(err, durable.ErrNoSyncAll) {
		b.Fatal(err)
	}
}

// tagged is a layout with so many tags, all of one small image.
func tagged(b *testing.B, dir string, n int) {
	b.Helper()
	l, err := Open(b.Context(), dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	r, err := l.Repository("app/tagged")
	if err != nil {
		b.Fatal(err)
	}
	if err := pushSmall(b.Context(), r, "first"); err != nil {
		b.Fatal(err)
	}
	m, err := r.FetchManifest(b.Context(), "first", nil)
	if err != nil {
		b.Fatal(err)
	}
	for begin := 0; begin < n; begin += 1000 {
		var tags []string
		for i := begin; i < min(n, begin+1000); i++ {
			tags = append(tags, fmt.Sprintf("v%07d", i))
		}
		if _, err := r.PushManifest(b.Context(), m.Raw, &berth.PushOptions{Tags: tags}); err != nil {
			b.Fatal(err)
		}
	}
}

// sizes are the numbers of tags that are compared; the floor is the first.
var sizes = []int{100, 10_000, 100_000}

// BenchmarkTags does the same at some numbers of tags. The floor is what it costs at 100.
func BenchmarkTags(b *testing.B) {
	dir := scratch(b)
	layouts := map[int]*Layout{}
	for _, n := range sizes {
		path := filepath.Join(dir, fmt.Sprint(n))
		tagged(b, path, n)
		layouts[n] = openBench(b, path, Process)
	}
	number := 0
	works := map[string]func(berth.Repository) error{
		"push": func(r berth.Repository) error {
			number++
			return pushSmall(b.Context(), r, fmt.Sprintf("more%d", number))
		},
		"resolve": func(r berth.Repository) error {
			_, err := r.Resolve(b.Context(), "v0000050")
			return err
		},
		"page": func(r berth.Repository) error {
			left := 100
			for _, err := range r.Tags(b.Context(), "v0000000") {
				if left--; err != nil || left == 0 {
					return err
				}
			}
			return nil
		},
	}
	for name, times := range map[string]int{"push": 10_000, "resolve": 1000, "page": 1000} {
		for _, n := range sizes[1:] {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				compare(b, func() time.Duration { return repeat(b, layouts[n], times, works[name]) },
					func() time.Duration { return repeat(b, layouts[sizes[0]], times, works[name]) })
			})
		}
	}
}

// repeat does the same many times: for long enough that pushes meet the writing of index.json.
func repeat(b *testing.B, l *Layout, n int, work func(berth.Repository) error) time.Duration {
	b.Helper()
	r, err := l.Repository("app/tagged")
	if err != nil {
		b.Fatal(err)
	}
	return concurrently(b, 1, n, func(int) error { return work(r) })
}

// BenchmarkMemory tells the anonymous memory of a process that has a layout of 100 000 tags open, has
// pushed into it and published index.json.
func BenchmarkMemory(b *testing.B) {
	dir := filepath.Join(scratch(b), "layout")
	tagged(b, dir, 100_000)
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), memoryVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	var kib float64
	if _, err := fmt.Sscan(string(out), &kib); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(kib/1024, "RssAnon-MiB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkGC collects a layout of 100 000 manifests, a tenth of which are deleted. The floor is
// looking at each of its files once.
func BenchmarkGC(b *testing.B) {
	const n = 100_000
	dir := filepath.Join(scratch(b), "layout")
	l := openBench(b, dir, Process)
	r, err := l.Repository("app/many")
	if err != nil {
		b.Fatal(err)
	}
	if err := pushSmall(b.Context(), r, "first"); err != nil {
		b.Fatal(err)
	}
	first, err := r.FetchManifest(b.Context(), "first", nil)
	if err != nil {
		b.Fatal(err)
	}
	numbered := func(i int) []byte {
		return bytes.Replace(first.Raw, []byte(`{`), fmt.Appendf(nil, `{"annotations":{"n":"%d"},`, i), 1)
	}
	concurrently(b, 8, n, func(i int) error {
		_, err := r.PushManifest(b.Context(), numbered(i), nil)
		return err
	})
	round := 0
	compare(b, func() time.Duration {
		round++
		for i := round; i < n; i += 10 * rounds {
			if err := r.DeleteManifest(b.Context(), digest.FromBytes(numbered(i))); err != nil {
				b.Fatal(err)
			}
		}
		start := time.Now()
		if _, err := l.GC(b.Context(), &berth.GCOptions{Grace: -1}); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}, func() time.Duration {
		start := time.Now()
		entries, err := os.ReadDir(filepath.Join(dir, "blobs/sha256"))
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range entries {
			if _, err := e.Info(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	})
}

// BenchmarkCommit commits small changes, eight at once. The floor is bbolt's own Batch, with the same
// writes.
func BenchmarkCommit(b *testing.B) {
	const n = 4000
	for _, mode := range []Durability{Process, Power} {
		b.Run(mode.String(), func(b *testing.B) {
			l := openBench(b, filepath.Join(scratch(b), "layout"), mode)
			if err := pushSmall(b.Context(), must(l.Repository("app/first")), "v1"); err != nil {
				b.Fatal(err)
			}
			number := atomic.Int64{}
			write := func(tx *bolt.Tx) error {
				d := digest.FromString(fmt.Sprint(number.Add(1)))
				return errors.Join(put(tx, bucketBlobs, key(string(d)), blobRecord{Size: 1}), addMember(tx, "app/first", d))
			}
			count := n
			if mode == Power {
				count = n / 10
			}
			compare(b, func() time.Duration {
				return concurrently(b, 8, count, func(int) error {
					return l.writer.commit(b.Context(), change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error { return write(tx) }})
				})
			}, func() time.Duration {
				return concurrently(b, 8, count, func(int) error { return l.db.bolt.Batch(write) })
			})
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
