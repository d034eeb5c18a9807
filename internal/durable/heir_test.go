//go:build !windows

package durable

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// What root makes in a user's directory is the user's: else the user could not go on with it.
func TestRootLeavesWhatItMakesToTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	const user = 1234
	path := t.TempDir()
	if err := os.Chown(path, user, user); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.MkdirAll("a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("a/b/file", []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Bequeath("other", "missing")
	for _, name := range []string{"a", "a/b", "a/b/file", "other"} {
		info, err := os.Lstat(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != user || st.Gid != user {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
}
