// Package containerd lets programs that use containerd's content interfaces, as BuildKit and nerdctl do, use
// berth: an image in a content store can be pushed, and a repository is a content store. It is a module of its own.
//
//	pushed, err := registry.Push(ctx, containerd.Source(provider, image.Target), "app/hello:v1", nil)
//	repo, err := registry.Repository("app/hello")
//	store := containerd.NewStore(repo)
//	raw, err := content.ReadBlob(ctx, store, pushed.Descriptor)
//	layers, err := images.RootFS(ctx, store, config)
//
// # Into berth
//
// [Source] reads from any [content.Provider]. Berth hashes what comes.
//
// # A repository as a store
//
// A [Store] has what a repository has: its blobs and its manifests, each by its digest, without a difference
// between them. What it writes are blobs, whatever they are, for content comes into such a store in any order,
// and mostly without a media type: a manifest often before what it names. To make an image of them, with tags, push
// it from the store itself. Its blobs are there, so none moves; and what nobody has pushed so goes with a later
// collection:
//
//	err = content.Copy(…)
//	pushed, err := registry.Push(ctx, containerd.Source(store, root), "app/hello:v1", nil)
//
// What the contract of package berth has not, the store has not:
//
//   - Labels: Update is [errdefs.ErrNotImplemented], Info has none, and those that Commit is given are dropped,
//     as containerd's own store does where it was made without labels.
//   - A list of the blobs: Walk is [errdefs.ErrNotImplemented].
//   - Times: CreatedAt and UpdatedAt are zero.
//
// A store that needs them can be put in front, as containerd's metadata store is put in front of its files.
//
// Manifests of Docker's schema 1 are not found: their digest is not that of their bytes.
//
// # Writers
//
// What is written under a ref stays when its [content.Writer] is closed, and the next Writer of that ref goes on
// where it ended: within this process, by this Store, and for as long as the registry keeps an upload that nobody
// writes to. Where that has lost it the Writer begins anew: Status tells from where on. Bytes are sent in steps
// of some megabytes, and Offset counts those that wait to be sent too. The context that a Writer was made with
// governs its writes.
//
// # Errors
//
// What is missing is both berth.ErrBlobUnknown or berth.ErrManifestUnknown and [errdefs.ErrNotFound], in both
// directions; a login that is missing or not enough is [errdefs.ErrUnauthenticated] or
// [errdefs.ErrPermissionDenied]. Bytes that are not what their digest says are [errdefs.ErrFailedPrecondition]
// where they are committed, and [errdefs.ErrDataLoss] where they are read; both are berth.ErrDigestInvalid too.
//
// # Concurrency
//
// All methods of a Store may run at once. A Writer belongs to one goroutine, except that Abort may end it.
package containerd
