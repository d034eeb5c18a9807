package ocilayout

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// These are about flushes that fail.

// A Raise that fails at its last step (the flush of .berth/ after the epoch's rename) promises nothing: the
// layout goes on in process mode, and the next start knows.
func TestARaiseThatFails(t *testing.T) {
	dir := t.TempDir()
	l, faults := openFaulty(t, dir, Process)
	r := repo(t, l, "app")
	pushImage(t, r, "first", "v1")
	flush(t, l)
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpSyncDir && name == ".berth" {
			return &durable.Late{Err: syscall.EIO}
		}
		return nil
	})
	if err := l.Raise(t.Context(), Power); !errors.Is(err, syscall.EIO) {
		t.Fatalf("raise: %v", err)
	}
	faults.clear()
	if l.Durability() != Process {
		t.Fatal("it is power")
	}
	layer := strings.Repeat("x", 100<<10)
	pushImage(t, r, layer, "v2") // answered without waiting for the disk
	d := digest.FromString(layer)
	cut := crash(t, dir)
	// The power is cut: of the layer only the length had reached the disk.
	if err := os.WriteFile(filepath.Join(cut, blobPath(d)), make([]byte, len(layer)), 0o644); err != nil {
		t.Fatal(err)
	}
	again := repo(t, open(t, cut), "app")
	b, err := again.OpenBlob(t.Context(), d)
	if err != nil {
		return // unknown: right
	}
	defer b.Close()
	got, _ := io.ReadAll(b)
	if !bytes.Equal(got, []byte(layer)) {
		t.Errorf("corrupt bytes are served: %d bytes of %q...", len(got), got[:4])
	}
}

// The flush of a blob fails, and the system drops the page: what is read back is what the disk has. The
// second flush sees that the bytes are wrong, and the blob is unknown.
func TestBytesThatAreLostAreNotServed(t *testing.T) {
	dir := t.TempDir()
	l, faults := openFaulty(t, dir, Process)
	r := repo(t, l, "app")
	layer := strings.Repeat("x", 100<<10)
	pushImage(t, r, layer, "v1")
	d := digest.FromString(layer)
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpSync && (name == blobPath(d) || name == ".") {
			return syscall.EIO
		}
		return nil
	})
	if err := l.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, blobPath(d)), make([]byte, len(layer)), 0o644); err != nil {
		t.Fatal(err)
	}
	faults.clear()
	if err := l.Flush(t.Context()); err != nil {
		return // it says so
	}
	b, err := r.OpenBlob(t.Context(), d)
	if err != nil {
		return // unknown: it is to be pushed again
	}
	defer b.Close()
	if got, _ := io.ReadAll(b); string(got) != layer {
		t.Errorf("the flush succeeds, index.json is written, and corrupt bytes are served without a word")
	}
}

// What an earlier process left is flushed as a whole. Where that fails, all is flushed file by file, and
// where that fails for one file, the next attempt writes that file anew.
func TestAFileThatAnEarlierProcessLeftIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	kill(t, dir) // one push, nothing flushed for sure
	files, _ := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	name := "blobs/sha256/" + filepath.Base(files[0])
	before, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	l, err := Open(t.Context(), dir, &Options{fault: func(op durable.Op, n string) error {
		if op == durable.OpSync && (n == "." || n == name) && failed < 2 {
			failed++
			return syscall.EIO
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 {
		err = l.Flush(t.Context())
	}
	after, statErr := os.Stat(files[0])
	if failed == 2 && err == nil && statErr == nil && os.SameFile(before, after) {
		t.Errorf("the flush of %s failed with EIO, and the next says that it is on disk; it was not written anew", name)
	}
}

// The names were exchanged, and could not be flushed. The next flush does.
func TestAnExchangeThatWasNotFlushed(t *testing.T) {
	dir := t.TempDir()
	l, faults := openFaulty(t, dir, Process)
	r := repo(t, l, "app")
	pushImage(t, r, "one", "v1")
	flush(t, l)
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpSyncDir && name == "." {
			return syscall.EIO
		}
		return nil
	})
	pushImage(t, r, "two", "v2")
	if err := l.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	synced := 0
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpSyncDir && name == "." {
			synced++
		}
		return nil
	})
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	faults.clear()
	if synced == 0 {
		t.Error("the second flush succeeds, and never flushed the directory of index.json")
	}
}

// A new folder of blobs/ whose name could not be flushed is flushed by the retry.
func TestAFolderThatWasNotFlushed(t *testing.T) {
	dir := t.TempDir()
	l, faults := openFaulty(t, dir, Power)
	r := repo(t, l, "app")
	failing, synced := true, 0
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpSyncDir && name == "blobs" {
			if failing {
				return syscall.EIO
			}
			synced++
		}
		return nil
	})
	push := func() error {
		up, err := r.NewUpload(t.Context(), &berth.UploadOptions{Algorithm: digest.SHA512})
		if err != nil {
			return err
		}
		up.Write([]byte("x"))
		_, err = up.Commit(t.Context(), digest.SHA512.FromString("x"))
		return err
	}
	if err := push(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	failing = false
	if err := push(); err != nil {
		t.Fatal(err)
	}
	faults.clear()
	if synced == 0 {
		t.Error("answered in power mode, and the name blobs/sha512 was never flushed")
	}
}
