package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// stub is the serving side: protobuf to Go and back.
type stub struct {
	controlpb.UnimplementedControlServer
	controller Controller
	ending     chan struct{} // closed when checkouts are to end

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

// Lease holds the lease for as long as the stream is open.
func (s *stub) Lease(_ *controlpb.LeaseRequest, stream grpc.ServerStreamingServer[controlpb.LeaseEvent]) error {
	lease, err := s.controller.Lease(stream.Context())
	if err != nil {
		return toStatus(err)
	}
	defer lease.Close()
	id := s.enter(lease)
	defer s.leave(id)
	if err := stream.Send(&controlpb.LeaseEvent{LeaseId: id}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
	case <-lease.Done():
	}
	return nil
}

func (s *stub) enter(lease Lease) string {
	id := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases[id] = lease
	return id
}

func (s *stub) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, id)
}

func (s *stub) Listen(ctx context.Context, req *controlpb.ListenRequest) (*controlpb.ListenResponse, error) {
	s.mu.Lock()
	lease := s.leases[req.GetLeaseId()]
	s.mu.Unlock()
	if lease == nil {
		return nil, status.Error(codes.NotFound, "no such lease")
	}
	endpoint, err := lease.Listen(ctx, ListenOptions{
		Anonymous:    req.GetAnonymous(),
		ReadOnly:     req.GetReadOnly(),
		AllowMissing: req.GetAllowMissing(),
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return &controlpb.ListenResponse{Address: endpoint.Address, Token: endpoint.Token}, nil
}

func (s *stub) Flush(ctx context.Context, _ *controlpb.FlushRequest) (*controlpb.FlushResponse, error) {
	if err := s.controller.Flush(ctx); err != nil {
		return nil, toStatus(err)
	}
	return &controlpb.FlushResponse{}, nil
}

// client is the host's side.
type client struct{ control controlpb.ControlClient }

func newClient(conn *grpc.ClientConn) *client {
	return &client{control: controlpb.NewControlClient(conn)}
}

func (c *client) Hello(ctx context.Context) (Info, error) {
	resp, err := c.control.Hello(ctx, &controlpb.HelloRequest{})
	if err != nil {
		return Info{}, fromStatus(ctx, err)
	}
	return infoFromProto(resp), nil
}

func (c *client) Flush(ctx context.Context) error {
	_, err := c.control.Flush(ctx, &controlpb.FlushRequest{})
	return fromStatus(ctx, err)
}

func (c *client) Lease(ctx context.Context) (Lease, error) {
	held, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	stream, err := c.control.Lease(held, &controlpb.LeaseRequest{})
	if err != nil {
		end()
		return nil, fromStatus(ctx, err)
	}
	first, err := stream.Recv()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		end()
		return nil, fromStatus(ctx, err)
	}
	l := &clientLease{client: c, id: first.GetLeaseId(), end: end, done: make(chan struct{})}
	go l.watch(stream)
	return l, nil
}

// clientLease is a lease as its host holds it.
type clientLease struct {
	client *client
	id     string
	end    context.CancelFunc
	done   chan struct{}
}

// watch returns when the stream ends: at the latest when Close cancels it.
func (l *clientLease) watch(stream grpc.ServerStreamingClient[controlpb.LeaseEvent]) {
	defer close(l.done)
	defer l.end()
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}

func (l *clientLease) Listen(ctx context.Context, opts ListenOptions) (Endpoint, error) {
	resp, err := l.client.control.Listen(ctx, &controlpb.ListenRequest{
		LeaseId:      l.id,
		Anonymous:    opts.Anonymous,
		ReadOnly:     opts.ReadOnly,
		AllowMissing: opts.AllowMissing,
	})
	if err != nil {
		return Endpoint{}, fromStatus(ctx, err)
	}
	return Endpoint{Address: resp.GetAddress(), Token: resp.GetToken()}, nil
}

func (l *clientLease) Done() <-chan struct{} { return l.done }

func (l *clientLease) Close() error {
	l.end()
	<-l.done
	return nil
}

// toStatus carries an error's code along with its text.
func toStatus(err error) error {
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
