package embedded

import (
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
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
	// writeTimeout bounds how long a client may take for what is written at once: an answer, but for those
	// that are blobs.
	writeTimeout = time.Minute
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
// It also ends connections that are silent for too long, and those that do not take what they are sent.
// net/http could, with four deadlines for each request; here a look around now and then does.
type crowd struct {
	limits   crowdLimits
	begin    time.Time // what times of guests count from
	refusals chan struct{}
	ending   atomic.Bool

	mu     sync.Mutex // guards the field below
	guests map[*guest]struct{}
}

// crowdLimits say how many guests there may be, and how long they may keep the server waiting.
type crowdLimits struct {
	most    int
	settled time.Duration // silent before one may be sent away in favour of another
	header  time.Duration // silent, of one that has asked nothing yet
	idle    time.Duration // silent, of any other
	write   time.Duration // for a part of an answer
}

func newCrowd(limits crowdLimits) *crowd {
	return &crowd{limits: limits, begin: time.Now(), refusals: make(chan struct{}, maxRefusals), guests: map[*guest]struct{}{}}
}

// guest is a connection.
type guest struct {
	net.Conn
	crowd *crowd
	fresh atomic.Bool // it has asked nothing yet
	// silent is since when no request is under way: the time from the crowd's begin, or busy.
	silent atomic.Int64
	// begun and done count the writes.
	begun, done atomic.Uint64
	// number is what done was when the watch last saw no write, or another one, and waited is when that was.
	number uint64
	waited time.Duration
}

// busy is what is in the place of a time while a request is under way.
const busy = -1

// Write notes that the client is awaited.
func (g *guest) Write(p []byte) (int, error) {
	g.begun.Add(1)
	defer g.done.Add(1)
	return g.Conn.Write(p)
}

// ReadFrom lets the kernel send a file, where it can. The client's time for that is the server's to bound,
// which knows how much it is.
func (g *guest) ReadFrom(src io.Reader) (int64, error) {
	if direct, ok := g.Conn.(io.ReaderFrom); ok {
		return direct.ReadFrom(src)
	}
	return io.Copy(struct{ io.Writer }{g}, src)
}

// CloseWrite is for net/http, which lets the client hear the end of an answer before it hangs up.
func (g *guest) CloseWrite() error { return closeWrite(g.Conn) }

// closeWrite says that no more will come, where a connection can be closed in halves.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close ends the visit.
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	delete(g.crowd.guests, g)
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}

// dismiss closes the connection, unless a request has come since it was seen to be silent.
func (g *guest) dismiss(silent int64) bool {
	gone := g.silent.CompareAndSwap(silent, busy)
	if gone {
		g.Conn.Close()
	}
	return gone
}

// stuck reports whether one write has lasted for too long.
func (g *guest) stuck(now time.Duration) bool {
	done := g.done.Load()
	if g.begun.Load() == done || done != g.number {
		g.number, g.waited = done, now
		return false
	}
	return now-g.waited > g.crowd.limits.write
}

// note keeps account of a connection's state. It is called twice for each request.
func (c *crowd) note(conn net.Conn, state http.ConnState) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	g := conn.(*guest)
	switch state {
	case http.StateActive:
		if g.fresh.Load() {
			g.fresh.Store(false)
		}
		g.silent.Store(busy)
		return
	case http.StateIdle:
		g.silent.Store(int64(time.Since(c.begin)))
	}
	if c.ending.Load() && (state == http.StateNew || state == http.StateIdle) {
		g.Conn.Close()
	}
}

// admit makes room for one more connection, or returns nil: there is none.
func (c *crowd) admit(conn net.Conn) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Since(c.begin)
	if len(c.guests) >= c.limits.most && !c.makeRoom(now) {
		return nil
	}
	g := &guest{Conn: conn, crowd: c, waited: now}
	g.fresh.Store(true)
	g.silent.Store(int64(now))
	c.guests[g] = struct{}{}
	return g
}

// makeRoom sends away who has been silent for longest, if that is long enough.
func (c *crowd) makeRoom(now time.Duration) bool {
	var longest *guest
	since := int64(math.MaxInt64)
	for g := range c.guests {
		if silent := g.silent.Load(); silent != busy && silent < since {
			longest, since = g, silent
		}
	}
	if longest == nil || now-time.Duration(since) < c.limits.settled || !longest.dismiss(since) {
		return false
	}
	delete(c.guests, longest)
	return true
}

// watch ends those who keep the server waiting for too long, until done is closed.
func (c *crowd) watch(done <-chan struct{}) {
	around := time.NewTicker(min(c.limits.header, c.limits.idle, c.limits.write) / 8)
	defer around.Stop()
	for {
		select {
		case <-around.C:
			c.lookAround(time.Since(c.begin))
		case <-done:
			return
		}
	}
}

// lookAround closes the connections that are silent or stuck for too long. A request whose head comes in
// pieces is silent: it is not under way before the head is whole.
func (c *crowd) lookAround(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for g := range c.guests {
		most := c.limits.idle
		if g.fresh.Load() {
			most = c.limits.header
		}
		silent := g.silent.Load()
		switch {
		case silent != busy && now-time.Duration(silent) > most:
			g.dismiss(silent)
		case g.stuck(now):
			g.Conn.Close()
		}
	}
}

// end closes the connections that have asked nothing yet, now and from now on.
func (c *crowd) end() {
	c.ending.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	for g := range c.guests {
		if silent := g.silent.Load(); silent != busy && g.fresh.Load() {
			g.dismiss(silent)
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
		if err != nil {
			return nil, err
		}
		if guest := l.crowd.admit(conn); guest != nil {
			return guest, nil
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
		if closeWrite(conn) == nil {
			io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
		}
	}()
}
