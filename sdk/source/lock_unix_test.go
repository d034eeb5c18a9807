//go:build unix

package source_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/berthoci/berth/sdk/source"
)

// Another process that commits to the layout is waited for.
func TestToLayoutWaitsForTheLockOfAnotherProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	save(t, toLayout(t, dir, "v1"), "one")
	held, err := os.Open(dir)
	must(t, err)
	defer held.Close()
	must(t, unix.Flock(int(held.Fd()), unix.LOCK_EX))
	to := toLayout(t, dir, "v2")
	root := store(t, to, "two")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := to.Commit(ctx, root); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another one has the lock: %v", err)
	}
	if names := namesOf(t, dir); len(names) != 1 {
		t.Errorf("got the names %q", names)
	}
	must(t, held.Close())
	must(t, to.Commit(t.Context(), root))
	must(t, to.Close())
	if names := namesOf(t, dir); len(names) != 2 {
		t.Errorf("got the names %q", names)
	}
}

// What a writer that was killed has left goes when the next one comes; what another one is writing stays.
func TestTheNextWriterRemovesWhatADeadOneLeft(t *testing.T) {
	dir := t.TempDir()
	layout, archive := filepath.Join(dir, "layout"), filepath.Join(dir, "image.tar")
	random := rand.Text()
	left := []string{filepath.Join(layout, ".partial-"+random, "blob"), filepath.Join(dir, ".image.tar."+random)}
	kept := []string{filepath.Join(layout, ".partial-by-hand"), filepath.Join(dir, ".image.tar.old"), filepath.Join(dir, ".other.tar."+random),
		filepath.Join(layout, ".partial-"+rand.Text()), filepath.Join(dir, ".image.tar."+rand.Text(), "of another kind"),
		filepath.Join(dir, ".image.tar.2024-01-01T00:00:00.000000")}
	for _, name := range slices.Concat(left, kept) {
		write(t, name, "half of an image")
	}
	living := []source.Destination{toLayout(t, layout, "v1"), toArchive(t, archive)}
	roots := []v1.Descriptor{store(t, living[0], "one"), store(t, living[1], "one")}
	age(t, dir)
	must(t, toLayout(t, layout, "v2").Close())
	must(t, toArchive(t, archive).Close())
	for _, name := range left {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	for _, name := range kept {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	for i, to := range living {
		must(t, to.Commit(t.Context(), roots[i]))
		must(t, to.Close())
	}
}

// age makes all files of a directory a day old.
func age(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-24 * time.Hour)
	must(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(name, old, old))
	}))
}
