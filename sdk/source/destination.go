package source

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// Destination is a place that takes one image. Its methods may run at the same time, except Commit and Close.
// Several destinations may be one place at once, in one process or in many: each commits its own
// image.
type Destination interface {
	// Has reports whether the place holds that content already.
	Has(ctx context.Context, desc v1.Descriptor) (bool, error)

	// Put stores what desc describes, and verifies it. What was refused may be put once more.
	//
	// Errors: berth.ErrDigestInvalid where the bytes are not what desc says.
	Put(ctx context.Context, desc v1.Descriptor, content io.Reader) error

	// Commit makes root the image, and has it on disk when it returns, or where a registry has it. Before it, the
	// place does not show that anything has come.
	//
	// Errors: berth.ErrBlobUnknown where root was not put and is not there.
	Commit(ctx context.Context, root v1.Descriptor) error

	// Close releases what is open and removes what was not committed.
	Close() error
}

// Importer is a Destination that takes blobs from files of this machine without reading them through its caller.
type Importer interface {
	// PutFile is Put of what a file holds, which is shared with it, or copied, and verified then.
	//
	// Errors: berth.ErrUnsupported where it is to be put; berth.ErrDigestInvalid.
	PutFile(ctx context.Context, desc v1.Descriptor, from berth.LocalFile) (berth.ImportMethod, error)
}

// Chooser is a Destination that does not take every image.
type Chooser interface {
	// Accepts reports whether an image can be committed, before anything of it was put.
	//
	// Errors: berth.ErrUnsupported.
	Accepts(root v1.Descriptor) error
}

// ParseDestination returns the place that a text like "oci:DIR:NAME" means.
//
// Errors: ErrForm, and what keeps the place from being made.
func ParseDestination(text string) (Destination, error) {
	form, path, name, err := Split(text)
	if err != nil {
		return nil, err
	}
	switch form {
	case FormLayout:
		return ToLayout(path, name)
	case FormDocker:
		return ToDockerArchive(path, name)
	}
	return ToArchive(path, name)
}

// verifiedCopy copies exactly what desc describes, or fails. What is too long is noticed before any
// of it that is too much has been written.
func verifiedCopy(to io.Writer, desc v1.Descriptor, content io.Reader) error {
	verifier := desc.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(to, verifier), io.LimitReader(content, desc.Size))
	if err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, err)
	}
	more, err := io.CopyN(io.Discard, content, 1)
	switch {
	case more > 0:
		return fmt.Errorf("%s: %w: more than the %d bytes came that its descriptor says", desc.Digest, berth.ErrDigestInvalid, desc.Size)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("%s: %w", desc.Digest, err)
	case n != desc.Size:
		return fmt.Errorf("%s: %w: %d bytes came, its descriptor says %d", desc.Digest, berth.ErrDigestInvalid, n, desc.Size)
	case !verifier.Verified():
		return fmt.Errorf("%s: %w: its content is something else", desc.Digest, berth.ErrDigestInvalid)
	}
	return nil
}

// checkRoot refuses to name what is not there.
func checkRoot(ctx context.Context, to Destination, root v1.Descriptor) error {
	there, err := to.Has(ctx, root)
	if err == nil && !there {
		err = fmt.Errorf("%s: %w: it was not put", root.Digest, berth.ErrBlobUnknown)
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}
