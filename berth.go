// Package berth is the contract of an OCI registry that lives inside a build tool.
//
// Everything that stores or serves images in this module implements [Registry]: a directory on disk
// (package ocilayout), a registry that is spoken to over HTTP (package sdk/remote), and what wraps
// them. A caller that holds a Registry does not know, and need not know, which of them it has.
//
// # Words
//
// A blob is a sequence of bytes named by its digest. A manifest is a blob that describes an image,
// an index of images, or an artifact; its children are the blobs and manifests that it names. A tag
// is a name for a manifest inside a repository, and can move. Descriptors are those of the OCI image
// specification, digests those of go-digest, repository names and tags have the grammar of the
// OCI distribution specification ("Pulling manifests").
//
// # What a repository sees
//
// Bytes are shared by all repositories of a registry; sight is not. A blob is a member of the
// repositories that it was uploaded to or mounted into, and only they can stat, open or reference
// it. The children of a manifest are checked against the members of its own repository.
//
// # Manifests of schema 1
//
// The digest of a manifest of Docker's schema 1 is that of its payload: of what its signatures sign.
// Its descriptor has that digest, and the size of the bytes that are served, signatures included. Only
// for these is raw not what the digest is of. One that is pushed must have the name of its repository,
// which in the namespace library may be left out, and the tag that it is pushed to.
//
// # Errors
//
// Each method lists the errors that a caller may branch on; test for them with [errors.Is]. They
// hold across a process and across HTTP: a manifest that is missing in a remote registry is
// [ErrManifestUnknown], as it is in a directory. An invalid name, tag or digest is
// [ErrNameInvalid], [ErrTagInvalid] or [ErrDigestInvalid] everywhere, and not listed again. What ends
// because its context did matches ctx.Err().
//
// # Concurrency
//
// All methods of Registry and Repository may run at once. An [Upload] and a [Blob] belong to one
// goroutine at a time.
//
// # Example
//
//	repo, err := registry.Repository("app/hello")
//	upload, err := repo.NewUpload(ctx, nil)
//	_, err = io.Copy(upload, layer)
//	layerDesc, err := upload.Commit(ctx, layerDigest)
//	desc, err := repo.PushManifest(ctx, raw, &berth.PushOptions{Tags: []string{"v1"}})
package berth

import (
	"context"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifestSize is the largest manifest, in bytes, that any part of this module reads or stores.
// The distribution specification asks registries to take at least 4 megabytes.
const MaxManifestSize = 4 << 20

// Registry is a set of repositories.
type Registry interface {
	// Repository returns the repository of that name. It validates the name and does no I/O: a
	// repository exists as soon as a manifest is in it.
	//
	// Errors: ErrNameInvalid.
	Repository(name string) (Repository, error)

	// Repositories yields the names of all repositories that hold a manifest and are greater than
	// after, in byte order. The first error ends the sequence.
	//
	// Errors: ErrUnsupported where the registry has no catalog.
	Repositories(ctx context.Context, after string) iter.Seq2[string, error]
}

// Repository is one named collection of blobs, manifests and tags.
type Repository interface {
	// Name is the repository's name, without a host: "app/hello".
	Name() string

	BlobStore
	ManifestStore
	Lister
}

// BlobStore holds the blobs that are members of a repository.
type BlobStore interface {
	// StatBlob returns the digest and size of a blob; its media type is
	// "application/octet-stream", for a blob does not know what it is.
	//
	// Errors: ErrBlobUnknown.
	StatBlob(ctx context.Context, d digest.Digest) (v1.Descriptor, error)

	// OpenBlob opens a blob for reading. The caller closes it. The bytes that a remote registry
	// sends are verified as they are read: a mismatch is reported as ErrDigestInvalid by the Read
	// that would have returned io.EOF.
	//
	// Errors: ErrBlobUnknown.
	OpenBlob(ctx context.Context, d digest.Digest) (Blob, error)

	// NewUpload begins an upload. With [UploadOptions.Mount] it tries to make a blob of another
	// repository a member of this one instead; where that worked there is nothing to upload, and
	// the error is ErrMounted.
	//
	// Errors: ErrMounted, ErrDenied, ErrTooManyRequests.
	NewUpload(ctx context.Context, opts *UploadOptions) (Upload, error)

	// ResumeUpload continues the upload with that ID, where it was left off by Close. One upload
	// is held by one caller at a time; a second one waits for its turn, and gets ErrUploadInvalid
	// if that does not come within seconds.
	//
	// Errors: ErrUploadUnknown, ErrUploadInvalid.
	ResumeUpload(ctx context.Context, id string) (Upload, error)

	// DeleteBlob ends a blob's membership of this repository. Other repositories keep theirs.
	//
	// Errors: ErrBlobUnknown, ErrUnsupported.
	DeleteBlob(ctx context.Context, d digest.Digest) error
}

// ManifestStore holds the manifests and tags of a repository.
type ManifestStore interface {
	// Resolve returns the descriptor of the manifest that ref names: a tag, or a digest.
	//
	// Errors: ErrManifestUnknown.
	Resolve(ctx context.Context, ref string) (v1.Descriptor, error)

	// FetchManifest returns the manifest that ref names, a tag or a digest, in one round trip. The
	// bytes are those that were pushed, never encoded anew, and hash to the descriptor's digest. They
	// may be shared, and must not be changed. Of one larger than opts.MaxSize only the descriptor is
	// returned, with no bytes.
	//
	// Errors: ErrManifestUnknown; ErrDigestInvalid where the bytes are not what was asked for.
	FetchManifest(ctx context.Context, ref string, opts *FetchOptions) (Manifest, error)

	// PushManifest stores a manifest and points tags at it, all or nothing. When it returns, the
	// manifest is as durable as the registry's blobs are.
	//
	// Errors: ErrManifestInvalid; ErrManifestBlobUnknown, one joined error for each missing child;
	// ErrDigestInvalid where opts.Digest is not the digest of raw; ErrTagInvalid; ErrSizeInvalid
	// beyond MaxManifestSize; ErrPreconditionFailed; ErrUnsupported where the media type is not known.
	// For a manifest of schema 1 also ErrNameInvalid; ErrManifestInvalid where a signature is wrong, a
	// parent is missing, or opts.Digest is not of its payload; and ErrBlobUnknown for a missing layer.
	PushManifest(ctx context.Context, raw []byte, opts *PushOptions) (v1.Descriptor, error)

	// DeleteManifest removes a manifest from this repository, and every tag that points at it.
	//
	// Errors: ErrManifestUnknown, ErrUnsupported.
	DeleteManifest(ctx context.Context, d digest.Digest) error

	// Untag removes a tag and leaves the manifest.
	//
	// Errors: ErrManifestUnknown, ErrPreconditionFailed, ErrUnsupported.
	Untag(ctx context.Context, tag string, opts *UntagOptions) error
}

// Lister lists what a repository holds. The first error ends a sequence. No lock and no transaction
// is held while the caller's loop body runs; what changes meanwhile may or may not be seen.
type Lister interface {
	// Tags yields all tags greater than after, in byte order.
	//
	// Errors: ErrNameUnknown where the repository holds no manifest.
	Tags(ctx context.Context, after string) iter.Seq2[string, error]

	// Referrers yields the descriptors of the manifests whose subject is the given digest, in the
	// byte order of their digests, with artifactType and annotations set as the distribution
	// specification asks ("Listing Referrers"). No referrer is an empty sequence, not an error.
	Referrers(ctx context.Context, subject digest.Digest, opts *ReferrersOptions) iter.Seq2[v1.Descriptor, error]
}

// Blob is an open blob. One that lies in a file also implements the methods of [os.File] that
// sendfile needs, so [io.Copy] to a socket copies nothing through this process.
type Blob interface {
	io.ReadSeekCloser

	// Descriptor is the blob's digest and size.
	Descriptor() v1.Descriptor
}

// Upload is a blob on its way in. Bytes are appended by Write in order.
type Upload interface {
	io.Writer

	// ID names the upload for ResumeUpload, within its repository.
	ID() string

	// Size is the number of bytes that the registry has taken so far.
	Size() int64

	// Commit ends the upload: the bytes become the blob of that digest, a member of the
	// repository. The upload is over, whatever is returned.
	//
	// Errors: ErrDigestInvalid where the bytes hash to something else.
	Commit(ctx context.Context, d digest.Digest) (v1.Descriptor, error)

	// Close leaves the upload as it is, to be continued by ResumeUpload. After Commit or Cancel it
	// does nothing.
	Close() error

	// Cancel ends the upload and discards its bytes.
	Cancel(ctx context.Context) error
}

// Manifest is a manifest's bytes and what they are.
type Manifest struct {
	// Descriptor has the media type, digest and size.
	Descriptor v1.Descriptor
	// Raw is what was pushed, byte for byte.
	Raw []byte
}

// UploadOptions say how an upload begins. Nil is the zero value.
type UploadOptions struct {
	// Algorithm of the digest that Commit will be given. Zero: sha256.
	Algorithm digest.Algorithm
	// Size is the blob's size in bytes if it is known: a hint. Zero or less: not known.
	Size int64
	// Mount is the digest of a blob that another repository has. Zero: no mount.
	Mount digest.Digest
	// From is the repository to mount from. Zero: any that the caller may pull from.
	From string
	// MayMount says whether the caller may pull from a repository. Where it is false, the blob is not
	// mounted from there, and is to be uploaded. It may be called at once from several goroutines. Nil:
	// from all. A remote registry decides that itself, so there a mount from any is not tried.
	MayMount func(repository string) bool
}

// PushOptions say what a manifest is and what shall point to it. Nil is the zero value.
type PushOptions struct {
	// MediaType of the manifest. Zero: what the manifest says of itself.
	MediaType string
	// Digest that the manifest must have. Zero: its sha256 digest, not checked.
	Digest digest.Digest
	// Tags to point at the manifest, all in one commit. Zero: none.
	Tags []string
	// IfMatch is what each of Tags must point at now. Zero: not checked.
	IfMatch digest.Digest
	// IfNoneMatch refuses to move a tag that exists.
	IfNoneMatch bool
	// AllowMissing takes an image or an index though children are missing (sparse content).
	AllowMissing bool
}

// FetchOptions restrict FetchManifest. Nil is the zero value.
type FetchOptions struct {
	// MaxSize is how large a manifest may be for its bytes to be returned. Zero: as large as it is.
	MaxSize int64
}

// Within reports whether a manifest of that size is returned with its bytes.
func (o *FetchOptions) Within(size int64) bool {
	return o == nil || o.MaxSize == 0 || size <= o.MaxSize
}

// UntagOptions restrict Untag. Nil is the zero value.
type UntagOptions struct {
	// IfMatch is what the tag must point at now. Zero: not checked.
	IfMatch digest.Digest
}

// ReferrersOptions select referrers. Nil is the zero value.
type ReferrersOptions struct {
	// ArtifactType that a referrer must have. Zero: any.
	ArtifactType string
	// After is the digest to begin after. Zero: from the first.
	After digest.Digest
}
