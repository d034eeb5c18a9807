package ocilayout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/internal/control"
)

// BenchmarkOpenSmall opens what a build tool opens: a layout that is not there yet, one without a tag, and one of
// a thousand. The floor is making the directories and files that a new one consists of, without flushing any.
func BenchmarkOpenSmall(b *testing.B) {
	dir, n := scratch(b), 0
	next := func() string {
		n++
		return filepath.Join(dir, fmt.Sprint("new", n))
	}
	tagged(b, filepath.Join(dir, "empty"), 0)
	tagged(b, filepath.Join(dir, "tags"), 1000)
	for name, layout := range map[string]func() string{
		"new":       next,
		"empty":     func() string { return filepath.Join(dir, "empty") },
		"tags=1000": func() string { return filepath.Join(dir, "tags") },
	} {
		b.Run(name, func(b *testing.B) {
			compare(b, func() time.Duration { return openAndClose(b, layout()) }, func() time.Duration { return bareLayout(b, next()) })
		})
	}
}

// openAndClose returns how long it took to open a layout.
func openAndClose(b *testing.B, dir string) time.Duration {
	start := time.Now()
	l, err := Open(b.Context(), dir, nil)
	took := time.Since(start)
	if err != nil {
		b.Fatal(err)
	}
	l.Close()
	return took
}

// bareLayout makes what a new layout consists of, and returns how long that took.
func bareLayout(b *testing.B, dir string) time.Duration {
	start := time.Now()
	err := errors.Join(os.MkdirAll(filepath.Join(dir, v1.ImageBlobsDir, "sha256"), 0o755), os.MkdirAll(filepath.Join(dir, ingestPath), 0o755))
	for _, name := range []string{v1.ImageLayoutFile, v1.ImageIndexFile, indexPath, control.OwnerFile} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o644))
	}
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// BenchmarkOpen opens a layout that was closed well. The floor is opening one of a hundred tags.
func BenchmarkOpen(b *testing.B) {
	dir := scratch(b)
	for _, n := range sizes {
		tagged(b, filepath.Join(dir, fmt.Sprint(n)), n)
	}
	open := func(n int) func() time.Duration {
		return func() time.Duration { return openAndClose(b, filepath.Join(dir, fmt.Sprint(n))) }
	}
	for _, n := range sizes[1:] {
		b.Run(fmt.Sprint(n), func(b *testing.B) { compare(b, open(n), open(sizes[0])) })
	}
}
