package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthoci/berth/plugin/internal/controlpb"
)

type leaseServer = grpc.BidiStreamingServer[controlpb.LeaseRequest, controlpb.LeaseEvent]

// Lease holds the lease for as long as the stream is open.
func (s *stub) Lease(stream leaseServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	logs := newRecords()
	lease, err := s.lease(stream.Context(), req, logs)
	if err != nil {
		return toStatus(err)
	}
	id := s.enter(lease)
	defer s.leave(id)
	grant := lease.Grant()
	begun := &controlpb.LeaseBegun{LeaseId: id, Info: infoToProto(grant.Plugin)}
	if req.Listen != nil {
		begun.Listen = endpointToProto(grant.Endpoint)
	}
	err = stream.Send(&controlpb.LeaseEvent{Event: &controlpb.LeaseEvent_Begun{Begun: begun}})
	if err == nil {
		err = attend(stream, lease, logs)
	}
	err = errors.Join(err, lease.Close())
	bye(stream, lease)
	return toStatus(err)
}

func leaseEnding(lease Lease) *controlpb.LeaseEvent {
	return &controlpb.LeaseEvent{Event: &controlpb.LeaseEvent_Ending{Ending: &controlpb.LeaseEnding{Stopped: lease.Stopped()}}}
}

// bye tells the host of the last lease if the plugin ends with that.
func bye(stream leaseServer, lease Lease) {
	if isClosed(lease.Ending()) {
		stream.Send(leaseEnding(lease)) // to one who may be gone
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (s *stub) lease(ctx context.Context, req *controlpb.LeaseRequest, logs *records) (Lease, error) {
	info, err := s.controller.Hello(ctx)
	if err != nil {
		return nil, err
	}
	host := End{req.GetVersion(), protocolsFromProto(req.GetProtocols())}
	wayOut := "end that registry with berth stop --layout " + info.Layout + ", or use the same version of both"
	if err := Meet(host, End{info.Version, info.Protocols}, wayOut); err != nil {
		return nil, err
	}
	return s.controller.Lease(ctx, leaseOptionsFromProto(req, logs))
}

// attend sends what the host of a lease is to know, until the host has closed its side, or is gone, or the
// lease has ended.
func attend(stream leaseServer, lease Lease, logs *records) error {
	closed := make(chan error, 1)
	go func() {
		_, err := stream.Recv() // there is nothing more to come; returns when this call has ended
		closed <- err
	}()
	ending := lease.Ending()
	for {
		event := &controlpb.LeaseEvent{}
		select {
		case err := <-closed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-lease.Done():
			return nil
		case <-ending:
			ending = nil
			event = leaseEnding(lease)
		case record := <-logs.queue:
			event.Event = &controlpb.LeaseEvent_Log{Log: record}
		}
		if err := stream.Send(event); err != nil {
			return err
		}
	}
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
	endpoint, err := lease.Listen(ctx, listenOptionsFromProto(req))
	if err != nil {
		return nil, toStatus(err)
	}
	return endpointToProto(endpoint), nil
}

func (s *stub) Hold(ctx context.Context, req *controlpb.HoldRequest) (*controlpb.HoldResponse, error) {
	endpoint, err := s.controller.Hold(ctx, int(req.GetPid()), leaseOptionsFromProto(req.GetLease(), nil))
	if err != nil {
		return nil, toStatus(err)
	}
	return &controlpb.HoldResponse{Listen: endpointToProto(endpoint)}, nil
}

// closingTime is how long a plugin may take for requests that are under way, and its files, when a lease ends.
const closingTime = 30 * time.Second

type leaseClient = grpc.BidiStreamingClient[controlpb.LeaseRequest, controlpb.LeaseEvent]

// Lease takes a lease in one round trip.
func (c *client) Lease(ctx context.Context, opts LeaseOptions) (Lease, error) {
	held, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	l := &clientLease{client: c, opts: opts, end: end, ending: make(chan struct{}), done: make(chan struct{})}
	err := l.begin(held)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		end()
		return nil, fromStatus(ctx, unexpected(err))
	}
	go l.watch()
	return l, nil
}

// clientLease is a lease as its host holds it.
type clientLease struct {
	client *client
	opts   LeaseOptions
	stream leaseClient
	begun  *controlpb.LeaseBegun
	end    context.CancelFunc
	ending chan struct{}
	done   chan struct{}

	stopped bool        // valid when ending is closed
	result  error       // of the stream; valid when done is closed
	silent  atomic.Bool // the plugin has not answered in time
}

// begin sends the request and waits for what the lease begins with.
func (l *clientLease) begin(ctx context.Context) (err error) {
	if l.stream, err = l.client.control.Lease(ctx); err != nil {
		return err
	}
	if err := l.stream.Send(leaseOptionsToProto(l.opts)); err != nil && !errors.Is(err, io.EOF) { // whose reason is what is received
		return err
	}
	for l.begun == nil {
		event, err := l.stream.Recv()
		if err != nil {
			return err
		}
		l.begun = event.GetBegun()
	}
	return nil
}

// watch returns when the stream ends: at the latest when the lease's context does.
func (l *clientLease) watch() {
	defer close(l.done)
	defer l.end()
	announced := false
	for {
		event, err := l.stream.Recv()
		if err != nil {
			l.result = err
			return
		}
		if record := event.GetLog(); record != nil {
			l.opts.tell(record)
		}
		if ending := event.GetEnding(); ending != nil && !announced {
			announced = true
			l.stopped = ending.GetStopped()
			close(l.ending)
		}
	}
}

func (l *clientLease) Grant() Grant {
	return Grant{infoFromProto(l.begun.GetInfo()), endpointFromProto(l.begun.GetListen())}
}

func (l *clientLease) Listen(ctx context.Context, opts ListenOptions) (Endpoint, error) {
	req := listenOptionsToProto(&opts)
	req.LeaseId = l.begun.GetLeaseId()
	resp, err := l.client.control.Listen(ctx, req)
	if err != nil {
		return Endpoint{}, fromStatus(ctx, err)
	}
	return endpointFromProto(resp), nil
}

func (l *clientLease) Ending() <-chan struct{} { return l.ending }

func (l *clientLease) Stopped() bool { return isClosed(l.ending) && l.stopped }

func (l *clientLease) Done() <-chan struct{} { return l.done }

// Close returns when the other end has closed what was open, or is gone, or does not answer.
func (l *clientLease) Close() error {
	l.stream.CloseSend()
	defer time.AfterFunc(closingTime, func() {
		l.silent.Store(true)
		l.end()
	}).Stop()
	<-l.done
	if l.silent.Load() {
		return fmt.Errorf("process %d, which serves %s, has not answered for %v: what it has taken may not be in index.json yet", l.Grant().Plugin.PID, l.Grant().Plugin.Layout, closingTime)
	}
	err := fromStatus(context.Background(), l.result)
	if errors.Is(l.result, io.EOF) || errors.Is(err, ErrGone) || errors.Is(err, context.Canceled) {
		return nil // there is nothing left to close
	}
	return err
}

func (c *client) Hold(ctx context.Context, pid int, opts LeaseOptions) (Endpoint, error) {
	resp, err := c.control.Hold(ctx, &controlpb.HoldRequest{Pid: int64(pid), Lease: leaseOptionsToProto(opts)})
	if err != nil {
		return Endpoint{}, fromStatus(ctx, err)
	}
	return endpointFromProto(resp.GetListen()), nil
}

func leaseOptionsToProto(o LeaseOptions) *controlpb.LeaseRequest {
	req := &controlpb.LeaseRequest{
		Protocols:     Spoken().toProto(),
		Version:       o.Holder.Version,
		Pid:           int64(o.Holder.PID),
		Command:       []byte(o.Holder.Command),
		Key:           o.Key,
		IdleTimeoutNs: int64(o.IdleTimeout),
		Durability:    o.Durability,
		AccessLog:     o.AccessLog != nil,
	}
	if o.Logger != nil {
		level := int64(logLevel(o.Logger))
		req.LogLevel = &level
	}
	if o.Listen != nil {
		req.Listen = listenOptionsToProto(o.Listen)
	}
	return req
}

// leaseOptionsFromProto are the options whose logs go to a queue; nil: to nobody.
func leaseOptionsFromProto(req *controlpb.LeaseRequest, logs *records) LeaseOptions {
	o := LeaseOptions{
		Holder:      Holder{int(req.GetPid()), string(req.GetCommand()), req.GetVersion()},
		Key:         req.GetKey(),
		IdleTimeout: time.Duration(req.GetIdleTimeoutNs()),
		Durability:  req.GetDurability(),
	}
	if logs != nil && req.LogLevel != nil {
		o.Logger = logs.logger(slog.Level(req.GetLogLevel()), false)
	}
	if logs != nil && req.GetAccessLog() {
		o.AccessLog = logs.logger(slog.LevelDebug, true)
	}
	if req.GetListen() != nil {
		listen := listenOptionsFromProto(req.GetListen())
		o.Listen = &listen
	}
	return o
}
