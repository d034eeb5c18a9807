package plugin

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// Watch sends events as fast as the client takes them: one that does not read is waited for, with what the
// stream's window holds and one event more.
func (s *stub) Watch(req *controlpb.WatchRequest, stream grpc.ServerStreamingServer[controlpb.WatchEvent]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	go func() {
		select {
		case <-s.ending:
			cancel(ErrGone)
		case <-ctx.Done():
		}
	}()
	for event, err := range s.controller.Watch(ctx, &berth.WatchOptions{After: req.GetAfter(), Pulls: req.GetPulls()}) {
		if err == nil {
			err = stream.Send(eventToProto(event))
		}
		if err != nil && context.Cause(ctx) == ErrGone {
			return nil
		}
		if err != nil {
			return toStatus(err)
		}
	}
	return nil
}

// Watch yields what the other end tells. A sequence that ends without an error can be gone on with at the
// next plugin.
func (c *client) Watch(ctx context.Context, opts *berth.WatchOptions) iter.Seq2[berth.Event, error] {
	return func(yield func(berth.Event, error) bool) {
		ctx, end := context.WithCancel(ctx)
		defer end()
		req := &controlpb.WatchRequest{}
		if opts != nil {
			req.After, req.Pulls = opts.After, opts.Pulls
		}
		stream, err := c.control().Watch(ctx, req)
		for err == nil {
			var event *controlpb.WatchEvent
			if event, err = stream.Recv(); err == nil && !yield(eventFromProto(event), nil) {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err = fromStatus(ctx, err); !errors.Is(err, ErrGone) {
			yield(berth.Event{}, err)
		}
	}
}

func eventToProto(e berth.Event) *controlpb.WatchEvent {
	p := &controlpb.WatchEvent{
		Position:     e.Position,
		Kind:         string(e.Kind),
		TimeNs:       instant(e.Time),
		Repository:   text(e.Repository),
		MediaType:    text(e.Descriptor.MediaType),
		Digest:       text(e.Descriptor.Digest),
		Size:         e.Descriptor.Size,
		ArtifactType: text(e.Descriptor.ArtifactType),
		Tags:         each(e.Tags, text[string]),
	}
	if g := e.GC; g != nil {
		p.Gc = &controlpb.GCSummary{Tags: int64(g.Tags), Manifests: int64(g.Manifests), Blobs: int64(g.Blobs), Bytes: g.Bytes}
	}
	return p
}

func eventFromProto(p *controlpb.WatchEvent) berth.Event {
	e := berth.Event{
		Position:   p.GetPosition(),
		Kind:       berth.EventKind(p.GetKind()),
		Time:       instantFrom(p.GetTimeNs()),
		Repository: p.GetRepository(),
		Descriptor: v1.Descriptor{MediaType: p.GetMediaType(), Digest: digest.Digest(p.GetDigest()), Size: p.GetSize(), ArtifactType: p.GetArtifactType()},
		Tags:       p.GetTags(),
	}
	if g := p.GetGc(); g != nil {
		e.GC = &berth.GCSummary{Tags: int(g.GetTags()), Manifests: int(g.GetManifests()), Blobs: int(g.GetBlobs()), Bytes: g.GetBytes()}
	}
	return e
}
