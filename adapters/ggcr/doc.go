// Package ggcr lets programs that use github.com/google/go-containerregistry use berth: images go from one to
// the other in both directions, and so do logins. It is a module of its own.
//
//	pushed, err := registry.Push(ctx, ggcr.Source(img), "app/hello:v1", nil)
//	repo, err := registry.Repository("app/hello")
//	img, err := ggcr.Image(ctx, repo, "v1")
//	layers, err := img.Layers()
//	remotes := sdk.NewRemotes(&sdk.Options{Credentials: ggcr.Credentials(authn.DefaultKeychain)})
//
// # Into berth
//
// [Source] and [IndexSource] are images as berth takes them. A manifest is the bytes that RawManifest returns,
// and what it names is looked for in the image, or in what the index lists, however deep. Only what is asked for
// is read, and nothing is written to disk: a layer that is compressed while it is read is compressed while it is
// pushed. Berth hashes all of it.
//
// The manifest must be known before the first byte is sent. An image with a layer of package stream has none
// until that was read, and Root returns stream.ErrNotComputed: write the layer to a file, and use package tarball.
//
// # Out of berth
//
// [Image] and [Index] read any [berth.Repository]: the layout's, which sdk.Registry opens, or a remote one's. The
// manifest is read at once, all else when it is asked for, and the context that they were given governs that too.
// Manifests and configs are verified before they are returned; the reader of a layer returns
// [berth.ErrDigestInvalid] in the place of io.EOF, where it was not the layer that came.
//
// A digest is sha256 or sha512: go-containerregistry does not parse a manifest that names others. Manifests of
// Docker's schema 1 are not read.
//
// # Logins
//
// [Credentials] and [Keychain] turn the one form of a credential lookup into the other. A user name with a
// password, an identity token and an access token, which is a registry token there, have the same meaning on
// both sides.
//
// # Errors
//
// An error that was one of berth's still is, and matches its sentinels; where content is missing or access to it
// is refused, it is also a [transport.Error] with the status that a registry answers with. In the other
// direction that error, with status 404, and [fs.ErrNotExist] are also [berth.ErrBlobUnknown].
//
// # Concurrency
//
// All that is returned here may be used by several goroutines at once, except readers. So must the images be
// that a source is made of, as those of go-containerregistry are.
package ggcr
