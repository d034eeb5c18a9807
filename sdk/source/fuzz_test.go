package source_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/sdk/source"
)

// FuzzArchive reads archives of any bytes. Whatever can be fetched must be what archive/tar finds in
// the file when it reads all of it in order.
func FuzzArchive(f *testing.F) {
	files, root := oneImage()
	plain := files.entries()
	f.Add(pack(f, plain...))
	f.Add(pack(f, rewritten(plain, func(e *entry) { e.Name = "./" + e.Name })...))
	f.Add(pack(f, rewritten(plain, func(e *entry) { e.Format = tar.FormatGNU })...))
	f.Add(pack(f, rewritten(plain, func(e *entry) { e.PAX = map[string]string{"BERTH.x": "y"} })...))
	f.Add(pack(f, append(plain, entry{Name: "../" + blobFile(root), body: "x"}, entry{Name: "/index.json", body: "{}"})...))
	f.Add(pack(f, append(plain, entry{Name: "index.json", Type: tar.TypeLink, Link: "oci-layout"})...))
	f.Add(pack(f, plain...)[:1500])
	for _, name := range []string{"testdata/sparse-pax.tar", "testdata/sparse-gnu.tar"} {
		content, err := os.ReadFile(name)
		must(f, err)
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		want := contents(content)
		src := source.Archive(file(t, content), "v1")
		defer src.Close()
		if got, err := src.Root(t.Context()); err == nil && (want[v1.ImageIndexFile] == nil || got.Annotations != nil) {
			t.Errorf("the root is %v", got)
		}
		for name, body := range want {
			desc := v1.Descriptor{Digest: digestOf(string(body)), Size: int64(len(body))}
			if got, err := read(t, src, desc); err == nil && name == blobFile(desc) && got != string(body) {
				t.Errorf("%s: got %q, want %q", name, got, body)
			}
		}
		for _, desc := range files.describeAll() {
			if got, err := read(t, src, desc); err == nil && got != string(want[blobFile(desc)]) {
				t.Errorf("%s: got %q, want %q", blobFile(desc), got, want[blobFile(desc)])
			}
		}
	})
}

// contents are the last file of each name, as far as an archive can be read.
func contents(archive []byte) map[string][]byte {
	const most = 1 << 20
	found := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := r.Next()
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return found
		}
		if body, err := io.ReadAll(io.LimitReader(r, most)); err == nil && header.Typeflag == tar.TypeReg {
			found[path.Clean(header.Name)] = body
		}
	}
}
