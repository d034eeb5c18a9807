package berth

import (
	"context"
	"iter"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Watcher is a registry that keeps a log of what happens to it, for some time, and tells it.
//
// A consumer that is to miss nothing, over ends of its own process and of the registry's, watches with
// no position, keeps that of the bookmark which comes first, looks at everything, and goes on:
//
//	for event, err := range watcher.Watch(ctx, &berth.WatchOptions{After: position}) {
//		switch {
//		case errors.Is(err, berth.ErrEventsLost):
//			return startOver(ctx) // with no position: a bookmark, and then all that there is
//		case err != nil:
//			return err
//		case position == "":
//			lookAtEverything(ctx)
//		}
//		apply(event)
//		position = save(event.Position)
//	}
//	return attachAgain(ctx, position) // the registry was closed
//
// What happens while it looks is seen twice, and never missed. One that ended before it had looked at
// everything has saved no position, and begins again.
type Watcher interface {
	// Watch yields a bookmark, and then what happened after a position, and what happens, in the order in
	// which it was done. Each event is yielded once, and only when it is as durable as the answer to who
	// caused it is; what was answered has its event. No lock and no transaction is held while the caller's
	// loop body runs. It may run as long as it likes, for as long as what follows is kept.
	//
	// The sequence ends with one error; with ctx.Err() where the context ended. Where the registry was
	// closed, it ends without one: whoever attaches to the registry again can go on after the last position.
	//
	// Errors: ErrEventsLost where what follows the position is not kept: it was too much, nobody has watched
	// for a day, or the registry was restored or made anew. Then the consumer has to look at everything, from
	// a bookmark on that it gets by no position. ErrUnsupported where the registry has no log.
	Watch(ctx context.Context, opts *WatchOptions) iter.Seq2[Event, error]
}

// PullNoter is a registry whose events tell of pulls, which it does not see by itself: looking at a manifest is
// none. Who serves the registry to clients says so.
type PullNoter interface {
	// Pulled notes that a client is about to get a manifest by a tag, or by its digest where the tag is empty. When
	// it returns, the event is as durable as an answer, if anybody watches for pulls; else it does nothing, and
	// costs nothing.
	Pulled(ctx context.Context, repository string, desc v1.Descriptor, tag string) error
}

// WatchOptions say what is watched. Nil is the zero value: what happens from now on, without pulls.
type WatchOptions struct {
	// After is the Position of the last event that was seen. Zero: what happens from the bookmark on that
	// comes first.
	After string
	// Pulls asks for events of EventPull too. They are kept for as long as somebody has asked for them within
	// a day, so a position may be too old for pulls, ErrEventsLost, and not for the rest.
	Pulls bool
}

// EventKind is what happened.
type EventKind string

// The kinds of event.
const (
	// EventBookmark is nothing that happened. It carries a position, and means that all before it was seen. It
	// comes first; and among what was not asked for, now and then, and where the log ended when the watch began.
	EventBookmark EventKind = "bookmark"
	// EventPush: a manifest was stored in a repository, or stored again, and Tags point at it now.
	EventPush EventKind = "push"
	// EventTag: Tags point now at a manifest that was there, and that was not stored again: by an index.json that another
	// program has written. A client that sets a tag stores the manifest again.
	EventTag EventKind = "tag"
	// EventUntag: Tags, which pointed at the manifest, were removed.
	EventUntag EventKind = "untag"
	// EventDelete: the manifest was removed from the repository, with Tags, which pointed at it.
	EventDelete EventKind = "delete"
	// EventPull: the manifest was asked for, by one of Tags or by its digest.
	EventPull EventKind = "pull"
	// EventGC: a collection was finished. What its rules ended has events of its own, before it.
	EventGC EventKind = "gc"
)

// Event is one thing that happened to a registry. Many tags that are set or removed at once may be told by
// several events.
type Event struct {
	// Position is that of the event in the log: opaque, and good for [WatchOptions] alone.
	Position string    `json:"position,omitempty"`
	Kind     EventKind `json:"kind"`
	// Time is when it was done, by the registry's clock, which may have been set back since the event before.
	// A bookmark has none.
	Time time.Time `json:"time,omitzero"`
	// Repository is empty in a bookmark, and where the registry as a whole is meant.
	Repository string `json:"repository,omitempty"`
	// Descriptor of the manifest: media type, digest and size, as far as they are known, and the artifact type
	// of one that was pushed. Empty where no manifest is meant.
	Descriptor v1.Descriptor `json:"descriptor,omitzero"`
	// Tags that were set, were removed, or that the manifest was asked for by. May be empty.
	Tags []string `json:"tags,omitempty"`
	// GC is what the collection did; nil for the other kinds.
	GC *GCSummary `json:"gc,omitempty"`
}

// GCSummary is how much a collection removed.
type GCSummary struct {
	// Tags and Manifests count what the rules ended.
	Tags      int `json:"tags,omitempty"`
	Manifests int `json:"manifests,omitempty"`
	// Blobs and Bytes are what was removed from the disk, manifests included.
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}
