package embedded

import (
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxConns bounds the connections of one address. Each takes some 20 KiB of memory.
	maxConns = 2048
	// headerTimeout bounds how long a client may take to say what it wants.
	headerTimeout = 10 * time.Second
	// idleTimeout bounds how long a connection may rest between two requests, and how long the head of the
	// next one may take.
	idleTimeout = time.Minute
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
//
// It also ends connections that are silent for too long. net/http could, with three deadlines for each
// request; here a look around now and then does.
type crowd struct {
	limits   crowdLimits
	refusals chan struct{}

	mu     sync.Mutex // guards the fields below
	guests map[net.Conn]*guest
	ending bool
}

// guest is what is known of a connection.
type guest struct {
	fresh  bool      // it has asked nothing yet
	silent bool      // no request is under way
	since  time.Time // when it fell silent
}

// crowdLimits say how many guests there may be, and how long they may be silent.
type crowdLimits struct {
	most    int
	settled time.Duration // before one may be sent away in favour of another
	header  time.Duration // of one that has asked nothing yet
	idle    time.Duration // of any other
}

func newCrowd(limits crowdLimits) *crowd {
	return &crowd{limits: limits, refusals: make(chan struct{}, maxRefusals), guests: map[net.Conn]*guest{}}
}

// note keeps account of a connection's state. It is called twice for each request.
func (c *crowd) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.guests[conn]
	switch state {
	case http.StateNew:
		c.guests[conn] = &guest{fresh: true, silent: true, since: time.Now()}
	case http.StateActive:
		if g != nil {
			g.fresh, g.silent = false, false
		}
	case http.StateIdle:
		if g != nil {
			g.silent, g.since = true, time.Now()
		}
	default:
		delete(c.guests, conn)
	}
	if c.ending && (state == http.StateNew || state == http.StateIdle) {
		conn.Close()
	}
}

// admit makes room for one more connection, or says that there is none.
func (c *crowd) admit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.guests) < c.limits.most {
		return true
	}
	gone := c.longestSilent()
	if gone == nil || time.Since(c.guests[gone].since) < c.limits.settled {
		return false
	}
	delete(c.guests, gone)
	gone.Close()
	return true
}

func (c *crowd) longestSilent() (longest net.Conn) {
	for conn, g := range c.guests {
		if g.silent && (longest == nil || g.since.Before(c.guests[longest].since)) {
			longest = conn
		}
	}
	return longest
}

// watch ends those who are silent for too long, until done is closed.
func (c *crowd) watch(done <-chan struct{}) {
	around := time.NewTicker(min(c.limits.header, c.limits.idle) / 8)
	defer around.Stop()
	for {
		select {
		case now := <-around.C:
			c.dismiss(now)
		case <-done:
			return
		}
	}
}

// dismiss closes the connections that are silent for too long. A request whose head comes in pieces is
// silent: it is not under way before the head is whole.
func (c *crowd) dismiss(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, g := range c.guests {
		most := c.limits.idle
		if g.fresh {
			most = c.limits.header
		}
		if g.silent && now.Sub(g.since) > most {
			conn.Close()
		}
	}
}

// end closes the connections that have asked nothing yet, now and from now on.
func (c *crowd) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	for conn, g := range c.guests {
		if g.fresh {
			conn.Close()
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
