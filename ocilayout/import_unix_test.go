//go:build !windows

package ocilayout

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// localOf is a file as who has opened it names it.
func localOf(t *testing.T, path string) berth.LocalFile {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	device, inode, _, _ := durable.Identity(info)
	return berth.LocalFile{Path: path, Size: info.Size(), Device: device, Inode: inode}
}

// bytesOf are random bytes in a file of their own.
func bytesOf(t *testing.T, size int) (content []byte, path string) {
	t.Helper()
	content = make([]byte, size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	path = filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return content, path
}

func importInto(t *testing.T, r berth.Repository, d digest.Digest, from berth.LocalFile) (berth.ImportMethod, error) {
	t.Helper()
	return r.(berth.Importer).ImportBlob(t.Context(), d, from)
}

// nothingUnfinished makes sure that no import has left something behind.
func nothingUnfinished(t *testing.T, l *Layout) {
	t.Helper()
	left, err := os.ReadDir(l.path(ingestPath))
	if err != nil || len(left) != 0 {
		t.Errorf("ingest holds %v, %v", left, err)
	}
}

func TestImportBlob(t *testing.T) {
	for _, size := range []int{0, 1, smallUpload, smallUpload + 1, 3*chunkSize + 5, 40 << 20} {
		l := open(t, t.TempDir())
		r := repo(t, l, "x")
		content, path := bytesOf(t, size)
		for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			d := algorithm.FromBytes(content)
			method, err := importInto(t, r, d, localOf(t, path))
			if err != nil || method != berth.Copied && method != berth.Cloned {
				t.Errorf("%d bytes: %q, %v", size, method, err)
			}
			wantBlob(t, r, v1.Descriptor{Digest: d})
			if stat, err := r.StatBlob(t.Context(), d); err != nil || stat.Size != int64(size) {
				t.Errorf("%d bytes: got %+v, %v", size, stat, err)
			}
		}
		nothingUnfinished(t, l)
	}
}

// A blob may be a part of a file, as in an archive.
func TestImportAPart(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "x")
	content, path := bytesOf(t, 5<<20)
	for _, part := range [][2]int{{0, 4 << 20}, {1 << 20, 5 << 20}, {512, 100_000}, {7, 8}} {
		from, piece := localOf(t, path), content[part[0]:part[1]]
		from.Offset, from.Size = int64(part[0]), int64(len(piece))
		if _, err := importInto(t, r, digest.FromBytes(piece), from); err != nil {
			t.Errorf("%v: %v", part, err)
		}
		wantBlob(t, r, v1.Descriptor{Digest: digest.FromBytes(piece)})
	}
}

func TestImportByALink(t *testing.T) {
	dir := t.TempDir()
	l := open(t, filepath.Join(dir, "layout"))
	r := repo(t, l, "x")
	content := bytes.Repeat([]byte("0123456789abcdef"), smallUpload)
	path := filepath.Join(dir, "layer")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	from, d := localOf(t, path), digest.FromBytes(content)
	from.Link = true
	if method, err := importInto(t, r, d, from); method != berth.Linked || err != nil {
		t.Errorf("got %q, %v", method, err)
	}
	if stored := localOf(t, l.path(blobPath(d))); stored.Inode != from.Inode {
		t.Error("it is another file")
	}
	wantBlob(t, r, v1.Descriptor{Digest: d})
	if _, err := importInto(t, r, digest.FromString("other"), from); !errors.Is(err, berth.ErrDigestInvalid) {
		t.Errorf("of another digest: got %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the original is %d bytes, %v", len(got), err)
	}
	nothingUnfinished(t, l)
}

func TestImportOfOtherBytesStoresNothing(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "x")
	for _, size := range []int{10, 3 << 20} {
		_, path := bytesOf(t, size)
		meant := digest.FromString(path)
		if _, err := importInto(t, r, meant, localOf(t, path)); !errors.Is(err, berth.ErrDigestInvalid) || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v", err)
		}
		if _, err := r.StatBlob(t.Context(), meant); !errors.Is(err, berth.ErrBlobUnknown) {
			t.Errorf("got %v", err)
		}
	}
	nothingUnfinished(t, l)
}

// What a registry does not take may be uploaded instead, so the error tells it apart.
func TestFilesThatAreNotImported(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "x")
	content, path := bytesOf(t, 1000)
	dir := filepath.Dir(path)
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.Symlink(path, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	alter := func(change func(*berth.LocalFile)) berth.LocalFile {
		from := localOf(t, path)
		change(&from)
		return from
	}
	for what, from := range map[string]berth.LocalFile{
		"a symbolic link":            alter(func(f *berth.LocalFile) { f.Path = link }),
		"a pipe":                     localOf(t, pipe),
		"a directory":                localOf(t, dir),
		"a device":                   localOf(t, os.DevNull),
		"nothing":                    {Path: filepath.Join(dir, "absent")},
		"another file":               alter(func(f *berth.LocalFile) { f.Inode++ }),
		"a file of another disk":     alter(func(f *berth.LocalFile) { f.Device++ }),
		"bytes beyond the end":       alter(func(f *berth.LocalFile) { f.Size++ }),
		"bytes behind the end":       alter(func(f *berth.LocalFile) { f.Offset, f.Size = 2000, 0 }),
		"bytes before the beginning": alter(func(f *berth.LocalFile) { f.Offset = -1 }),
		"less than nothing":          alter(func(f *berth.LocalFile) { f.Size = -1 }),
		"a length beyond all":        alter(func(f *berth.LocalFile) { f.Offset, f.Size = 1<<62, 1<<62 }),
	} {
		if _, err := importInto(t, r, digest.FromBytes(content), from); !errors.Is(err, berth.ErrUnsupported) || !strings.Contains(err.Error(), from.Path) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 1, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := importInto(t, r, digest.FromBytes(content), localOf(t, path)); !errors.Is(err, berth.ErrUnsupported) {
			t.Errorf("another user's: got %v", err)
		}
	}
	nothingUnfinished(t, l)
}

func TestImportThatIsCancelled(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "x")
	content, path := bytesOf(t, 4<<20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.(berth.Importer).ImportBlob(ctx, digest.FromBytes(content), localOf(t, path)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	nothingUnfinished(t, l)
}

// A file that somebody writes to at the same time is stored as its digest says, or not at all.
func TestImportOfAFileThatChanges(t *testing.T) {
	const rounds = 1000
	l := open(t, t.TempDir())
	r := repo(t, l, "x")
	content, path := bytesOf(t, 3*smallUpload)
	d := digest.FromBytes(content)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var writer sync.WaitGroup
	over := make(chan struct{})
	writer.Go(func() {
		for {
			at := rand.IntN(len(content))
			file.WriteAt([]byte{content[at] + 1}, int64(at))
			file.WriteAt(content[at:at+1], int64(at))
			select {
			case <-over:
				return
			default:
			}
		}
	})
	stored := 0
	for range rounds {
		_, err := importInto(t, r, d, localOf(t, path))
		switch {
		case err == nil:
			stored++
			wantBlob(t, r, v1.Descriptor{Digest: d})
			if err := r.DeleteBlob(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		case !errors.Is(err, berth.ErrDigestInvalid):
			t.Fatal(err)
		}
	}
	close(over)
	writer.Wait()
	t.Logf("stored %d times of %d", stored, rounds)
	nothingUnfinished(t, l)
}

// An import that a full disk ends leaves nothing behind, and works when there is room again.
func TestImportOntoAFullDisk(t *testing.T) {
	full := errors.New("no space left on device")
	for _, op := range []durable.Op{durable.OpCreate, durable.OpWrite, durable.OpRename} {
		t.Run(string(op), func(t *testing.T) {
			l, faults := openFaulty(t, t.TempDir(), Process)
			r := repo(t, l, "x")
			content, path := bytesOf(t, 4<<20)
			d := digest.FromBytes(content)
			faults.set(func(o durable.Op, name string) error {
				if o == op {
					return full
				}
				return nil
			})
			if _, err := importInto(t, r, d, localOf(t, path)); !errors.Is(err, full) {
				t.Errorf("got %v", err)
			}
			nothingUnfinished(t, l)
			faults.clear()
			if _, err := importInto(t, r, d, localOf(t, path)); err != nil {
				t.Error(err)
			}
			wantBlob(t, r, v1.Descriptor{Digest: d})
		})
	}
}

// One file that several import at once by links is there once, and no further name of it stays.
func TestImportsOfOneFileByLinks(t *testing.T) {
	l := open(t, t.TempDir())
	content, path := bytesOf(t, 5*chunkSize)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	from := localOf(t, path)
	from.Link = true
	d := digest.FromBytes(content)
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		r := repo(t, l, name)
		all.Go(func() {
			if _, err := importInto(t, r, d, from); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
	// The file is there under its name, and is not known to be: as after a power cut.
	again := ingestPath + "/" + durable.TempPrefix + "again"
	if err := os.Link(path, l.path(again)); err != nil {
		t.Fatal(err)
	}
	if err := l.replace(again, blobPath(d)); err != nil {
		t.Error(err)
	}
	nothingUnfinished(t, l)
	for _, name := range []string{"a", "f"} {
		wantBlob(t, repo(t, l, name), v1.Descriptor{Digest: d})
	}
}

// What its owner may not read is not linked, though it can be opened by root.
func TestImportOfAnUnreadableFileByALink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it cannot be opened")
	}
	l := open(t, t.TempDir())
	content, path := bytesOf(t, 3*chunkSize)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	from := localOf(t, path)
	from.Link = true
	if method, err := importInto(t, repo(t, l, "x"), digest.FromBytes(content), from); err != nil || method == berth.Linked {
		t.Errorf("got %s, %v", method, err)
	}
	nothingUnfinished(t, l)
}
