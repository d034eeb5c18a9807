package ocilayout

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/internal/durable"
)

// The index file is begun as bbolt would begin it.
func TestEmptyPages(t *testing.T) {
	for _, size := range []int{1 << 12, 1 << 14, 1 << 16} {
		file := filepath.Join(t.TempDir(), "index.db")
		db, err := bolt.Open(file, 0o600, &bolt.Options{PageSize: size, NoFreelistSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(emptyPages(size), want) {
			t.Errorf("with pages of %d bytes bbolt begins a file otherwise, %v", size, err)
		}
	}
}

// steps are what was done to a directory, in order.
type steps struct {
	mu   sync.Mutex
	done []string
}

func (s *steps) ask(op durable.Op, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, string(op)+" "+name)
	return nil
}

// all is what was done until now.
func (s *steps) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.done)
}

// firstOf is the place of the first step that begins so; -1: there is none.
func firstOf(steps []string, step string) int {
	return slices.IndexFunc(steps, func(done string) bool { return strings.HasPrefix(done, step) })
}

// What is new waits for no disk when it is opened.
func TestANewLayoutIsOpenedWithoutAFlush(t *testing.T) {
	for _, d := range []Durability{Process, Power} {
		t.Run(d.String(), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { // no time passes until the layout is flushed for its own sake
				var s steps
				openWith(t, dir, &Options{Durability: d, fault: s.ask})
				if done := s.all(); firstOf(done, "sync") >= 0 || firstOf(done, "rename "+control.EpochFile) >= 0 {
					t.Errorf("the steps were %q", done)
				}
			})
		})
	}
}

// What is new is on disk, with all that it is made of, before the first blob has its name and before anything is
// promised. So is what a process has made that was killed then.
func TestANewLayoutIsFlushedWhenItIsUsed(t *testing.T) {
	unused := quickDir(t)
	open(t, unused)
	for from, dir := range map[string]func(*testing.T) string{
		"nothing": func(t *testing.T) string { return t.TempDir() },
		"unused":  func(t *testing.T) string { return crash(t, unused) },
	} {
		for _, d := range []Durability{Process, Power} {
			t.Run(from+"/"+d.String(), func(t *testing.T) { wantFlushedFirst(t, dir(t), d) })
		}
	}
}

func wantFlushedFirst(t *testing.T, dir string, d Durability) {
	var s steps
	l := openWith(t, dir, &Options{Durability: d, fault: s.ask})
	pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	done := s.all()
	placed, begun, committed := firstOf(done, "rename blobs/"), firstOf(done, "rename "+control.EpochFile), firstOf(done, "commit")
	if placed < 0 || begun < 0 || committed < begun {
		t.Errorf("the steps were %q", done)
	}
	for _, step := range []string{"sync oci-layout", "sync index.json", "syncdir .", "syncdir .berth", "syncdir blobs"} {
		if at := slices.Index(done, step); at < 0 || at > placed || at > begun {
			t.Errorf("%s came too late in %q", step, done)
		}
	}
	if at := slices.Index(done, "sync "+indexPath); d == Power && (at < 0 || at > begun) {
		t.Errorf("the index came too late in %q", done)
	}
}

// A layout that was closed well is opened, and closed again, without a write.
func TestALayoutThatIsNotUsedIsNotWrittenTo(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var s steps
	l = openWith(t, dir, &Options{fault: s.ask})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if done := s.all(); len(done) > 0 {
		t.Errorf("the steps were %q", done)
	}
}

// remains are the ways in which a file may come out of a power cut that was not flushed.
var remains = map[string]func(name string) error{
	"whole": func(string) error { return nil },
	"gone":  os.Remove,
	"empty": func(name string) error { return os.Truncate(name, 0) },
	"zeros": func(name string) error {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		return os.WriteFile(name, make([]byte, info.Size()), 0o600)
	},
}

// Of a layout that was opened and not used a power cut may leave any part. What is opened then is a layout.
func TestANewLayoutOutlivesAPowerCut(t *testing.T) {
	opened := quickDir(t)
	open(t, opened)
	whole := crash(t, opened)
	for version := range remains {
		for index := range remains {
			for db := range remains {
				for _, without := range [][]string{nil, {"blobs/sha256"}, {"blobs/sha256", "blobs"}, {".berth"}, {".berth", "blobs/sha256"}, {".berth/ingest", ".berth/owner.lock"}} {
					name := fmt.Sprintf("oci-layout=%s,index.json=%s,index.db=%s,without=%s", version, index, db, without)
					t.Run(name, func(t *testing.T) {
						dir := quickDir(t)
						err := errors.Join(os.CopyFS(dir, os.DirFS(whole)), remains[version](filepath.Join(dir, "oci-layout")),
							remains[index](filepath.Join(dir, "index.json")), remains[db](filepath.Join(dir, indexPath)))
						for _, name := range without {
							err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
						}
						if err != nil {
							t.Fatal(err)
						}
						wantUsable(t, dir)
					})
				}
			}
		}
	}
}

// wantUsable opens a layout, uses it, and looks at what is left of that after a restart.
func wantUsable(t *testing.T, dir string) {
	t.Helper()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app/hello"), "layer", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir, "app/hello:v1")
	wantImage(t, open(t, dir), "app/hello", "v1", img)
}

// An index.json that is empty is no sign of a layout that was only just made, where there is more.
func TestAnEmptyIndexFileIsNotMadeAnewBesideOtherFiles(t *testing.T) {
	for _, other := range []string{"blobs/sha256/" + strings.Repeat("a", 64), "notes.txt", "src/index.js"} {
		dir := t.TempDir()
		err := errors.Join(os.MkdirAll(filepath.Join(dir, filepath.Dir(other)), 0o755), os.WriteFile(filepath.Join(dir, other), []byte("x"), 0o644),
			os.WriteFile(filepath.Join(dir, v1.ImageIndexFile), nil, 0o644))
		if err != nil {
			t.Fatal(err)
		}
		if l, err := Open(t.Context(), dir, nil); !errors.Is(err, berth.ErrLayoutInvalid) {
			t.Errorf("beside %s: got %v, want ErrLayoutInvalid", other, err)
			if err == nil {
				l.Close()
			}
		}
	}
}
