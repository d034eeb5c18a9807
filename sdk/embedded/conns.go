package embedded

import (
	"container/list"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxConns bounds the connections of one address. Each takes some 20 KiB of memory.
	maxConns = 2048
	// settled is how long a connection must have been silent to be closed in favour of a new one.
	settled = time.Second
	// maxRefusals bounds how many are told at once that there is no room; the others are not told.
	maxRefusals = 64
	// farewell is how long one that is told may take to hear it.
	farewell = time.Second
)

// noRoom is what a client hears for which there is no connection.
const noRoom = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Type: application/json\r\n" +
	"Content-Length: 105\r\nConnection: close\r\n\r\n" +
	`{"errors":[{"code":"TOOMANYREQUESTS","message":"too many connections are open; try again in a moment"}]}` + "\n"

// crowd keeps the connections of a server within a bound: where there are too many, the one that has been
// silent for longest goes, and where none is, no new one is let in.
type crowd struct {
	most     int
	settled  time.Duration
	refusals chan struct{}

	mu     sync.Mutex // guards the fields below
	conns  map[net.Conn]*list.Element
	silent *list.List // of silence, the longest in front
	ending bool
}

// silence is a connection on which no request is under way.
type silence struct {
	conn  net.Conn
	since time.Time
	fresh bool // it has asked nothing yet
}

func newCrowd(most int, settled time.Duration) *crowd {
	return &crowd{most: most, settled: settled, refusals: make(chan struct{}, maxRefusals), conns: map[net.Conn]*list.Element{}, silent: list.New()}
}

// note keeps account of a connection's state.
func (c *crowd) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.conns[conn]; at != nil {
		c.silent.Remove(at)
	}
	switch state {
	case http.StateNew, http.StateIdle:
		if c.ending {
			conn.Close()
		}
		c.conns[conn] = c.silent.PushBack(silence{conn, time.Now(), state == http.StateNew})
	case http.StateActive:
		c.conns[conn] = nil
	default:
		delete(c.conns, conn)
	}
}

// admit makes room for one more connection, or says that there is none.
func (c *crowd) admit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.conns) < c.most {
		return true
	}
	longest := c.silent.Front()
	if longest == nil || time.Since(longest.Value.(silence).since) < c.settled {
		return false
	}
	gone := c.silent.Remove(longest).(silence).conn
	delete(c.conns, gone)
	gone.Close()
	return true
}

// end closes the connections that have asked nothing yet, now and from now on.
func (c *crowd) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	for at := c.silent.Front(); at != nil; at = at.Next() {
		if s := at.Value.(silence); s.fresh {
			s.conn.Close()
		}
	}
}

// crowdedListener accepts what the crowd has room for.
type crowdedListener struct {
	net.Listener
	crowd *crowd
	plain bool // who is not let in can be told
}

func (l *crowdedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.crowd.admit() {
			return conn, err
		}
		l.refuse(conn)
	}
}

// refuse says that there is no room, and hears the client out, so that it hears this.
func (l *crowdedListener) refuse(conn net.Conn) {
	if !l.plain {
		conn.Close()
		return
	}
	select {
	case l.crowd.refusals <- struct{}{}:
	default:
		conn.Close()
		return
	}
	go func() {
		defer func() { <-l.crowd.refusals }()
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(farewell))
		if _, err := io.WriteString(conn, noRoom); err != nil {
			return
		}
		if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
		}
	}()
}
