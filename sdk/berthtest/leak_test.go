package berthtest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk/berthtest"
)

// stacks are those of all goroutines.
func stacks() []string {
	buf := make([]byte, 64<<20)
	return strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
}

// running counts the goroutines that are in a function.
func running(name string) (n int) {
	for _, stack := range stacks() {
		if strings.Contains(stack, name+"(") {
			n++
		}
	}
	return n
}

// openFiles are what this process has open, by number. None are known elsewhere than on Linux.
func openFiles() map[string]string {
	found := map[string]string{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			found[e.Name()] = target
		}
	}
	return found
}

// children are the processes that this one has started. None are known elsewhere than on Linux.
func children() (all []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		stat, _ := os.ReadFile(file)
		// PID (NAME) STATE PARENT …
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 && fields[1] == fmt.Sprint(os.Getpid()) {
			all = append(all, string(stat))
		}
	}
	return all
}

// inParallel opens many registries at once, with an image in each, and closes them.
func inParallel(t *testing.T, n int, opts *berthtest.Options) {
	t.Helper()
	registries := make([]*berthtest.Registry, n)
	for i := range registries {
		registries[i] = berthtest.NewWith(t, opts)
	}
	images, hosts := client("", ""), map[string]bool{}
	for _, registry := range registries {
		want := registry.PushImage("app:v1", nil)
		if got, err := images.Resolve(t.Context(), registry.Host()+"/app:v1"); err != nil || got.Digest != want.Digest {
			t.Fatalf("got %v, %v, want %v", got, err, want)
		}
		hosts[registry.Host()] = true
	}
	if len(hosts) != n {
		t.Errorf("%d registries have %d addresses", n, len(hosts))
	}
}

// Registries leave nothing behind: no goroutine, no open file, no process and no file on the disk.
func TestNothingIsLeft(t *testing.T) {
	many := 300
	if testing.Short() {
		many = 30
	}
	for what, c := range map[string]struct {
		registries int
		opts       *berthtest.Options
	}{
		"in process":   {many, nil},
		"real plugins": {5, &berthtest.Options{Launcher: host.Self()}},
	} {
		t.Run(what, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			goroutines, files := runtime.NumGoroutine(), openFiles()
			t.Run("all", func(t *testing.T) { inParallel(t, c.registries, c.opts) })
			eventuallyGone(t, "goroutines", func() (more int, left any) { return runtime.NumGoroutine() - goroutines, stacks() })
			eventuallyGone(t, "open files", func() (int, any) { now := openFiles(); return len(now) - len(files), now })
			eventuallyGone(t, "processes", func() (int, any) { now := children(); return len(now), now })
			entries, err := os.ReadDir(temp)
			if err != nil || len(entries) > 0 {
				t.Errorf("in the temporary directory are %v, %v", entries, err)
			}
		})
	}
}

// eventuallyGone waits until there are no more than before, and tells what is left.
func eventuallyGone(t *testing.T, what string, look func() (more int, left any)) {
	t.Helper()
	const looks = 500
	for range looks {
		if more, _ := look(); more <= 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	more, left := look()
	t.Errorf("%d more %s than before: %s", more, what, left)
}
