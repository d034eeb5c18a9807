package plugin

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// stub is the serving side: protobuf to Go and back.
type stub struct {
	controlpb.UnimplementedControlServer
	controller Controller
	ending     chan struct{} // closed when what lasts is to end

	mu     sync.Mutex // guards the fields below
	leases map[string]Lease
}

func newStub(c Controller) *stub {
	return &stub{controller: c, ending: make(chan struct{}), leases: map[string]Lease{}}
}

func (s *stub) Hello(ctx context.Context, _ *controlpb.HelloRequest) (*controlpb.HelloResponse, error) {
	info, err := s.controller.Hello(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return infoToProto(info), nil
}

func (s *stub) Status(ctx context.Context, _ *controlpb.StatusRequest) (*controlpb.StatusResponse, error) {
	st, err := s.controller.Status(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return statusToProto(st), nil
}

func (s *stub) Drain(ctx context.Context, _ *controlpb.DrainRequest) (*controlpb.DrainResponse, error) {
	if err := s.controller.Drain(ctx); err != nil {
		return nil, toStatus(err)
	}
	return &controlpb.DrainResponse{}, nil
}

func (s *stub) Flush(ctx context.Context, _ *controlpb.FlushRequest) (*controlpb.FlushResponse, error) {
	if err := s.controller.Flush(ctx); err != nil {
		return nil, toStatus(err)
	}
	return &controlpb.FlushResponse{}, nil
}

func (c *client) Hello(ctx context.Context) (Info, error) {
	resp, err := c.control().Hello(ctx, &controlpb.HelloRequest{})
	if err != nil {
		return Info{}, fromStatus(ctx, err)
	}
	return infoFromProto(resp), nil
}

func (c *client) Flush(ctx context.Context) error {
	_, err := c.control().Flush(ctx, &controlpb.FlushRequest{})
	return fromStatus(ctx, err)
}

func (c *client) Status(ctx context.Context) (Status, error) {
	resp, err := c.control().Status(ctx, &controlpb.StatusRequest{})
	if err != nil {
		return Status{}, fromStatus(ctx, err)
	}
	return statusFromProto(resp), nil
}

func (c *client) Drain(ctx context.Context) error {
	_, err := c.control().Drain(ctx, &controlpb.DrainRequest{})
	return fromStatus(ctx, err)
}

// toStatus carries an error's code along with its text.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok { // the stream's own
		return st.Err()
	}
	code := berth.Code(err)
	if code == "" {
		return status.FromContextError(err).Err()
	}
	st, detailErr := status.New(codes.FailedPrecondition, text(err.Error())).WithDetails(&controlpb.Failure{Code: code})
	if detailErr != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	return st.Err()
}

// fromStatus is the inverse of toStatus. A call whose context has ended failed for that, whatever else
// came meanwhile.
func fromStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	st := status.Convert(err)
	for _, detail := range st.Details() {
		if failure, ok := detail.(*controlpb.Failure); ok {
			return &berth.Error{Code: failure.GetCode(), Message: st.Message()}
		}
	}
	switch st.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Unavailable:
		return fmt.Errorf("%w: %s", ErrGone, st.Message())
	case codes.Unimplemented:
		return fmt.Errorf("plugin: %w: it is of an earlier version", berth.ErrUnsupported)
	}
	return errors.New(st.Message())
}
