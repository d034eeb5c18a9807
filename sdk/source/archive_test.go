package source_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/sdk/source"
)

func toArchive(tb testing.TB, name string) source.Destination {
	tb.Helper()
	to, err := source.ToArchive(name, "v1")
	must(tb, err)
	return to
}

// unpack reads a tar file as any program would.
func unpack(tb testing.TB, name string) (names []string, files tree) {
	tb.Helper()
	content, err := os.ReadFile(name)
	must(tb, err)
	files = tree{}
	r := tar.NewReader(bytes.NewReader(content))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, files
		}
		must(tb, err)
		body, err := io.ReadAll(r)
		must(tb, err)
		names = append(names, header.Name)
		files[header.Name] = string(body)
	}
}

func TestToArchiveWritesATarFileOfALayout(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.tar")
	root := save(t, toArchive(t, name), "one layer")
	want := newTree()
	want.image("one layer")
	want.list(named(root, "v1"))
	names, got := unpack(t, name)
	if entries := entriesIn(t, got[v1.ImageIndexFile]); encode(entries) != encode([]v1.Descriptor{named(root, "v1")}) {
		t.Errorf("index.json lists %v", entries)
	}
	got[v1.ImageIndexFile] = want[v1.ImageIndexFile]
	if encode(got) != encode(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(names) != len(want) {
		t.Errorf("got the files %q", names)
	}
	if last := names[len(names)-2:]; !slices.Equal(last, []string{v1.ImageLayoutFile, v1.ImageIndexFile}) {
		t.Errorf("the archive ends with %q", last)
	}
}

func TestToArchiveOfOneOrderIsOneFile(t *testing.T) {
	files, root := oneImage()
	var written [2][]byte
	for i := range written {
		name := filepath.Join(t.TempDir(), "image.tar")
		to := toArchive(t, name)
		for _, e := range files.entries() {
			if strings.HasPrefix(e.Name, "blobs/") {
				desc := v1.Descriptor{Digest: digestOf(e.body), Size: int64(len(e.body))}
				must(t, to.Put(t.Context(), desc, strings.NewReader(e.body)))
			}
		}
		must(t, errors.Join(to.Commit(t.Context(), root), to.Close()))
		var err error
		written[i], err = os.ReadFile(name)
		must(t, err)
	}
	if !bytes.Equal(written[0], written[1]) {
		t.Error("two archives of the same image differ")
	}
}

func TestToArchivePutsEachBlobOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.tar")
	to := toArchive(t, name)
	store(t, to, "one layer")
	save(t, to, "one layer")
	names, files := unpack(t, name)
	if len(names) != len(files) {
		t.Errorf("some file is there twice: %q", names)
	}
}

func TestToArchiveReplacesAFileOnlyOnCommit(t *testing.T) {
	name := file(t, []byte("the old file"))
	to := toArchive(t, name)
	root := store(t, to, "one layer")
	if got, err := os.ReadFile(name); err != nil || string(got) != "the old file" {
		t.Errorf("before the commit it is %q, %v", got, err)
	}
	must(t, errors.Join(to.Commit(t.Context(), root), to.Close()))
	if got := rootOf(t, source.Archive(name, "v1")); got != root.Digest {
		t.Errorf("got %s, want %s", got, root.Digest)
	}
	if left, err := os.ReadDir(filepath.Dir(name)); err != nil || len(left) != 1 {
		t.Errorf("the directory holds %v, %v", left, err)
	}
}

func TestToArchiveWhereNoneCanBe(t *testing.T) {
	dir := t.TempDir()
	for what, name := range map[string]string{
		"a directory":           dir,
		"a directory not there": filepath.Join(dir, "absent", "image.tar"),
		"below a file":          filepath.Join(file(t, nil), "image.tar"),
	} {
		if _, err := source.ToArchive(name, ""); err == nil || !strings.Contains(err.Error(), "oci-archive:"+name) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if left := filesBelow(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A rename would put the archive in the place of the device itself.
func TestToArchiveRefusesWhatIsNoFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := makePipe(pipe); err != nil {
		t.Skip(err)
	}
	if _, err := source.ToArchive(pipe, ""); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("got %v", err)
	}
}

func TestToArchiveFollowsASymlink(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symlinks need a privilege")
	}
	target := file(t, []byte("the old file"))
	link := filepath.Join(t.TempDir(), "link.tar")
	must(t, os.Symlink(target, link))
	root := save(t, toArchive(t, link), "one layer")
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is now %v, %v", info, err)
	}
	if got := rootOf(t, source.Archive(target, "v1")); got != root.Digest {
		t.Errorf("got %s, want %s", got, root.Digest)
	}
}

func TestToArchiveMakesAFileThatOthersMayRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are not kept")
	}
	name := filepath.Join(t.TempDir(), "image.tar")
	save(t, toArchive(t, name), "one layer")
	usual := filepath.Join(t.TempDir(), "usual")
	must(t, os.WriteFile(usual, nil, 0o644))
	got, err := os.Stat(name)
	must(t, err)
	want, err := os.Stat(usual)
	must(t, err)
	if got.Mode() != want.Mode() {
		t.Errorf("the mode is %v, want %v", got.Mode(), want.Mode())
	}
}
