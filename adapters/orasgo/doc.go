// Package orasgo lets programs that use oras-go, oras.land/oras-go/v2, use berth: a repository is an oras.Target,
// and what lies in a store of oras-go can be pushed. It is a module of its own.
//
//	repo, err := registry.Repository("app/hello")
//	target := orasgo.NewTarget(repo)
//	desc, err := oras.Copy(ctx, store, "v1", target, "v1", oras.DefaultCopyOptions)
//	desc, err = oras.ExtendedCopy(ctx, target, "v1", store, "v1", oras.DefaultExtendedCopyOptions)
//	pushed, err := registry.Push(ctx, orasgo.Source(store, desc), "app/hello:v2", nil)
//
// # A repository as a target
//
// A [Target] keeps manifests and blobs apart, as the distribution API does, by the media types of the descriptors: a
// manifest is what package manifest of berth takes for one. Push of what is there succeeds. All that is pushed is
// verified, in size and digest. What is fetched from a remote registry is verified while it is read, to its end;
// content.FetchAll does so for all.
//
// A reference is a tag or a digest, or a tag with a digest behind an @, of which the digest counts. oras.Copy
// pushes the root together with its tag, in one request.
//
// Predecessors are the referrers of a manifest, and not the indexes that list it, as with the repositories of
// oras-go itself: a registry can tell no others. So oras.ExtendedCopy brings an image with its signatures.
//
// # Errors
//
// An error of berth still matches its sentinels, and those of oras-go as well: what is missing is
// [errdef.ErrNotFound] and one of berth.ErrBlobUnknown, berth.ErrManifestUnknown and berth.ErrNameUnknown. The others
// are [errdef.ErrInvalidReference], [errdef.ErrInvalidDigest], [errdef.ErrMissingReference],
// [errdef.ErrSizeExceedsLimit], [errdef.ErrUnsupported] and [content.ErrMismatchedDigest].
//
// # Concurrency
//
// All methods of a Target may run at once.
package orasgo
