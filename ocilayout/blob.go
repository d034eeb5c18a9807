package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

const octetStream = "application/octet-stream"

// file is a blob that lies in a file; embedding it whole lets the kernel send it.
type file struct {
	*os.File
	desc v1.Descriptor
}

func (f *file) Descriptor() v1.Descriptor { return f.desc }

func (r *repository) StatBlob(ctx context.Context, d digest.Digest) (v1.Descriptor, error) {
	if err := berth.ValidateDigest(d); err != nil {
		return v1.Descriptor{}, err
	}
	if err := r.layout.recent.touch(ctx, d); err != nil {
		return v1.Descriptor{}, err
	}
	rec, err := r.blobRecord(d)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := r.vouch(ctx, d, rec); err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: octetStream, Digest: d, Size: rec.Size}, nil
}

func (r *repository) OpenBlob(ctx context.Context, d digest.Digest) (berth.Blob, error) {
	desc, err := r.StatBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	f, err := r.layout.openRegular(blobPath(d), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r.unknownBlob(d, "its file is gone")
	}
	if err != nil {
		return nil, err
	}
	return &file{f, desc}, nil
}

func (r *repository) blobRecord(d digest.Digest) (blobRecord, error) {
	var rec blobRecord
	err := r.layout.db.View(func(tx *bolt.Tx) error {
		if !has(tx, bucketBlobs, key(string(d), r.name)) {
			return r.unknownBlob(d, "")
		}
		found, err := get(tx, bucketBlobs, key(string(d)), &rec)
		if err == nil && !found {
			err = r.unknownBlob(d, "it has no record")
		}
		return err
	})
	return rec, err
}

// vouch makes sure that the file is what the index says, as far as one look can tell. A blob that
// cannot be vouched for is unknown: then its owner pushes it again, which mends it.
func (r *repository) vouch(ctx context.Context, d digest.Digest, rec blobRecord) error {
	if err := r.layout.look(d, rec); err != nil {
		return r.unknownBlob(d, err.Error())
	}
	if rec.Unverified {
		return r.verify(ctx, d)
	}
	return nil
}

// look compares a blob's file with what is known of it, without reading it.
func (l *Layout) look(d digest.Digest, rec blobRecord) error {
	info, err := l.dir.Lstat(blobPath(d))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("its file is gone")
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("in its place is a %s", kindOf(info.Mode()))
	case info.Size() != rec.Size:
		return fmt.Errorf("its file is damaged: %d bytes of %d", info.Size(), rec.Size)
	}
	return nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	}
	return "special file"
}

// verify hashes a file that came from outside before it is first served.
func (r *repository) verify(ctx context.Context, d digest.Digest) error {
	done := r.layout.hashing.DoChan(string(d), func() (any, error) { return nil, r.layout.verifyBlob(r.layout.life, d) })
	select {
	case result := <-done:
		if result.Err != nil {
			return r.unknownBlob(d, result.Err.Error())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *repository) unknownBlob(d digest.Digest, why string) error {
	if why != "" {
		r.layout.log.Warn("blob cannot be served", "repository", r.name, "digest", d, "why", why)
		return fmt.Errorf("%s@%s: %w: %s", r.name, d, berth.ErrBlobUnknown, why)
	}
	return fmt.Errorf("%s@%s: %w", r.name, d, berth.ErrBlobUnknown)
}

func (r *repository) DeleteBlob(ctx context.Context, d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	return r.layout.writer.commit(ctx, change{
		check: func(tx *bolt.Tx) error {
			if !has(tx, bucketBlobs, key(string(d), r.name)) {
				return r.unknownBlob(d, "")
			}
			return nil
		},
		write: func(tx *bolt.Tx, _ uint64) error {
			return remove(tx, bucketBlobs, key(string(d), r.name))
		},
		hidden: true,
	})
}

// mount makes a blob of another repository a member of this one. It reports whether it did.
func (r *repository) mount(ctx context.Context, opts *berth.UploadOptions) (bool, error) {
	d := opts.Mount
	if err := berth.ValidateDigest(d); err != nil {
		return false, err
	}
	source, err := r.findHolder(ctx, opts)
	if source == nil {
		return false, err
	}
	release, err := r.layout.recent.hold(ctx, d)
	if err != nil {
		return false, err
	}
	defer release()
	if _, err := source.StatBlob(ctx, d); err != nil {
		return false, ctx.Err()
	}
	err = r.layout.writer.commit(ctx, change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
		return addMember(tx, r.name, d)
	}})
	return err == nil, err
}

// findHolder returns the repository to mount from, or nil: the one that was named, else the first that
// has the blob and may be pulled from.
func (r *repository) findHolder(ctx context.Context, opts *berth.UploadOptions) (*repository, error) {
	may := func(name string) bool { return opts.MayMount == nil || opts.MayMount(name) }
	if opts.From != "" {
		if !may(opts.From) {
			return nil, nil
		}
		return &repository{r.layout, opts.From}, nil
	}
	holders := span{bucket: bucketBlobs, prefix: prefix(string(opts.Mount))}
	for name, err := range pages(ctx, r.layout.db, holders, func(k, _ []byte) (string, error) { return lastPart(k), nil }) {
		if err != nil {
			return nil, err
		}
		if may(name) {
			return &repository{r.layout, name}, nil
		}
	}
	return nil, nil
}

// verifyBlob hashes a blob's file and, where it is what its name says, records that.
func (l *Layout) verifyBlob(ctx context.Context, d digest.Digest) error {
	if err := l.hashers.Acquire(ctx, 1); err != nil {
		return err
	}
	defer l.hashers.Release(1)
	size, err := l.hashFile(ctx, d)
	if err == nil {
		err = l.adopt(d, size)
	}
	if err != nil {
		return err
	}
	return l.writer.commitAlways(ctx, change{hidden: true, write: func(tx *bolt.Tx, _ uint64) error {
		if !has(tx, bucketBlobs, key(string(d))) {
			return nil
		}
		return put(tx, bucketBlobs, key(string(d)), blobRecord{Size: size})
	}})
}

// hashFile reads a blob's file, and fails if it is not what its name says.
func (l *Layout) hashFile(ctx context.Context, d digest.Digest) (int64, error) {
	f, err := l.openRegular(blobPath(d), os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	hash := d.Algorithm().Hash()
	size, err := io.Copy(hash, contextReader{ctx, f})
	if err != nil {
		return size, err
	}
	if got := digest.NewDigest(d.Algorithm(), hash); got != d {
		return size, fmt.Errorf("%w: it hashes to %s", errWrongBytes, got)
	}
	return size, nil
}

var errWrongBytes = errors.New("its file is damaged")

// contextReader ends a long reading with its context.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
