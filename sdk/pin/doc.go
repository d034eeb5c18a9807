// Package pin reads, edits and checks the lock file berth.lock: which manifest each image reference
// stood for when it was pinned. A build that looks references up in it gets the same bytes
// tomorrow, although tags move.
//
// # The file
//
// It is YAML, made to be read, reviewed and merged by people:
//
//	# Comments are kept.
//	version: 1
//	pins:
//	  app/hello:v1:
//	    digest: sha256:0f3a…
//	    mediaType: application/vnd.oci.image.index.v1+json
//	    size: 1234
//	    platforms:
//	      linux/amd64: sha256:5b1c…
//	      linux/arm64/v8: sha256:77d0…
//	    comment: the base of all our images
//	  docker.io/library/alpine:3.20:
//	    digest: sha256:beef…
//	    mediaType: application/vnd.oci.image.manifest.v1+json
//	    size: 527
//
// version is 1, and pins holds one entry for each reference. Both are required; pins may be empty.
//
// A key of pins is a reference in its full form, the one that [Normalize] returns: repository:tag
// for what lies in the local layout, with a host in front for a remote registry. Two spellings of
// one reference are therefore one entry.
//
// An entry has these fields:
//
//   - digest (required): of the index or image manifest, as in "sha256:<64 hex digits>".
//   - mediaType (required): of that manifest, without parameters.
//   - size (required): of that manifest, in bytes, from 1 to [berth.MaxManifestSize].
//   - platforms (only for an index): the digest of the child for each platform, see below.
//   - comment (optional): the user's words. Nothing but a [Pin] with another comment changes it.
//
// A platform is written os/arch or os/arch/variant, in the words of the index. Where the index tells
// an os.version, as it does for Windows, that follows the os: windows(10.0.20348.2227)/amd64. Of
// two children with the same platform the first counts, for it is the one that a client SHOULD use
// (image-spec, image-index.md). Children without a platform are left out, those that do not fit this
// form too, and so are attestations, whose platform is unknown/unknown: the digest of the index pins them all.
//
// There is no time in the file, so pinning the same thing twice changes nothing.
//
// # What is refused
//
// The file is refused as a whole, with one line that has the file's name, the line number and what
// to do, for: unknown fields, keys that are there twice, another version, references that are not in
// full form, wrong digests and sizes, left-over conflict markers of a merge, more than [MaxSize]
// bytes. All these errors are [ErrInvalid]. Of YAML the plain block form is read: one "key: value" a
// line, indented with spaces; values may be quoted, and a comment may be a block after "|" or ">".
// Anchors, aliases, tags, lists and {flow mappings} other than the empty one are refused, for the
// file could not be edited in place with them.
//
// # Editing
//
// [File.Set] changes the bytes of the values that change, and no others: comments, blank lines,
// quotes, indentation, line endings (LF or CRLF) and the order of entries stay as they are. A new
// entry or platform goes before the first one whose key is greater in byte order; where the order is
// the user's own, it is not touched. A platform that is gone takes its line along, but a comment on
// that line stays; a value that changes is written without quotes where it needs none, and a block
// that is replaced becomes one line. Every edit is read back before it counts: either exactly the pins that were set
// are different, or the File is unchanged and Set fails.
//
// # Example
//
//	changes, err := pin.AddTo(ctx, "berth.lock", fetcher, "app/hello:v1", "docker.io/alpine:3.20")
//	f, err := pin.Load("berth.lock")
//	drifts, err := pin.Verify(ctx, f, fetcher)
package pin
