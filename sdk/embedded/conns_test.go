package embedded

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// crowded serves with room for two connections, and returns where.
func crowded(t *testing.T, settled time.Duration, handler http.HandlerFunc) string {
	t.Helper()
	return crowdedWith(t, crowdLimits{2, settled, time.Hour, time.Hour, time.Hour}, handler)
}

func crowdedWith(t *testing.T, limits crowdLimits, handler http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
	return listener.Addr().String()
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
func TestSilenceEnds(t *testing.T) {
	release := make(chan struct{})
	limits := crowdLimits{4, time.Hour, 40 * time.Millisecond, 40 * time.Millisecond, time.Hour}
	addr := crowdedWith(t, limits, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-release
		}
	})
	waiting, mute, slow, done := visit(t, addr), visit(t, addr), visit(t, addr), visit(t, addr)
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
func TestWhoTakesNothingIsLetGo(t *testing.T) {
	const piece, pieces = 1 << 20, 64 // more than the system takes in a client's place
	broken := make(chan error, 1)
	limits := crowdLimits{4, time.Hour, time.Hour, time.Hour, 200 * time.Millisecond}
	addr := crowdedWith(t, limits, func(w http.ResponseWriter, _ *http.Request) {
		for range pieces {
			if _, err := w.Write(make([]byte, piece)); err != nil {
				broken <- err
				return
			}
		}
	})
	slow := visit(t, addr)
	fmt.Fprint(slow, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(slow.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := io.CopyN(io.Discard, resp.Body, pieces*piece/4); err != nil {
			t.Errorf("who takes it slowly: %v", err)
		}
		time.Sleep(limits.write / 3)
	}
	fmt.Fprint(visit(t, addr), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-broken; !errors.Is(err, net.ErrClosed) {
		t.Errorf("who takes nothing: %v", err)
	}
}
