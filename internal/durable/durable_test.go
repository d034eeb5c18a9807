package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T) (*Dir, string) {
	t.Helper()
	path := t.TempDir()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func TestWriteFileReplaces(t *testing.T) {
	d, path := open(t)
	for _, content := range []string{"old", "new"} {
		if err := d.WriteFile("f", []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		wantContent(t, path, content)
	}
}

// Whatever step fails, the file has its old content or its new one, and nothing is left beside it.
func TestWriteFileFailsWhole(t *testing.T) {
	broken := errors.New("no space left")
	for _, op := range []Op{OpWrite, OpSync, OpRename, OpSyncDir} {
		t.Run(string(op), func(t *testing.T) {
			d, path := open(t)
			if err := d.WriteFile("f", []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			d.Fault = func(o Op, _ string) error {
				if o == op {
					return broken
				}
				return nil
			}
			if err := d.WriteFile("f", []byte("new"), 0o644); !errors.Is(err, broken) {
				t.Fatalf("got %v, want the fault", err)
			}
			want := "old"
			if op == OpSyncDir {
				want = "new"
			}
			wantContent(t, path, want)
		})
	}
}

func wantContent(t *testing.T, dir, want string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("%d files in the directory, want 1: %v", len(entries), entries)
	}
}

func TestPathsCannotLeave(t *testing.T) {
	d, path := open(t)
	if err := d.WriteFile("../escaped", nil, 0o644); err == nil {
		t.Error("wrote outside of the directory")
	}
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(path, "link")); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if err := d.WriteFile("link/escaped", nil, 0o644); err == nil {
		t.Error("wrote through a symbolic link that leaves the directory")
	}
}

func TestMkdirAll(t *testing.T) {
	d, path := open(t)
	for range 2 {
		if err := d.MkdirAll("a/b/c", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(filepath.Join(path, "a", "b", "c")); err != nil || !info.IsDir() {
		t.Errorf("got %v, %v", info, err)
	}
}

func TestWriteFileByPathFollowsALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if err := WriteFile(link, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(real); string(got) != "new" {
		t.Errorf("the link's target holds %q", got)
	}
	if info, _ := os.Lstat(link); info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
}
