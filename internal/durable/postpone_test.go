package durable

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// flushed lists what is flushed from now on, and lets it fail.
func flushed(d *Dir, fail func(name string) error) *[]string {
	var names []string
	d.Fault = func(op Op, name string) error {
		if op != OpSync && op != OpSyncDir {
			return nil
		}
		names = append(names, name)
		return fail(name)
	}
	return &names
}

func never(string) error { return nil }

func wantText(t *testing.T, dir, want string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(got) != want {
		t.Errorf("f is %q, %v, want %q", got, err, want)
	}
}

func TestWhatIsPostponedIsFlushedWhenItSettles(t *testing.T) {
	d, path := open(t)
	names := flushed(d, never)
	d.Temp = "a"
	if err := os.Mkdir(filepath.Join(path, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	d.Postpone()
	err := errors.Join(d.MkdirAll("a/b", 0o755), d.MkdirAll("there", 0o755), d.WriteFile("f", []byte("new"), 0o644), d.WriteFile("gone", nil, 0o644), d.Remove("gone"))
	d.Resume()
	if err != nil || len(*names) > 0 {
		t.Fatalf("flushed %q, %v", *names, err)
	}
	if err := d.Settle(); err != nil {
		t.Fatal(err)
	}
	wantText(t, path, "new")
	if len(*names) != 3 || (*names)[0] != "f" || !slices.Contains(*names, ".") || !slices.Contains(*names, "a") {
		t.Errorf("flushed %q", *names)
	}
	*names = nil
	if err := errors.Join(d.Settle(), d.SyncDir("a")); err != nil || len(*names) != 1 {
		t.Errorf("then flushed %q, %v", *names, err)
	}
}

// What goes on while something is to be settled does not wait for that.
func TestAFlushAfterResumeIsNotPostponed(t *testing.T) {
	d, _ := open(t)
	d.Postpone()
	if err := d.WriteFile("f", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.Resume()
	names := flushed(d, never)
	if err := d.WriteFile("g", nil, 0o644); err != nil || len(*names) != 2 {
		t.Errorf("flushed %q, %v", *names, err)
	}
}

// A file that could not be flushed is another one when it was: the system may have dropped what it could not
// write.
func TestWhatCouldNotSettleIsWrittenAnew(t *testing.T) {
	d, path := open(t)
	d.Postpone()
	if err := d.WriteFile("f", []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(filepath.Join(path, "f"))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("input/output error")
	flushed(d, func(string) error { return broken })
	for range 2 {
		if err := d.Settle(); !errors.Is(err, broken) {
			t.Fatalf("got %v, want the fault", err)
		}
	}
	flushed(d, never)
	if err := d.Settle(); err != nil {
		t.Fatal(err)
	}
	wantContent(t, path, "content")
	after, err := os.Stat(filepath.Join(path, "f"))
	if err != nil || os.SameFile(before, after) || after.Mode() != before.Mode() {
		t.Errorf("it is %v, before it was %v, %v", after, before, err)
	}
}

func TestLinkTakesAFreeName(t *testing.T) {
	d, path := open(t)
	if err := errors.Join(os.WriteFile(filepath.Join(path, "f"), []byte("mine"), 0o600), os.WriteFile(filepath.Join(path, "g"), []byte("new"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := d.Link("g", "f"); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v, want ErrExist", err)
	}
	wantText(t, path, "mine")
	if err := errors.Join(d.Remove("f"), d.Link("g", "f")); err != nil {
		t.Fatal(err)
	}
	wantText(t, path, "new")
}
