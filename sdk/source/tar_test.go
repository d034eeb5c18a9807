package source_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/source"
)

func open(tb testing.TB, content []byte) source.Source {
	tb.Helper()
	src := source.Archive(file(tb, content), "")
	tb.Cleanup(func() { must(tb, src.Close()) })
	return src
}

// rewritten is the entries after each has been changed.
func rewritten(entries []entry, change func(*entry)) []entry {
	entries = slices.Clone(entries)
	for i := range entries {
		change(&entries[i])
	}
	return entries
}

func TestArchiveIsReadHoweverItWasWritten(t *testing.T) {
	files, root := oneImage()
	plain := files.entries()
	reversed := slices.Clone(plain)
	slices.Reverse(reversed)
	withFS := func() []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		must(t, w.AddFS(os.DirFS(files.dir(t))))
		must(t, w.Close())
		return out.Bytes()
	}
	directories := []entry{{Name: "./", Type: tar.TypeDir}, {Name: "./blobs/", Type: tar.TypeDir}, {Name: "./blobs/sha256/", Type: tar.TypeDir}}
	for what, content := range map[string][]byte{
		"plain":              pack(t, plain...),
		"last file first":    pack(t, reversed...),
		"by AddFS":           withFS(),
		"ustar":              pack(t, rewritten(plain, func(e *entry) { e.Format = tar.FormatUSTAR })...),
		"gnu":                pack(t, rewritten(plain, func(e *entry) { e.Format = tar.FormatGNU })...),
		"pax records":        pack(t, rewritten(plain, func(e *entry) { e.PAX = map[string]string{"BERTH.long": strings.Repeat("x", 2000)} })...),
		"with ./":            pack(t, slices.Concat(directories, rewritten(plain, func(e *entry) { e.Name = "./" + e.Name }))...),
		"with a way around":  pack(t, rewritten(plain, func(e *entry) { e.Name = "./x/../" + e.Name })...),
		"long foreign names": pack(t, append([]entry{{Name: strings.Repeat("long/", 60) + "name", body: "foreign"}}, plain...)...),
		"the later counts":   pack(t, slices.Concat([]entry{{Name: v1.ImageIndexFile, body: "{"}, {Name: blobFile(root), body: "{"}}, plain)...),
		"without an end":     bytes.TrimRight(pack(t, plain...), "\x00"),
		"followed by dirt":   append(pack(t, plain...), "dirt"...),
	} {
		t.Run(what, func(t *testing.T) {
			src := open(t, content)
			if got, err := src.Root(t.Context()); err != nil || got.Digest != root.Digest {
				t.Fatalf("got %v, %v", got, err)
			}
			for want, desc := range files.describeAll() {
				if got, err := read(t, src, desc); err != nil || got != want {
					t.Errorf("got %q, %v; want %q", got, err, want)
				}
			}
		})
	}
}

// Whatever of an archive is missing at its end, what is read of it is right, or an error.
func TestArchiveCutShortAnywhere(t *testing.T) {
	files, root := oneImage()
	content := pack(t, files.entries()...)
	end := len(bytes.TrimRight(content, "\x00"))
	name := file(t, content)
	for length := len(content); length >= 0; length-- {
		must(t, os.Truncate(name, int64(length)))
		src := source.Archive(name, "")
		got, err := src.Root(t.Context())
		if err == nil && got.Digest != root.Digest {
			t.Fatalf("%d of %d bytes: the root is %v", length, len(content), got)
		}
		whole := err == nil
		for want, desc := range files.describeAll() {
			got, err := read(t, src, desc)
			if err == nil && got != want {
				t.Fatalf("%d of %d bytes: got %q, want %q", length, len(content), got, want)
			}
			whole = whole && err == nil
		}
		if whole && length < end {
			t.Fatalf("%d of %d bytes are a whole image, which ends at %d", length, len(content), end)
		}
		must(t, src.Close())
	}
}

func TestArchiveThatIsNoneIsRefused(t *testing.T) {
	files, _ := oneImage()
	plain := pack(t, files.entries()...)
	var gzipped bytes.Buffer
	w := gzip.NewWriter(&gzipped)
	w.Write(plain)
	must(t, w.Close())
	huge := bytes.Clone(plain)
	copy(huge[124:], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") // the size, in base 256
	setChecksum(huge[:512])
	for _, c := range []struct {
		what    string
		content []byte
		says    string
	}{
		{"half a gzip", gzipped.Bytes()[:gzipped.Len()/2], "damaged, or cut short"},
		{"no zstd", append([]byte{0x28, 0xb5, 0x2f, 0xfd}, plain...), "damaged, or cut short"},
		{"xz", append([]byte("\xfd7zXZ\x00"), plain...), "compressed with xz; decompress it first"},
		{"something else", []byte(strings.Repeat("something else ", 500)), "no tar file, or damaged"},
		{"a file larger than the archive", huge, "cut short"},
		{"nothing", nil, "it is empty"},
		{"one byte", []byte{0x1f}, "no tar file, or damaged"},
		{"zeros alone", make([]byte, 4096), "it has no oci-layout"},
	} {
		_, err := open(t, c.content).Root(t.Context())
		if !errors.Is(err, berth.ErrLayoutInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", c.what, err)
		}
	}
}

// setChecksum makes a header that was changed valid again.
func setChecksum(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:156], "0"+octal(sum)+"\x00 ")
}

func octal(n int) string {
	digits := []byte("00000")
	for i := 4; i >= 0; i-- {
		digits[i], n = byte('0'+n%8), n/8
	}
	return string(digits)
}

// Names that lead out of an archive, and what is no file, are not seen: never as something else.
func TestArchiveHidesWhatIsNoFileOfIt(t *testing.T) {
	files, root := oneImage()
	blob := blobFile(root)
	delete(files, blob)
	for _, c := range []struct {
		what  string
		entry entry
	}{
		{"a name that leads up", entry{Name: "../" + blob, body: encodeSize(root)}},
		{"a name that leads up later", entry{Name: "x/../../" + blob, body: encodeSize(root)}},
		{"an absolute name", entry{Name: "/" + blob, body: encodeSize(root)}},
		{"a symlink", entry{Name: blob, Type: tar.TypeSymlink, Link: "../../index.json"}},
		{"a symlink out of it", entry{Name: blob, Type: tar.TypeSymlink, Link: "/etc/passwd"}},
		{"a hard link", entry{Name: blob, Type: tar.TypeLink, Link: "index.json"}},
		{"a directory", entry{Name: blob + "/", Type: tar.TypeDir}},
		{"a device", entry{Name: blob, Type: tar.TypeChar}},
		{"a pipe", entry{Name: blob, Type: tar.TypeFifo}},
	} {
		src := open(t, pack(t, append(files.entries(), c.entry)...))
		if _, err := src.Root(t.Context()); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if got, err := read(t, src, root); !errors.Is(err, berth.ErrBlobUnknown) {
			t.Errorf("%s: got %q, %v; want ErrBlobUnknown", c.what, got, err)
		}
	}
}

// encodeSize is as many bytes as a descriptor says.
func encodeSize(desc v1.Descriptor) string { return strings.Repeat("x", int(desc.Size)) }

// As tar extracts an archive, what comes later replaces what came before, whatever its kind.
func TestArchiveLinkReplacesTheFileBeforeIt(t *testing.T) {
	files, root := oneImage()
	link := entry{Name: "./" + blobFile(root), Type: tar.TypeSymlink, Link: "elsewhere"}
	src := open(t, pack(t, append(files.entries(), link)...))
	if got, err := read(t, src, root); !errors.Is(err, berth.ErrBlobUnknown) {
		t.Errorf("got %q, %v; want ErrBlobUnknown", got, err)
	}
}

// A sparse file's bytes do not lie in the archive as they are.
func TestArchiveWithSparseFilesIsRefused(t *testing.T) {
	for _, name := range []string{"testdata/sparse-pax.tar", "testdata/sparse-gnu.tar"} {
		src := source.Archive(name, "")
		_, err := src.Root(t.Context())
		if !errors.Is(err, berth.ErrLayoutInvalid) || !strings.Contains(err.Error(), "sparse") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// GODEBUG=tarinsecurepath=0 makes archive/tar report names that are not seen here anyway.
func TestArchiveWithInsecureNamesUnderGODEBUG(t *testing.T) {
	t.Setenv("GODEBUG", "tarinsecurepath=0")
	files, root := oneImage()
	src := open(t, pack(t, append(files.entries(), entry{Name: "../x", body: "x"})...))
	if got, err := src.Root(t.Context()); err != nil || got.Digest != root.Digest {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestArchiveStaysTheFileThatWasOpened(t *testing.T) {
	files, root := oneImage()
	name := file(t, pack(t, files.entries()...))
	src := source.Archive(name, "")
	defer src.Close()
	if _, err := src.Root(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(name+".new", []byte("another file"), 0o644))
	if err := os.Rename(name+".new", name); err != nil {
		t.Skip(err) // where open files cannot be replaced
	}
	if got, err := read(t, src, root); err != nil || got != files[blobFile(root)] {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestArchiveFilesCanBeReadInAnyOrder(t *testing.T) {
	files, root := oneImage()
	src := open(t, pack(t, files.entries()...))
	first, err := src.Fetch(t.Context(), root)
	must(t, err)
	defer first.Close()
	second, err := src.Fetch(t.Context(), root)
	must(t, err)
	defer second.Close()
	half := make([]byte, root.Size/2)
	_, err = io.ReadFull(first, half)
	must(t, err)
	all, err := io.ReadAll(second)
	must(t, err)
	rest, err := io.ReadAll(first)
	must(t, err)
	if want := files[blobFile(root)]; string(all) != want || string(half)+string(rest) != want {
		t.Errorf("got %q and %q", all, string(half)+string(rest))
	}
}
