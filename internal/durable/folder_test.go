package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// create makes a file, or says why not.
func create(d *Dir, name string) error {
	f, err := d.Create(name, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// A directory may be exchanged for another while it is kept open: what is done is done in that one when it is
// looked for anew, and soon without that.
func TestAFolderIsExchanged(t *testing.T) {
	d, dir := open(t)
	if err := errors.Join(d.MkdirAll("blobs", 0o755), create(d, "blobs/old")); err != nil {
		t.Fatal(err)
	}
	was, is := filepath.Join(dir, "was"), filepath.Join(dir, "blobs")
	if err := errors.Join(os.Rename(is, was), os.Mkdir(is, 0o755), os.WriteFile(filepath.Join(is, "new"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	d.Refresh()
	if _, err := d.Lstat("blobs/new"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(os.Rename(is, was+"too"), os.Rename(was, is)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(trustFor / 10) {
		if _, err := d.Lstat("blobs/old"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is never noticed")
		}
	}
	if err := create(d, "blobs/newer"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(is, "newer")); err != nil {
		t.Error(err)
	}
	if _, err := d.Lstat("blobs/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of the directory that was there before: %v", err)
	}
}

// Who finds its directory gone makes it anew, and goes on in that at once: also where somebody else was faster.
func TestAFolderIsRemoved(t *testing.T) {
	d, dir := open(t)
	for i := range 4 {
		if err := errors.Join(d.MkdirAll("blobs/sha256", 0o755), create(d, fmt.Sprint("blobs/sha256/", i))); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
			t.Fatal(err)
		}
		if err := create(d, "blobs/sha256/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without a directory: %v", err)
		}
		if i%2 == 1 {
			if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// However many directories there are, few are kept open.
func TestFoldersAreBounded(t *testing.T) {
	d, _ := open(t)
	for i := range 3 * maxFolders {
		folder := fmt.Sprint("folder", i)
		if err := errors.Join(d.MkdirAll(folder, 0o755), create(d, folder+"/file")); err != nil {
			t.Fatal(err)
		}
		if n := len(d.folders.open); n > maxFolders {
			t.Fatalf("%d are open", n)
		}
	}
	if _, err := d.Lstat("folder0/file"); err != nil {
		t.Error(err)
	}
}

// A directory is not found through a symbolic link, nor outside.
func TestAFolderThatIsNone(t *testing.T) {
	d, dir := open(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"link/file", "../file"} {
		if err := create(d, name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}
