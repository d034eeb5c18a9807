package ocilayout

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/internal/durable"
)

// These name a layout to the test binary when it is started as another program.
const (
	childVariable   = "BERTH_TEST_LAYOUT"
	memoryVariable  = "BERTH_TEST_MEMORY"
	pushingVariable = "BERTH_TEST_PUSHING"
)

// The test binary is also a program that pushes an image and a loose blob, says so, and waits to be
// killed; one that pushes until it is killed; and one that tells how much memory a layout takes.
func TestMain(m *testing.M) {
	for variable, work := range map[string]func(string) error{childVariable: pushAndWait, memoryVariable: tellMemory, pushingVariable: pushWithoutEnd} {
		if dir := os.Getenv(variable); dir != "" {
			if err := work(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// tellMemory prints the anonymous memory, in KiB, of this process after it has worked on a layout.
func tellMemory(dir string) error {
	ctx := context.Background()
	l, err := Open(ctx, dir, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	r, err := l.Repository("app/tagged")
	if err != nil {
		return err
	}
	for i := range 100 {
		if err := pushSmall(ctx, r, fmt.Sprint("memory", i)); err != nil {
			return err
		}
		if err := l.Flush(ctx); i%10 == 0 && err != nil {
			return err
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, after, _ := strings.Cut(string(status), "RssAnon:")
	fmt.Println(strings.Fields(after)[0])
	return nil
}

func pushAndWait(dir string) error {
	ctx := context.Background()
	l, err := Open(ctx, dir, nil)
	if err != nil {
		return err
	}
	r, err := l.Repository("app/hello")
	if err != nil {
		return err
	}
	if err := pushSmall(ctx, r, "v1"); err != nil {
		return err
	}
	up, err := r.NewUpload(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := up.Write([]byte("loose")); err != nil {
		return err
	}
	if _, err := up.Commit(ctx, digest.FromString("loose")); err != nil {
		return err
	}
	fmt.Println("pushed")
	select {}
}

// startChild runs this program once more, as what a variable makes of it, on a layout.
func startChild(t *testing.T, variable, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// kill runs the program above on a layout and kills it when it has pushed.
func kill(t *testing.T, dir string) {
	t.Helper()
	cmd, out := startChild(t, childVariable, dir)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "pushed\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
}

func TestAKilledProcessLosesNothing(t *testing.T) {
	dir := t.TempDir()
	kill(t, dir)
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	if _, err := r.FetchManifest(t.Context(), "v1", nil); err != nil {
		t.Error(err)
	}
	if _, err := r.StatBlob(t.Context(), digest.FromString("loose")); err != nil {
		t.Errorf("a blob that no manifest names: %v", err)
	}
	flush(t, l)
	wantNames(t, dir, "app/hello:v1")
}

// Under another boot id the same directory is one that the power was cut from.
func TestAfterAPowerCutTheIndexIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	kill(t, dir)
	t.Setenv(control.BootVariable, "another")
	r := repo(t, open(t, dir), "app/hello")
	if _, err := r.StatBlob(t.Context(), digest.FromString("loose")); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("the old index is believed: %v", err)
	}
}

func TestWhatWasFlushedOutlivesThePower(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	before := pushImage(t, r, "before", "v1")
	flush(t, l)
	loose := uploadBlob(t, r, "loose")
	after := open(t, crash(t, dir))
	wantImage(t, after, "app/hello", "v1", before)
	if _, err := repo(t, after, "app/hello").StatBlob(t.Context(), loose.Digest); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("a blob that no manifest names: %v", err)
	}
}

// The power may go when the next index.json is written and not yet in place: what it names is not flushed.
func TestAnIndexThatWasNeverInPlaceIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	before := pushImage(t, r, "before", "v1")
	flush(t, l)
	copied := crash(t, dir)
	for i := range 5 {
		pushImage(t, r, fmt.Sprint("after", i), "v2")
	}
	flush(t, l)
	next, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(copied, ingestPath, indexPrefix+"NEXT"), next, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	survivor := open(t, copied)
	wantImage(t, survivor, "app/hello", "v1", before)
	flush(t, survivor)
	wantNames(t, copied, "app/hello:v1")
}

// After a power cut a file may have any content, whatever its size says.
func TestABlobIsHashedBeforeItIsBelievedAgain(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app/hello"), "the layer", "v1")
	flush(t, l)
	copied := crash(t, dir)
	if err := os.WriteFile(filepath.Join(copied, blobPath(img.layer.Digest)), []byte("THE layer"), 0o644); err != nil {
		t.Fatal(err)
	}
	after := open(t, copied)
	r := repo(t, after, "app/hello")
	if _, err := r.StatBlob(t.Context(), img.layer.Digest); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("the damaged blob is vouched for: %v", err)
	}
	if _, err := r.NewUpload(t.Context(), &berth.UploadOptions{Mount: img.layer.Digest, From: "app/hello"}); err != nil {
		t.Errorf("the damaged blob was mounted: %v", err)
	}
	uploadBlob(t, r, "the layer")
	wantImage(t, after, "app/hello", "v1", img)
}

func TestALayoutThatWasClosedCanBeCopied(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	img, loose := pushImage(t, r, "layer", "v1"), uploadBlob(t, r, "loose")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	copied := open(t, crash(t, dir))
	wantImage(t, copied, "app/hello", "v1", img)
	wantBlob(t, repo(t, copied, "app/hello"), loose)
}

func TestPowerModeKeepsTheIndexOverAPowerCut(t *testing.T) {
	dir := t.TempDir()
	l := openWith(t, dir, &Options{Durability: Power})
	loose := uploadBlob(t, repo(t, l, "app/hello"), "loose")
	for _, d := range []Durability{Power, Process} {
		after := openWith(t, crash(t, dir), &Options{Durability: d})
		wantBlob(t, repo(t, after, "app/hello"), loose)
	}
}

func TestDurabilityRises(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	before := uploadBlob(t, r, "before")
	if err := l.Raise(t.Context(), Power); err != nil {
		t.Fatal(err)
	}
	if err := l.Raise(t.Context(), Process); err != nil || l.Durability() != Power {
		t.Errorf("it fell to %v, %v", l.Durability(), err)
	}
	after := uploadBlob(t, r, "after")
	survivor := repo(t, open(t, crash(t, dir)), "app/hello")
	wantBlob(t, survivor, before)
	wantBlob(t, survivor, after)
}

// A layout of process mode that was left by a killed process is opened in power mode: what it holds
// has that promise as well.
func TestPowerModeTakesOverWhatWasLeft(t *testing.T) {
	dir := t.TempDir()
	kill(t, dir)
	l := openWith(t, dir, &Options{Durability: Power})
	uploadBlob(t, repo(t, l, "app/hello"), "more")
	survivor := repo(t, open(t, crash(t, dir)), "app/hello")
	if _, err := survivor.StatBlob(t.Context(), digest.FromString("loose")); err != nil {
		t.Error(err)
	}
}

func TestParseDurability(t *testing.T) {
	for _, d := range []Durability{Process, Power} {
		if got, err := ParseDurability(d.String()); err != nil || got != d {
			t.Errorf("%s: got %v, %v", d, got, err)
		}
	}
	if _, err := ParseDurability("fast"); err == nil {
		t.Error(`"fast" is taken`)
	}
}

func TestRebuildOnRequest(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantImage(t, openWith(t, dir, &Options{Rebuild: true}), "app/hello", "v1", img)
}

func TestALayoutThatIsRenamedWhileOpen(t *testing.T) {
	parent := t.TempDir()
	old, renamed := filepath.Join(parent, "old"), filepath.Join(parent, "renamed")
	l := open(t, old)
	r := repo(t, l, "app/hello")
	first := pushImage(t, r, "first", "v1")
	if err := os.Rename(old, renamed); err != nil {
		t.Skip("an open directory cannot be renamed here:", err)
	}
	second := pushImage(t, r, "second", "v2")
	flush(t, l)
	wantNames(t, renamed, "app/hello:v1", "app/hello:v2")
	if _, err := os.Stat(old); err == nil {
		t.Error("the old directory has come back")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, renamed)
	wantImage(t, again, "app/hello", "v1", first)
	wantImage(t, again, "app/hello", "v2", second)
}

// The system reports a failed write once, and drops the bytes: flushing them again would mean nothing.
func TestWhatCouldNotBeFlushedIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	l, faults := openFaulty(t, dir, Process)
	img := pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	path := filepath.Join(dir, blobPath(img.layer.Digest))
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpSync && name == blobPath(img.layer.Digest) {
			return syscall.EIO
		}
		return nil
	})
	if err := l.Flush(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a flush that fails: %v", err)
	}
	faults.clear()
	flush(t, l)
	after, err := os.Stat(path)
	if err != nil || os.SameFile(before, after) {
		t.Errorf("the file is the same: %v", err)
	}
	wantImage(t, l, "app/hello", "v1", img)
}

// A flush that comes between a blob's bytes and its name does not take it for flushed.
func TestAFlushBeforeABlobHasItsName(t *testing.T) {
	l, faults := openFaulty(t, t.TempDir(), Process)
	r := repo(t, l, "app/hello")
	pushImage(t, r, "first", "v1")
	flush(t, l)
	d := digest.FromString("layer")
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpRename && name == blobPath(d) {
			return l.flushBlobs()
		}
		return nil
	})
	uploadBlob(t, r, "layer")
	var flushed atomic.Bool
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpSync && (name == blobPath(d) || name == ".") {
			flushed.Store(true)
		}
		return nil
	})
	flush(t, l)
	faults.clear()
	if !flushed.Load() {
		t.Error("the blob was never flushed")
	}
}
