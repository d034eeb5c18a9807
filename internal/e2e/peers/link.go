//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// chunkSize is how much a link takes at once, and chunksUnderway how many of these are on their way in one
	// direction of a connection: more than any client here sends within the time that they take.
	chunkSize      = 128 << 10
	chunksUnderway = 32
)

// link is a long way to a server: what sets out arrives after a while, as much at once as one likes. It stands for
// the distance alone, and neither loses anything nor starts slowly.
type link struct {
	listener net.Listener
	to       string
	delay    time.Duration // in one direction
	stop     context.CancelFunc
	group    sync.WaitGroup

	up, down atomic.Int64 // bytes that set out
	conns    atomic.Int64
}

// openLink makes a way to an address.
func openLink(to string, delay time.Duration) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("a link to %s: %w", to, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &link{listener: listener, to: to, delay: delay, stop: stop}
	l.group.Go(func() { l.accept(ctx) })
	return l, nil
}

func (l *link) address() string { return l.listener.Addr().String() }

// close cuts all connections. Nothing is left of the link when it returns.
func (l *link) close() {
	l.listener.Close()
	l.stop()
	l.group.Wait()
}

func (l *link) accept(ctx context.Context) {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.conns.Add(1)
		l.group.Go(func() { l.carry(ctx, client.(*net.TCPConn)) })
	}
}

// carry is one connection. The kernel has shaken hands at once, so what sets out first waits as long as that takes
// over such a distance.
func (l *link) carry(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	begins := time.Now().Add(2 * l.delay)
	other, err := new(net.Dialer).DialContext(ctx, "tcp", l.to)
	if err != nil {
		return
	}
	server := other.(*net.TCPConn)
	defer server.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()
	var both sync.WaitGroup
	both.Go(newFlow(client, server, &l.up, begins, l.delay).run)
	both.Go(newFlow(server, client, &l.down, begins, l.delay).run)
	both.Wait()
}

// flow is one direction of a connection.
type flow struct {
	from, to *net.TCPConn
	sent     *atomic.Int64
	begins   time.Time // nothing sets out before
	delay    time.Duration
	queue    chan chunk
	free     chan []byte // that chunks were in
}

// chunk is what arrives at once. One without bytes is the end.
type chunk struct {
	due   time.Time
	bytes []byte
}

func newFlow(from, to *net.TCPConn, sent *atomic.Int64, begins time.Time, delay time.Duration) *flow {
	return &flow{from: from, to: to, sent: sent, begins: begins, delay: delay,
		queue: make(chan chunk, chunksUnderway), free: make(chan []byte, chunksUnderway)}
}

func (f *flow) run() {
	var reader sync.WaitGroup
	reader.Go(f.depart)
	f.arrive()
	reader.Wait()
}

// depart takes what one side sends. A side that breaks off has ended.
func (f *flow) depart() {
	defer close(f.queue)
	for {
		buf := f.buffer()
		n, err := f.from.Read(buf)
		due := time.Now()
		if due.Before(f.begins) {
			due = f.begins
		}
		due = due.Add(f.delay)
		if n > 0 {
			f.sent.Add(int64(n))
			f.queue <- chunk{due, buf[:n]}
		}
		if err != nil {
			f.queue <- chunk{due: due}
			return
		}
	}
}

// arrive hands it to the other side. What that does not take any more is thrown away: it may have an answer under
// way that tells why, and who sends then ends.
func (f *flow) arrive() {
	var err error
	for c := range f.queue {
		time.Sleep(time.Until(c.due))
		switch {
		case len(c.bytes) == 0:
			f.to.CloseWrite()
			continue
		case err == nil:
			_, err = f.to.Write(c.bytes)
		}
		f.keep(c.bytes)
	}
}

func (f *flow) buffer() []byte {
	select {
	case buf := <-f.free:
		return buf
	default:
		return make([]byte, chunkSize)
	}
}

func (f *flow) keep(buf []byte) {
	select {
	case f.free <- buf[:chunkSize]:
	default:
	}
}
