package source

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/internal/durable"
)

var errDisk = errors.New("the disk is full")

// failing makes the n-th step of a writer fail, counted from one, and tells whether it came to that.
func failing(to Destination, n int) (failed *bool) {
	failed = new(bool)
	fault := func(durable.Op, string) error {
		if n--; n != 0 {
			return nil
		}
		*failed = true
		return errDisk
	}
	switch w := to.(type) {
	case *layoutWriter:
		w.dir.Fault = fault
	case *archiveWriter:
		w.dir.Fault = fault
	}
	return failed
}

// put brings an image of one blob, which is its own root, to a place.
func put(t *testing.T, to Destination, content string) (v1.Descriptor, error) {
	t.Helper()
	root := v1.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	err := to.Put(t.Context(), root, strings.NewReader(content))
	if err == nil {
		err = to.Commit(t.Context(), root)
	}
	return root, errors.Join(err, to.Close())
}

// At whatever step a write fails, the place holds the image of before or that of after, whole.
func TestAWriteThatFailsAtAnyStep(t *testing.T) {
	for form, c := range map[string]struct {
		to   func(path, name string) (Destination, error)
		from func(path, name string) Source
	}{"layout": {ToLayout, Layout}, "archive": {ToArchive, Archive}} {
		t.Run(form, func(t *testing.T) {
			for step := 1; ; step++ {
				path := filepath.Join(t.TempDir(), "place")
				first, err := c.to(path, "v1")
				if err != nil {
					t.Fatal(err)
				}
				before, err := put(t, first, "before")
				if err != nil {
					t.Fatal(err)
				}
				second, err := c.to(path, "v1")
				if err != nil {
					t.Fatal(err)
				}
				failed := failing(second, step)
				after, err := put(t, second, "after")
				if errors.Is(err, errDisk) != *failed {
					t.Errorf("step %d failed: %v, the error is %v", step, *failed, err)
				}
				checkWhole(t, c.from(path, "v1"), before, after)
				checkAlone(t, path)
				if !*failed {
					return
				}
			}
		})
	}
}

func checkWhole(t *testing.T, from Source, either ...v1.Descriptor) {
	t.Helper()
	defer from.Close()
	root, err := from.Root(t.Context())
	if err != nil || (root.Digest != either[0].Digest && root.Digest != either[1].Digest) {
		t.Fatalf("the root is %v, %v", root.Digest, err)
	}
	content, err := from.Fetch(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	content.Close()
}

// checkAlone makes sure that nothing unfinished is left beside or within a place.
func checkAlone(t *testing.T, path string) {
	t.Helper()
	for _, pattern := range []string{filepath.Join(filepath.Dir(path), ".*"), filepath.Join(path, ".*")} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}
