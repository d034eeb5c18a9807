package ocilayout

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/internal/durable"
)

// Another program that had index.json open before the names were exchanged, and writes to it after, has
// written to a file that nobody finds any more. It is found.
func TestAnEditThatComesLate(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app")
	one := pushImage(t, r, "one", "v1")
	flush(t, l)
	index := readIndex(t, dir)
	slow, err := os.OpenFile(filepath.Join(dir, v1.ImageIndexFile), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	two := pushImage(t, r, "two", "v2")
	flush(t, l) // over the file that is empty at this moment
	with("app:late", one.desc)(&index)
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Write(data); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for resolves(t, l, "app", "late") != one.desc.Digest {
		if time.Now().After(deadline) {
			t.Fatal("the late edit was lost")
		}
		time.Sleep(time.Millisecond)
	}
	flush(t, l)
	wantNames(t, dir, "app:late", "app:v1", "app:v2")
	wantImage(t, l, "app", "v2", two)
}

// An edit in the instant before the exchange comes out with the old file, and is merged.
func TestAnEditBeforeTheExchange(t *testing.T) {
	dir := t.TempDir()
	l, faults := openFaulty(t, dir, Process)
	r := repo(t, l, "app")
	one := pushImage(t, r, "one", "v1")
	flush(t, l)
	pushImage(t, r, "two", "v2")
	edited := false
	faults.set(func(op durable.Op, name string) error {
		if op == durable.OpRename && name == v1.ImageIndexFile && !edited {
			edited = true
			edit(t, dir, with("app:between", one.desc))
		}
		return nil
	})
	flush(t, l)
	faults.clear()
	if !edited {
		t.Fatal("index.json was not written")
	}
	wantImage(t, l, "app", "between", one)
	wantNames(t, dir, "app:between", "app:v1", "app:v2")
}

// What another program adds is found when it is asked for, and also when nobody asks.
func TestAnEditIsFoundWhenItIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	flush(t, l)
	edit(t, dir, with("app:asked", img.desc))
	wantImage(t, l, "app", "asked", img)
	edit(t, dir, with("app:unasked", img.desc))
	deadline := time.Now().Add(time.Minute)
	for len(names(t, dir)) != 3 || readIndex(t, dir).Annotations[annotationChecksum] == "" || !shows(t, l, "unasked") {
		if time.Now().After(deadline) {
			t.Fatalf("index.json names %q", names(t, dir))
		}
		time.Sleep(time.Millisecond)
	}
}

// shows reports whether the list of tags has one.
func shows(t *testing.T, l *Layout, tag string) bool {
	t.Helper()
	for found, err := range repo(t, l, "app").Tags(t.Context(), "") {
		if err == nil && found == tag {
			return true
		}
	}
	return false
}

// BuildKit rewrites index.json under a lock, and fails where it finds it taken: so berth waits for the
// one that has it, and leaves no lock behind.
func TestTheLockOfOthersIsRespected(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	flush(t, l)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	lock, err := control.TryLock(root, lockName)
	if err != nil {
		t.Fatal(err)
	}
	pushImage(t, repo(t, l, "app"), "two", "v2")
	flushed := make(chan error)
	go func() { flushed <- l.Flush(t.Context()) }()
	time.Sleep(20 * time.Millisecond)
	wantNames(t, dir, "app:v1")
	lock.Release()
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir, "app:v1", "app:v2")
	if _, err := os.Stat(filepath.Join(dir, lockName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock is left: %v", err)
	}
}

// A link in the place of index.json is not followed.
func TestIndexFileIsNoLink(t *testing.T) {
	dir, secret := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	l := open(t, dir)
	pushImage(t, repo(t, l, "app"), "one", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, v1.ImageIndexFile)
	if err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o600), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, path); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	l = open(t, dir)
	flush(t, l)
	wantNames(t, dir, "app:v1")
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("the file behind the link has %q, %v", data, err)
	}
}

// What another program wrote before the exchange is not lost where the exchange cannot be flushed, nor
// where the process is killed before it has looked.
func TestAnEditBeforeAnExchangeThatGoesWrong(t *testing.T) {
	for name, broken := range map[string]bool{"not flushed": true, "killed": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l, faults := openFaulty(t, dir, Power)
			img := pushImage(t, repo(t, l, "app"), "one", "v1")
			flush(t, l)
			pushImage(t, repo(t, l, "app"), "two", "v2")
			var edited, synced bool
			var killed string
			faults.set(func(op durable.Op, name string) error {
				switch {
				case op == durable.OpRename && name == v1.ImageIndexFile && !edited:
					edited = true
					edit(t, dir, with("app:between", img.desc))
				case op == durable.OpSyncDir && name == "." && edited && !synced:
					synced, killed = true, crash(t, dir)
					if broken {
						return errFault
					}
				}
				return nil
			})
			l.Flush(t.Context())
			faults.clear()
			if broken {
				flush(t, l)
				wantImage(t, l, "app", "between", img)
				return
			}
			for _, d := range []Durability{Power, Process} {
				after := openWith(t, crash(t, killed), &Options{Durability: d, Rebuild: d == Process})
				wantImage(t, after, "app", "between", img)
			}
		})
	}
}
