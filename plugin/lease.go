package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// serveLease answers a connection with a lease, and closes it when that has ended.
func (s *stub) serveLease(conn net.Conn) {
	var listening sync.WaitGroup
	defer listening.Wait()
	defer conn.Close()
	wire, req := newWire(conn), &controlpb.LeaseRequest{}
	err := wire.receive(req)
	if err == nil {
		conn.SetDeadline(time.Time{})
		ctx, gone := context.WithCancel(context.Background())
		listening.Go(func() {
			defer gone()
			wire.receive(&controlpb.LeaseRequest{}) // that the host is done, at the latest when the connection is closed
		})
		err = s.keep(ctx, wire, req)
	}
	wire.send(leaseEnded(err)) // to one who may be gone
}

// keep takes a lease, and keeps it until its host is done or gone, as the context tells, or the lease has ended.
func (s *stub) keep(ctx context.Context, wire *wire, req *controlpb.LeaseRequest) error {
	logs := newRecords()
	lease, err := s.lease(ctx, req, logs)
	if err != nil {
		return err
	}
	id := s.enter(lease)
	defer s.leave(id)
	grant := lease.Grant()
	begun := &controlpb.LeaseBegun{LeaseId: id, Info: infoToProto(grant.Plugin)}
	if req.Listen != nil {
		begun.Listen = endpointToProto(grant.Endpoint)
	}
	err = wire.send(&controlpb.LeaseEvent{Event: &controlpb.LeaseEvent_Begun{Begun: begun}})
	if err == nil {
		err = attend(ctx, wire, lease, logs)
	}
	err = errors.Join(err, lease.Close())
	if isClosed(lease.Ending()) {
		wire.send(leaseEnding(lease)) // the plugin may end with its last lease
	}
	return err
}

func leaseEnding(lease Lease) *controlpb.LeaseEvent {
	return &controlpb.LeaseEvent{Event: &controlpb.LeaseEvent_Ending{Ending: &controlpb.LeaseEnding{Stopped: lease.Stopped()}}}
}

func leaseEnded(err error) *controlpb.LeaseEvent {
	ended := &controlpb.LeaseEnded{}
	if err != nil {
		ended.Message, ended.Code = text(err.Error()), berth.Code(err)
	}
	return &controlpb.LeaseEvent{Event: &controlpb.LeaseEvent_Ended{Ended: ended}}
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

// attend sends what the host of a lease is to know for as long as keep keeps it.
func attend(ctx context.Context, wire *wire, lease Lease, logs *records) error {
	ending := lease.Ending()
	for {
		event := &controlpb.LeaseEvent{}
		select {
		case <-ctx.Done():
			return nil
		case <-lease.Done():
			return nil
		case <-ending:
			ending = nil
			event = leaseEnding(lease)
		case record := <-logs.queue:
			event.Event = &controlpb.LeaseEvent_Log{Log: record}
		}
		if err := wire.send(event); err != nil {
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

// held returns a lease, or an error that says that its plugin is gone: it was of the owner before this one.
func (s *stub) held(id string) (Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease := s.leases[id]; lease != nil {
		return lease, nil
	}
	return nil, status.Error(codes.Unavailable, "no such lease")
}

func (s *stub) Listen(ctx context.Context, req *controlpb.ListenRequest) (*controlpb.ListenResponse, error) {
	lease, err := s.held(req.GetLeaseId())
	if err != nil {
		return nil, err
	}
	endpoint, err := lease.Listen(ctx, listenOptionsFromProto(req))
	if err != nil {
		return nil, toStatus(err)
	}
	return endpointToProto(endpoint), nil
}

func (s *stub) Import(ctx context.Context, req *controlpb.ImportRequest) (*controlpb.ImportResponse, error) {
	lease, err := s.held(req.GetLeaseId())
	if err != nil {
		return nil, err
	}
	method, err := lease.Import(ctx, req.GetRepository(), digest.Digest(req.GetDigest()), localFileFromProto(req))
	if err != nil {
		return nil, toStatus(err)
	}
	return &controlpb.ImportResponse{Method: string(method)}, nil
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

// Lease takes a lease in one round trip.
func (c *client) Lease(ctx context.Context, opts LeaseOptions) (Lease, error) {
	conn, err := c.dial(ctx, forLease)
	if err != nil {
		return nil, err
	}
	l := &clientLease{client: c, opts: opts, wire: newWire(conn), ending: make(chan struct{}), done: make(chan struct{})}
	stop := context.AfterFunc(ctx, l.cut)
	err = l.begin()
	if !stop() || err != nil {
		l.cut()
		if ctx.Err() != nil { // which has cut it
			err = ctx.Err()
		}
		return nil, err
	}
	go l.watch()
	return l, nil
}

// clientLease is a lease as its host holds it.
type clientLease struct {
	client *client
	opts   LeaseOptions
	wire   *wire
	begun  *controlpb.LeaseBegun
	ending chan struct{}
	done   chan struct{}

	stopped bool        // valid when ending is closed
	result  error       // how the lease has ended; valid when done is closed
	silent  atomic.Bool // the plugin has not answered in time
}

// begin sends the request and waits for what the lease begins with.
func (l *clientLease) begin() error {
	sent := l.wire.send(leaseOptionsToProto(l.opts))
	for l.begun == nil {
		event, err := l.next()
		if err != nil {
			return err // why the plugin gives none, if it has said so; else that it is gone
		}
		l.begun = event.GetBegun()
	}
	return sent
}

// next is what the plugin says next, or, where that is the end, how it ended: io.EOF where all is well.
func (l *clientLease) next() (*controlpb.LeaseEvent, error) {
	event := &controlpb.LeaseEvent{}
	if err := l.wire.receive(event); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if ended := event.GetEnded(); ended != nil {
		return nil, endOf(ended)
	}
	return event, nil
}

func endOf(ended *controlpb.LeaseEnded) error {
	switch {
	case ended.GetCode() != "":
		return &berth.Error{Code: ended.GetCode(), Message: ended.GetMessage()}
	case ended.GetMessage() != "":
		return errors.New(ended.GetMessage())
	}
	return io.EOF
}

// cut ends the lease without a word, and what waits for its events.
func (l *clientLease) cut() { l.wire.conn.Close() }

// watch returns when the lease has ended.
func (l *clientLease) watch() {
	defer close(l.done)
	defer l.cut()
	announced := false
	for {
		event, err := l.next()
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
	resp, err := l.client.control().Listen(ctx, req)
	if err != nil {
		return Endpoint{}, fromStatus(ctx, err)
	}
	return endpointFromProto(resp), nil
}

func (l *clientLease) Import(ctx context.Context, repository string, d digest.Digest, from berth.LocalFile) (berth.ImportMethod, error) {
	req := localFileToProto(from)
	req.LeaseId, req.Repository, req.Digest = l.begun.GetLeaseId(), repository, string(d)
	resp, err := l.client.control().Import(ctx, req)
	if err != nil {
		return "", fromStatus(ctx, err)
	}
	return berth.ImportMethod(resp.GetMethod()), nil
}

func (l *clientLease) Ending() <-chan struct{} { return l.ending }

func (l *clientLease) Stopped() bool { return isClosed(l.ending) && l.stopped }

func (l *clientLease) Done() <-chan struct{} { return l.done }

// Close returns when the other end has closed what was open, or is gone, or does not answer.
func (l *clientLease) Close() error {
	l.wire.send(&controlpb.LeaseRequest{}) // to one who may be gone
	defer time.AfterFunc(closingTime, func() {
		l.silent.Store(true)
		l.cut()
	}).Stop()
	<-l.done
	if l.silent.Load() {
		return fmt.Errorf("process %d, which serves %s, has not answered for %v: what it has taken may not be in index.json yet", l.Grant().Plugin.PID, l.Grant().Plugin.Layout, closingTime)
	}
	if errors.Is(l.result, io.EOF) || errors.Is(l.result, ErrGone) {
		return nil // there is nothing left to close
	}
	return l.result
}

func (c *client) Hold(ctx context.Context, pid int, opts LeaseOptions) (Endpoint, error) {
	resp, err := c.control().Hold(ctx, &controlpb.HoldRequest{Pid: int64(pid), Lease: leaseOptionsToProto(opts)})
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
