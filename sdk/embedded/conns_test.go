package embedded

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// crowded serves with room for two connections, and returns where.
func crowded(t *testing.T, settled time.Duration, handler http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveCrowd(t, listener, crowdLimits{2, settled, time.Hour, time.Hour, time.Hour}, handler)
	return listener.Addr().String()
}

func serveCrowd(t *testing.T, listener net.Listener, limits crowdLimits, handler http.HandlerFunc) {
	t.Helper()
	s := &httpServer{crowd: newCrowd(limits)}
	s.std.Handler, s.std.ConnState = handler, s.crowd.note
	served := make(chan error, 1)
	go func() { served <- s.serve(listener) }()
	t.Cleanup(func() {
		if err := errors.Join(s.shutdown(), s.std.Close()); err != nil {
			t.Error(err)
		}
		<-served
	})
}

// pipes is a listener within this process, for tests whose time is their own.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.close.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) visit(t *testing.T) *visitor {
	here, there := net.Pipe()
	p.conns <- there
	t.Cleanup(func() { here.Close() })
	return &visitor{here, bufio.NewReader(here)}
}

type visitor struct {
	net.Conn
	in *bufio.Reader
}

func visit(t *testing.T, addr string) *visitor {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &visitor{conn, bufio.NewReader(conn)}
}

// ask sends a request and returns the status of the answer, or 0 where the server has hung up.
func (v *visitor) ask() int {
	fmt.Fprint(v, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	return v.hear()
}

func (v *visitor) hear() int {
	resp, err := http.ReadResponse(v.in, nil)
	if err != nil {
		return 0
	}
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func TestTheLongestSilentMakesRoom(t *testing.T) {
	addr := crowded(t, 0, func(http.ResponseWriter, *http.Request) {})
	first, second := visit(t, addr), visit(t, addr)
	for _, v := range []*visitor{first, second} {
		if got := v.ask(); got != http.StatusOK {
			t.Fatalf("status %d", got)
		}
	}
	for visit(t, addr).ask() != http.StatusOK {
		time.Sleep(time.Millisecond) // the server has not noted yet that they are silent
	}
	if gone := (first.ask() == 0) != (second.ask() == 0); !gone {
		t.Error("not one of the first two had to go")
	}
}

func TestWhereAllAreBusyANewOneIsTold(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	addr := crowded(t, 0, func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-release
	})
	var busy []*visitor
	for range 2 {
		v := visit(t, addr)
		fmt.Fprint(v, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		busy = append(busy, v)
		<-begun
	}
	if got := visit(t, addr).ask(); got != http.StatusTooManyRequests {
		t.Errorf("a third got status %d", got)
	}
	close(release)
	for _, v := range busy {
		if got := v.hear(); got != http.StatusOK {
			t.Errorf("who was busy got status %d", got)
		}
	}
}

// Who has only just connected is given time to say something.
func TestWhoIsNewIsNotSentAway(t *testing.T) {
	addr := crowded(t, time.Hour, func(http.ResponseWriter, *http.Request) {})
	first, second := visit(t, addr), visit(t, addr)
	if got := visit(t, addr).ask(); got != http.StatusTooManyRequests {
		t.Errorf("a third got status %d", got)
	}
	for _, v := range []*visitor{first, second} {
		if got := v.ask(); got != http.StatusOK {
			t.Errorf("status %d", got)
		}
	}
}

// Who says nothing, says it slowly, or has nothing more to say is let go; who is waiting is not.
func TestSilenceEnds(t *testing.T) { synctest.Test(t, silenceEnds) }

func silenceEnds(t *testing.T) {
	release, at := make(chan struct{}), newPipes()
	serveCrowd(t, at, crowdLimits{4, time.Hour, 10 * time.Second, time.Minute, time.Hour}, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
	})
	waiting, mute, slow, done := at.visit(t), at.visit(t), at.visit(t), at.visit(t)
	fmt.Fprint(waiting, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHo")
	if got := done.ask(); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	for name, v := range map[string]*visitor{"mute": mute, "slow": slow, "done": done} {
		if got := v.hear(); got != 0 {
			t.Errorf("%s got status %d", name, got)
		}
	}
	close(release)
	if got := waiting.hear(); got != http.StatusOK {
		t.Errorf("who was waiting got status %d", got)
	}
}

// Who does not take what is sent is let go; who takes it slowly is not.
func TestWhoTakesNothingIsLetGo(t *testing.T) { synctest.Test(t, whoTakesNothingIsLetGo) }

func whoTakesNothingIsLetGo(t *testing.T) {
	const piece, pieces, limit = 64 << 10, 4, time.Minute
	broken, at := make(chan error, 1), newPipes()
	serveCrowd(t, at, crowdLimits{4, time.Hour, time.Hour, time.Hour, limit}, func(w http.ResponseWriter, _ *http.Request) {
		for range pieces {
			if _, err := w.Write(make([]byte, piece)); err != nil {
				broken <- err
				return
			}
		}
	})
	slow := at.visit(t)
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(slow.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range pieces {
		time.Sleep(limit * 2 / 3)
		if _, err := io.CopyN(io.Discard, resp.Body, piece); err != nil {
			t.Errorf("who takes it slowly: %v", err)
		}
	}
	fmt.Fprint(at.visit(t), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-broken; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("who takes nothing: %v", err)
	}
}
