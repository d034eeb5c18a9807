//go:build unix

package source_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
