package source

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// layerFile is a layer that was made, or was there.
type layerFile struct {
	desc      v1.Descriptor
	diffID    digest.Digest
	path      string
	temporary bool
}

func (l *layerFile) open() (io.ReadCloser, error) {
	file, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	return layerContent{rootFile{file, l.path}, l.temporary}, nil
}

// layerContent is a layer's file, which nobody changes if it was made here.
type layerContent struct {
	rootFile
	temporary bool
}

func (c layerContent) LocalFile() (berth.LocalFile, bool) {
	at, ok := c.rootFile.LocalFile()
	at.Link = c.temporary
	return at, ok
}

// makeLayer makes a layer in a file of a directory, which its caller removes.
func makeLayer(ctx context.Context, layer Layer, dir string, opts BuildOptions) (*layerFile, error) {
	switch {
	case layer.UID < 0 || layer.GID < 0:
		return nil, fmt.Errorf("its owner %d:%d: want no negative numbers", layer.UID, layer.GID)
	case leadsUp(layer.At):
		return nil, fmt.Errorf("its At: %w", errNoPlace(layer.At))
	case layer.Tar == "":
	case layer.FS != nil || len(layer.Files) > 0 || layer.Compression != None:
		return nil, fmt.Errorf("%s: a layer that is a tar file is taken as it is: it has neither FS nor Files nor Compression", layer.Tar)
	default:
		return readLayer(ctx, layer.Tar)
	}
	tree, err := gatherTree(ctx, layer)
	if err != nil {
		return nil, err
	}
	temp, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return nil, err
	}
	defer temp.Close()
	if err := temp.Chmod(0o644); err != nil { // as a blob of the layout that it may become
		return nil, err
	}
	made, err := writeLayer(ctx, temp, tree, layer, opts)
	return made, errors.Join(err, temp.Close())
}

var layerTypes = map[Compression]string{None: v1.MediaTypeImageLayer, Gzip: v1.MediaTypeImageLayerGzip, Zstd: v1.MediaTypeImageLayerZstd}

// dockerLayerTypes are what Docker calls them.
var dockerLayerTypes = map[string]string{
	"application/vnd.docker.image.rootfs.diff.tar":      v1.MediaTypeImageLayer,
	"application/vnd.docker.image.rootfs.diff.tar.gzip": v1.MediaTypeImageLayerGzip,
	"application/vnd.docker.image.rootfs.diff.tar.zstd": v1.MediaTypeImageLayerZstd,
}

// ociLayer is the type of a layer for a manifest of OCI's.
func ociLayer(mediaType string) string {
	if oci, ok := dockerLayerTypes[mediaType]; ok {
		return oci
	}
	return mediaType
}

// readLayer hashes a layer that is there.
func readLayer(ctx context.Context, name string) (*layerFile, error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", name, errIrregular) // to open a pipe would be to wait
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sums, err := sumLayer(steady{ctx, file}, digest.SHA256, readTar)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &layerFile{desc: sums.desc, diffID: sums.diffID, path: name}, nil
}

// layerSums are what a layer hashes to, as it is and as it is extracted.
type layerSums struct {
	desc   v1.Descriptor
	diffID digest.Digest
}

// sumLayer hashes a layer. Read reads all that it is extracted to.
func sumLayer(from io.Reader, algorithm digest.Algorithm, read func(io.Reader) error) (sums layerSums, err error) {
	sum, diff := digest.SHA256.Digester(), algorithm.Digester()
	in := &counted{Reader: from}
	raw := bufio.NewReaderSize(io.TeeReader(in, sum.Hash()), 1<<20)
	head, err := raw.Peek(maxMagic)
	if err != nil && !errors.Is(err, io.EOF) {
		return sums, err
	}
	compression := Compression(compressionOf(head))
	mediaType, ok := layerTypes[compression]
	if !ok {
		return sums, fmt.Errorf("%w: it is compressed with %s, which no layer may be", berth.ErrUnsupported, compression)
	}
	plain, err := decompress(raw)
	if err != nil {
		return sums, err
	}
	defer plain.Close()
	extracted := io.Reader(plain)
	if compression == None && algorithm == digest.SHA256 {
		diff = sum
	} else {
		extracted = io.TeeReader(plain, diff.Hash())
	}
	if err := read(extracted); err != nil {
		return sums, err
	}
	_, err = io.Copy(io.Discard, raw) // what follows the compressed part belongs to the layer
	return layerSums{v1.Descriptor{MediaType: mediaType, Digest: sum.Digest(), Size: in.bytes}, diff.Digest()}, err
}

// readTar reads a tar file to its end, and what follows it.
func readTar(from io.Reader) error {
	files := tar.NewReader(from)
	for {
		_, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("it is no tar file, or damaged, or cut short: %w", err)
		}
	}
	_, err := io.Copy(io.Discard, from)
	return err
}

// node is a file of a layer.
type node struct {
	name   string // where it is found, for errors
	info   fs.FileInfo
	open   func() (fs.File, error)
	target string // of a symbolic link
}

func (n node) isFile() bool { return n.info != nil && n.info.Mode().IsRegular() }

func (n node) isLink() bool { return n.info != nil && n.info.Mode().Type() == fs.ModeSymlink }

// gatherTree is all files of a layer by their paths in the image, with the directories that they lie in.
func gatherTree(ctx context.Context, layer Layer) (map[string]node, error) {
	tree := map[string]node{}
	if layer.FS != nil {
		if err := gatherFS(ctx, tree, layer.FS, "", layer.At); err != nil {
			return nil, fmt.Errorf("its FS%s: %w", nameOf(layer.FS), err)
		}
	}
	taken := map[string]string{}
	for _, at := range slices.Sorted(maps.Keys(layer.Files)) {
		from := layer.Files[at]
		if other, ok := taken[path.Clean("/"+at)]; ok {
			return nil, fmt.Errorf("%s: Files has its place twice, as %q and as %q", from, other, at)
		}
		taken[path.Clean("/"+at)] = at
		info, err := os.Stat(from)
		switch {
		case err != nil:
		case leadsUp(at):
			err = fmt.Errorf("%s: %w", from, errNoPlace(at))
		case info.IsDir():
			err = gatherFS(ctx, tree, os.DirFS(from), from, at)
		default:
			err = addNode(tree, at, node{name: from, info: info, open: func() (fs.File, error) { return os.Open(from) }})
		}
		if err != nil {
			return nil, err
		}
	}
	return tree, checkTree(tree)
}

// nameOf is the directory of os.DirFS, which tells it in no other way.
func nameOf(fsys fs.FS) string {
	if v := reflect.ValueOf(fsys); v.Kind() == reflect.String {
		return " " + v.String()
	}
	return ""
}

// checkTree refuses what lies below a file: no program could unpack it.
func checkTree(tree map[string]node) error {
	for at, one := range tree {
		parent, ok := tree[path.Dir(at)]
		if ok && parent.info != nil && !parent.info.IsDir() {
			return fmt.Errorf("%s: its place %q lies below %q, which is no directory", one.name, at, path.Dir(at))
		}
	}
	return nil
}

func gatherFS(ctx context.Context, tree map[string]node, fsys fs.FS, from, at string) error {
	return fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		one := node{name: path.Join(from, name), info: info, open: func() (fs.File, error) { return fsys.Open(name) }}
		if info.Mode().Type() == fs.ModeSymlink {
			if one.target, err = fs.ReadLink(fsys, name); err != nil {
				return err
			}
		}
		if name == "." && path.Clean("/"+at) == "/" {
			return nil
		}
		return addNode(tree, path.Join(at, name), one)
	})
}

// addNode puts a file into the tree, below directories.
func addNode(tree map[string]node, at string, one node) error {
	clean := strings.TrimPrefix(path.Clean("/"+at), "/")
	if clean == "" {
		return fmt.Errorf("%s: %w", one.name, errNoPlace(at))
	}
	if kind := one.info.Mode().Type(); kind&^(fs.ModeDir|fs.ModeSymlink) != 0 {
		return fmt.Errorf("%s: %w: it is neither a file nor a directory nor a symbolic link", one.name, berth.ErrUnsupported)
	}
	for parent := path.Dir(clean); parent != "."; parent = path.Dir(parent) {
		if _, ok := tree[parent]; !ok {
			tree[parent] = node{name: parent}
		}
	}
	tree[clean] = one
	return nil
}

// leadsUp reports whether a path has steps upwards. Such a one is refused even if it stays within the image.
func leadsUp(at string) bool { return strings.Contains("/"+at+"/", "/../") }

func errNoPlace(at string) error { return fmt.Errorf("%q is no path in an image", at) }

// writeLayer writes a tree as a tar file, and compresses and hashes it on the way.
func writeLayer(ctx context.Context, temp *os.File, tree map[string]node, layer Layer, opts BuildOptions) (*layerFile, error) {
	sum, diff := digest.SHA256.Digester(), digest.SHA256.Digester()
	out := &countedWriter{Writer: bufio.NewWriterSize(io.MultiWriter(temp, sum.Hash()), 1<<20)}
	compressed, err := compress(out, layer.Compression)
	if err != nil {
		return nil, err
	}
	var plain io.Writer = compressed
	if layer.Compression == None {
		diff = sum
	} else {
		plain = io.MultiWriter(compressed, diff.Hash())
	}
	archive := &treeWriter{tar.NewWriter(plain), layer, opts.time(), make([]byte, 64<<10)}
	for _, at := range slices.Sorted(maps.Keys(tree)) {
		if err := archive.write(ctx, at, tree[at]); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(archive.Close(), compressed.Close(), out.Writer.(*bufio.Writer).Flush()); err != nil {
		return nil, err
	}
	desc := v1.Descriptor{MediaType: layerTypes[layer.Compression], Digest: sum.Digest(), Size: out.bytes}
	return &layerFile{desc: desc, diffID: diff.Digest(), path: temp.Name(), temporary: true}, nil
}

type countedWriter struct {
	io.Writer
	bytes int64
}

func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.bytes += int64(n)
	return n, err
}

func compress(to io.Writer, how Compression) (io.WriteCloser, error) {
	switch how {
	case None:
		return plainWriter{to}, nil
	case Gzip:
		return gzip.NewWriter(to), nil
	case Zstd:
		return zstd.NewWriter(to, zstd.WithEncoderConcurrency(1)) // with one, the same bytes on all machines
	}
	return nil, fmt.Errorf("compression %.20q: %w: want %q, %q, or none, which is empty", how, berth.ErrUnsupported, Gzip, Zstd)
}

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// treeWriter writes files into a tar file, as those of one layer.
type treeWriter struct {
	*tar.Writer
	layer Layer
	time  time.Time
	buf   []byte
}

func (w *treeWriter) write(ctx context.Context, at string, one node) error {
	err := w.WriteHeader(w.header(at, one))
	if err == nil && one.isFile() {
		err = w.copy(ctx, one)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", one.name, err)
	}
	return ctx.Err()
}

func (w *treeWriter) header(at string, one node) *tar.Header {
	header := &tar.Header{Name: at, Typeflag: tar.TypeDir, Mode: 0o755, Uid: w.layer.UID, Gid: w.layer.GID, ModTime: w.time}
	switch {
	case one.isFile():
		header.Typeflag, header.Size, header.Mode = tar.TypeReg, one.info.Size(), 0o644
		if one.info.Mode()&0o100 != 0 {
			header.Mode = 0o755
		}
	case one.isLink():
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, one.target, 0o777
	default:
		header.Name += "/"
	}
	if w.layer.KeepModes && one.info != nil && !one.isLink() {
		header.Mode = tarMode(one.info.Mode())
	}
	return header
}

// tarMode is a mode as tar has it.
func tarMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

// copy writes exactly as many bytes as the header says.
func (w *treeWriter) copy(ctx context.Context, one node) error {
	file, err := one.open()
	if err != nil {
		return err
	}
	defer file.Close()
	n, err := io.CopyBuffer(w, steady{ctx, io.LimitReader(file, one.info.Size())}, w.buf)
	if err != nil {
		return err
	}
	more, err := file.Read(w.buf[:1])
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n != one.info.Size() || more > 0 {
		return fmt.Errorf("it has not the %d bytes any more that it had: it was changed while it was read", one.info.Size())
	}
	return nil
}
