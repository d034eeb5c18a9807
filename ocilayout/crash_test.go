package ocilayout

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// crash returns a copy of a layout as it is at this instant. It lies at another place, so what is
// believed of it is what a power cut leaves; the copy of a layout in power mode has all.
func crash(t *testing.T, dir string) string {
	t.Helper()
	after := t.TempDir()
	if err := os.CopyFS(after, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return after
}

func TestWhatWasAnsweredOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	l := openWith(t, dir, &Options{Durability: Power})
	r := repo(t, l, "app/hello")
	var last image
	for _, tag := range []string{"v1", "v2", "v3"} {
		last = pushImage(t, r, "layer of "+tag, tag, "latest")
		after := crash(t, dir)
		survivor := openWith(t, after, &Options{Durability: Power})
		wantImage(t, survivor, "app/hello", tag, last)
		wantImage(t, survivor, "app/hello", "latest", last)
		flush(t, survivor)
		if !strings.Contains(strings.Join(names(t, after), " "), "app/hello:"+tag) {
			t.Errorf("index.json does not name %s: %q", tag, names(t, after))
		}
	}
	if err := r.Untag(t.Context(), "v1", nil); err != nil {
		t.Fatal(err)
	}
	after := crash(t, dir)
	survivor := openWith(t, after, &Options{Durability: Power})
	if _, err := repo(t, survivor, "app/hello").Resolve(t.Context(), "v1"); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("an old index.json brought a removed tag back: %v", err)
	}
	flush(t, survivor)
	wantNames(t, after, "", "app/hello:latest", "app/hello:v2", "app/hello:v3")
}

func TestAnUploadOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	up, err := repo(t, l, "app/hello").NewUpload(t.Context(), &berth.UploadOptions{Algorithm: digest.SHA512})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Write([]byte("first half, ")); err != nil {
		t.Fatal(err)
	}
	if err := up.Close(); err != nil {
		t.Fatal(err)
	}
	survivor := repo(t, open(t, crash(t, dir)), "app/hello")
	again, err := survivor.ResumeUpload(t.Context(), up.ID())
	if err != nil {
		t.Fatal(err)
	}
	if again.Size() != int64(len("first half, ")) {
		t.Errorf("it has %d bytes", again.Size())
	}
	if _, err := again.Write([]byte("second half")); err != nil {
		t.Fatal(err)
	}
	desc, err := again.Commit(t.Context(), digest.SHA512.FromString("first half, second half"))
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, survivor, desc)
}

func TestAbandonedFilesAreSweptAway(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	ingest := filepath.Join(dir, ingestPath)
	old := time.Now().Add(-2 * abandonedAfter)
	for name, when := range map[string]time.Time{"old": old, "new": time.Now(), durable.TempPrefix + "x": time.Now()} {
		path := filepath.Join(ingest, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
	entries, err := os.ReadDir(ingest)
	if err != nil || len(entries) != 1 || entries[0].Name() != "new" {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// faults are what a test makes fail while a layout is open.
type faults struct {
	hook atomic.Pointer[func(durable.Op, string) error]
}

func (f *faults) set(hook func(durable.Op, string) error) { f.hook.Store(&hook) }

func (f *faults) clear() { f.hook.Store(nil) }

func (f *faults) ask(op durable.Op, name string) error {
	if hook := f.hook.Load(); hook != nil {
		return (*hook)(op, name)
	}
	return nil
}

// openFaulty opens a layout whose steps can be made to fail.
func openFaulty(t *testing.T, dir string, d Durability) (*Layout, *faults) {
	t.Helper()
	f := &faults{}
	return openWith(t, dir, &Options{Durability: d, fault: f.ask}), f
}

// A step that fails, the disk being full for example, fails one call: nothing is named that is not
// there, and when there is room again the same call works.
func TestAFailedStepLosesNothing(t *testing.T) {
	full := errors.New("no space left on device")
	for _, op := range []durable.Op{durable.OpWrite, durable.OpSync, durable.OpRename, durable.OpSyncDir} {
		t.Run(string(op), func(t *testing.T) {
			dir := t.TempDir()
			l, faults := openFaulty(t, dir, Power)
			r := repo(t, l, "app/hello")
			before := pushImage(t, r, "before", "v1")
			flush(t, l)
			faults.set(func(o durable.Op, _ string) error {
				if o == op {
					return full
				}
				return nil
			})
			up, err := r.NewUpload(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, writeErr := up.Write([]byte("after"))
			_, commitErr := up.Commit(t.Context(), digest.FromString("after"))
			_, pushErr := r.PushManifest(t.Context(), []byte(`{"schemaVersion":2,"manifests":[]}`), &berth.PushOptions{Tags: []string{"v2"}})
			if op != durable.OpWrite && !errors.Is(errors.Join(writeErr, commitErr), full) {
				t.Errorf("the upload ended with %v, %v", writeErr, commitErr)
			}
			if !errors.Is(pushErr, full) {
				t.Errorf("the push ended with %v", pushErr)
			}
			faults.clear()
			wantImage(t, l, "app/hello", "v1", before)
			if _, err := r.Resolve(t.Context(), "v2"); !errors.Is(err, berth.ErrManifestUnknown) {
				t.Errorf("v2 is named: %v", err)
			}
			wantImage(t, l, "app/hello", "v2", pushImage(t, r, "after", "v2"))
			flush(t, l)
			wantNames(t, dir, "app/hello:v1", "app/hello:v2")
		})
	}
}

// index.json is written whole or not at all, and is written later if it could not be.
func TestIndexFileThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	l, faults := openFaulty(t, dir, Process)
	r := repo(t, l, "app/hello")
	pushImage(t, r, "one", "v1")
	flush(t, l)
	broken := errors.New("no space left on device")
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpRename && name == v1.ImageIndexFile {
			return broken
		}
		return nil
	})
	pushImage(t, r, "two", "v2")
	if err := l.Flush(t.Context()); !errors.Is(err, broken) {
		t.Errorf("flush: got %v", err)
	}
	wantNames(t, dir, "app/hello:v1")
	faults.clear()
	flush(t, l)
	wantNames(t, dir, "app/hello:v1", "app/hello:v2")
	if leftovers, _ := filepath.Glob(filepath.Join(dir, ".tmp-*")); len(leftovers) > 0 {
		t.Errorf("left beside index.json: %q", leftovers)
	}
}

// A blob whose file is damaged is not served and not vouched for; pushing it again mends it.
func TestADamagedBlobIsUnknownUntilPushedAgain(t *testing.T) {
	damages := map[string]func(path string) error{
		"short":        func(path string) error { return os.Truncate(path, 2) },
		"gone":         os.Remove,
		"a directory":  func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
		"a link":       func(path string) error { return errors.Join(os.Rename(path, path+".x"), os.Symlink(path+".x", path)) },
		"a link out":   func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
		"without read": func(path string) error { return os.Truncate(path, 0) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir)
			r := repo(t, l, "app/hello")
			img := pushImage(t, r, "the layer", "v1")
			path := filepath.Join(dir, blobPath(img.layer.Digest))
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			if _, err := r.StatBlob(t.Context(), img.layer.Digest); !errors.Is(err, berth.ErrBlobUnknown) {
				t.Errorf("stat: got %v", err)
			}
			if _, err := r.OpenBlob(t.Context(), img.layer.Digest); !errors.Is(err, berth.ErrBlobUnknown) {
				t.Errorf("open: got %v", err)
			}
			uploadBlob(t, r, "the layer")
			wantImage(t, l, "app/hello", "v1", img)
		})
	}
}

func TestADamagedManifestIsUnknownUntilPushedAgain(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	img := pushImage(t, r, "the layer", "v1")
	path := filepath.Join(dir, blobPath(img.desc.Digest))
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-2] ^= 1
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := r.FetchManifest(t.Context(), "v1", nil); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("got %v, want ErrManifestUnknown", err)
	}
	wantImage(t, l, "app/hello", "v1", pushImage(t, r, "the layer", "v1"))
}

func TestNoFileOfOursIsExecutableOrForeignWritable(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	flush(t, l)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o133 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
