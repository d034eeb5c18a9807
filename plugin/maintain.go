package plugin

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// endingTime is how long a collection may take from being asked to end to its report.
const endingTime = 10 * time.Second

// ErrCheckoutCut is what a client hears that keeps a directory checked out while the registry ends.
var ErrCheckoutCut = errors.New("the registry ended while the directory was checked out; what was done to it since is taken in at the next start")

func (s *stub) GC(stream grpc.BidiStreamingServer[controlpb.GCRequest, controlpb.GCEvent]) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(stream.Context())
	defer stop()
	go func() {
		defer stop()
		stream.Recv() // returns when the client closes its side, and when this call has ended
	}()
	report, err := s.controller.GC(ctx, gcOptionsFromProto(req))
	sendErr := sendReport(gcReportToProto(report), func(piece []byte, last bool) error {
		return stream.Send(&controlpb.GCEvent{Piece: piece, Last: last})
	})
	if err != nil {
		return toStatus(err)
	}
	return sendErr
}

func (s *stub) Fsck(req *controlpb.FsckRequest, stream grpc.ServerStreamingServer[controlpb.FsckEvent]) error {
	report, err := s.controller.Fsck(stream.Context(), fsckOptionsFromProto(req))
	if err != nil {
		return toStatus(err)
	}
	return sendReport(fsckReportToProto(report), func(piece []byte, last bool) error {
		return stream.Send(&controlpb.FsckEvent{Piece: piece, Last: last})
	})
}

// Checkout takes in what was done whichever way the client has ended.
func (s *stub) Checkout(stream grpc.BidiStreamingServer[controlpb.CheckoutRequest, controlpb.CheckoutEvent]) error {
	done, err := s.controller.Checkout(stream.Context())
	if err != nil {
		return toStatus(err)
	}
	cut := false
	if err = stream.Send(&controlpb.CheckoutEvent{}); err == nil {
		cut = s.awaitClose(stream)
	}
	if doneErr := done(context.WithoutCancel(stream.Context())); doneErr != nil {
		err = doneErr
	}
	if err == nil && cut {
		err = ErrCheckoutCut
	}
	return toStatus(err)
}

// awaitClose returns when the client has closed its side or is gone. It reports whether, instead, the
// server's end came first.
func (s *stub) awaitClose(stream grpc.BidiStreamingServer[controlpb.CheckoutRequest, controlpb.CheckoutEvent]) (cut bool) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	select {
	case <-closed:
		return false
	case <-s.ending:
		return true
	}
}

func (c *client) GC(ctx context.Context, opts *berth.GCOptions) (berth.GCReport, error) {
	if err := ctx.Err(); err != nil {
		return berth.GCReport{}, err
	}
	held, end := outlive(ctx, endingTime)
	defer end()
	stream, err := c.control().GC(held)
	if err == nil {
		err = stream.Send(gcOptionsToProto(opts))
	}
	if err != nil && !errors.Is(err, io.EOF) { // whose reason is what is received
		return berth.GCReport{}, fromStatus(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { stream.CloseSend() })
	defer stop()
	var report controlpb.GCReport
	err = receiveReport(stream.Recv, &report)
	return gcReportFromProto(&report), fromStatus(ctx, err)
}

// outlive is a context that ends some time after another one.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	held, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(by):
			end()
		case <-held.Done():
		}
	})
	return held, func() {
		stop()
		end()
	}
}

func (c *client) Fsck(ctx context.Context, opts *berth.FsckOptions) (berth.FsckReport, error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	stream, err := c.control().Fsck(ctx, fsckOptionsToProto(opts))
	if err != nil {
		return berth.FsckReport{}, fromStatus(ctx, err)
	}
	var report controlpb.FsckReport
	if err := receiveReport(stream.Recv, &report); err != nil {
		return berth.FsckReport{}, fromStatus(ctx, err)
	}
	return fsckReportFromProto(&report), nil
}

func (c *client) Checkout(ctx context.Context) (func(context.Context) error, error) {
	held, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	stream, err := c.control().Checkout(held)
	if err == nil {
		_, err = stream.Recv()
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		end()
		return nil, fromStatus(ctx, unexpected(err))
	}
	h := &heldCheckout{stream: stream, end: end}
	return h.done, nil
}

// heldCheckout is a checkout as its client holds it.
type heldCheckout struct {
	stream grpc.BidiStreamingClient[controlpb.CheckoutRequest, controlpb.CheckoutEvent]
	end    context.CancelFunc
	once   sync.Once
	result error
}

// done ends the checkout, once, and waits for the result: no longer than ctx, but then the registry
// takes in what was done nevertheless.
func (h *heldCheckout) done(ctx context.Context) error {
	h.once.Do(func() {
		defer h.end()
		stop := context.AfterFunc(ctx, h.end)
		defer stop()
		h.stream.CloseSend()
		if _, err := h.stream.Recv(); !errors.Is(err, io.EOF) {
			h.result = fromStatus(ctx, err)
		}
		if errors.Is(h.result, ErrGone) {
			h.result = ErrCheckoutCut
		}
	})
	return h.result
}
