package ocilayout

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// ImportBlob takes a blob from a file, as berth.Importer says. The upload that it is meanwhile cannot be resumed, and so
// its file is none that is kept over a restart.
func (r *repository) ImportBlob(ctx context.Context, d digest.Digest, from berth.LocalFile) (berth.ImportMethod, error) {
	if err := berth.ValidateDigest(d); err != nil {
		return "", err
	}
	mounted, err := r.mount(ctx, &berth.UploadOptions{Mount: d})
	switch {
	case err != nil:
		return "", err
	case mounted:
		if err := r.hasSize(ctx, d, from.Size); err != nil {
			return "", err
		}
		return berth.Mounted, nil
	case from.Path == "":
		return "", fmt.Errorf("%w: no repository has the blob, and no file is named", berth.ErrUnsupported)
	}
	file, info, err := openLocal(from)
	if err != nil {
		return "", fmt.Errorf("file %s: %w: %w", from.Path, berth.ErrUnsupported, err)
	}
	defer file.Close()
	up, err := r.beginUpload(ctx, newUploadID(d.Algorithm()), ingestPath+"/"+durable.TempPrefix+rand.Text())
	if err != nil {
		return "", err
	}
	i := &importing{upload: up, from: from, file: file, whole: from.Offset == 0 && from.Size == info.Size()}
	method, err := i.take(ctx)
	if err == nil && i.Size() != from.Size {
		err = fmt.Errorf("%w: %d bytes were there to be read, %d were meant", berth.ErrDigestInvalid, i.Size(), from.Size)
	}
	if err == nil {
		_, err = i.Commit(ctx, d)
	}
	i.Cancel(ctx)
	if err != nil {
		return "", fmt.Errorf("file %s: %w", from.Path, err)
	}
	return method, nil
}

// hasSize refuses what was meant to be a blob of another size.
func (r *repository) hasSize(ctx context.Context, d digest.Digest, size int64) error {
	stat, err := r.StatBlob(ctx, d)
	if err == nil && stat.Size != size {
		err = fmt.Errorf("%w: %d bytes were meant, what has this digest has %d", berth.ErrDigestInvalid, size, stat.Size)
	}
	return err
}

var (
	errNoFile     = errors.New("it is no regular file")
	errOtherFile  = errors.New("it is another file than its caller has seen")
	errOtherOwner = errors.New("it is another user's")
	errNoIdentity = errors.New("the system does not tell which file it is")
	errOutside    = errors.New("the bytes that are meant are not all there")
)

// openLocal opens the file that is meant, and no other: neither what a symbolic link leads to, nor what would keep
// its reader waiting.
func openLocal(from berth.LocalFile) (*os.File, fs.FileInfo, error) {
	file, err := openQuietly(from.Path)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = judgeLocal(from, info)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

func judgeLocal(from berth.LocalFile, info fs.FileInfo) error {
	device, inode, owner, known := durable.Identity(info)
	switch {
	case !info.Mode().IsRegular():
		return errNoFile
	case !known:
		return errNoIdentity
	case device != from.Device || inode != from.Inode:
		return errOtherFile
	case owner != os.Geteuid():
		return errOtherOwner
	case from.Offset < 0 || from.Size < 0 || from.Size > info.Size()-from.Offset:
		return errOutside
	}
	return nil
}

// importing is an upload whose bytes come from a file.
type importing struct {
	*upload
	from  berth.LocalFile
	file  *os.File
	whole bool // the bytes that are meant are all that the file has
}

// take brings the bytes into the upload, in the way that costs least. Of what is not small the disk's own copy is
// read and hashed.
func (i *importing) take(ctx context.Context) (berth.ImportMethod, error) {
	if i.whole && i.from.Size > smallUpload {
		method, err := i.share()
		if err == nil {
			return method, i.hashClone(ctx)
		}
		if !errors.Is(err, durable.ErrNoClone) {
			return "", err
		}
	}
	_, err := i.ReadFrom(contextReader{ctx, io.NewSectionReader(i.file, i.from.Offset, i.from.Size)})
	return berth.Copied, err
}

// share makes the upload's file one that has its bytes in common with the original.
//
// Errors: durable.ErrNoClone.
func (i *importing) share() (method berth.ImportMethod, err error) {
	dir := i.repo.layout.dir
	link := i.from.Link && isReadable(i.file)
	if link {
		method = berth.Linked
		i.upload.file, err = dir.Adopt(i.file, i.from.Path, i.path)
	}
	if !link || errors.Is(err, durable.ErrNoClone) {
		method = berth.Cloned
		i.upload.file, err = dir.Clone(i.file, i.path, 0o644)
	}
	i.shared = err == nil
	return method, err
}

// isReadable reports whether a file's owner may read it, who is the layout's: root could read it now, and nobody later.
func isReadable(file *os.File) bool {
	const byOwner = 0o400
	info, err := file.Stat()
	return err == nil && info.Mode()&byOwner != 0
}

// hashClone hashes what the upload's file has in common with another one.
func (i *importing) hashClone(ctx context.Context) error {
	clone := i.newDirectReader(i.from.Size)
	defer clone.Close()
	if i.from.Size >= aheadAfter {
		clone.hashAhead(ctx, i.repo.layout.chunks, i.state.hash)
	}
	_, err := i.hashFile(contextReader{ctx, clone})
	i.state.size = clone.at
	return err
}

// hashFile hashes what the upload's file holds, which nobody else changes, and tells how much that is.
func (u *upload) hashFile(from io.Reader) (int64, error) {
	sum, stock := u.state.hash, u.repo.layout.chunks
	hashing := startHashing(stock, sum)
	n, err := stock.feed(from, 0, hashing)
	hashing.end()
	if err == nil { // there were no more buffers
		var more int64
		buf := stock.small.Get().(*[]byte)
		defer stock.small.Put(buf)
		more, err = io.CopyBuffer(sum, onlyReader{from}, *buf)
		n += more
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
