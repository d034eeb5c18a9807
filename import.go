package berth

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Importer is a BlobStore that takes blobs from files of its own machine: their bytes go through no connection, and
// where files can share them they are not copied.
type Importer interface {
	// ImportBlob stores the bytes that from names. The registry makes a file of its own of them, and hashes that:
	// whatever becomes of the original meanwhile, what is stored is what d says, or nothing is. Where another of its
	// repositories has the blob, it is taken from there, and no file is looked at: from without a Path asks for that alone.
	//
	// Errors: ErrDigestInvalid, also where the blob is there and has not from.Size bytes; ErrUnsupported, with the
	// reason, for a file that is not taken, because it is another one than its caller has seen, or another user's, or
	// none. Its bytes may be uploaded then.
	ImportBlob(ctx context.Context, d digest.Digest, from LocalFile) (ImportMethod, error)
}

// LocalFile names bytes in a file of this machine.
type LocalFile struct {
	// Path is absolute, without symbolic links.
	Path string
	// Offset and Size say which bytes are meant.
	Offset, Size int64
	// Device and Inode are those of the file that is meant, which may not be what the path leads to elsewhere: in
	// another mount namespace, or later.
	Device, Inode uint64
	// Link lets the registry keep the file itself, by a hard link, where Size is all that it has. Who asks for that
	// gives their word that nobody will ever change its bytes.
	Link bool
}

// Located is content that may lie in a file of this machine, as what is opened for reading may be.
type Located interface {
	// LocalFile is where. It reports false where the content is in no such file, or the system has no numbers
	// that tell one file from another.
	LocalFile() (LocalFile, bool)
}

// ImportMethod is how a registry has come by the bytes of a file.
type ImportMethod string

// The methods.
const (
	// Cloned: the two files share their bytes on the disk until one of them changes.
	Cloned ImportMethod = "cloned"
	// Copied: the bytes were copied.
	Copied ImportMethod = "copied"
	// Linked: it is the same file.
	Linked ImportMethod = "linked"
	// Mounted: another repository has the blob, and nothing was read.
	Mounted ImportMethod = "mounted"
)
