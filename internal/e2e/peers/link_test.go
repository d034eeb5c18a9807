//go:build linux

package main

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"testing"
	"time"
)

// echo answers with all that came, once the other side has ended. It returns its address.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			all, _ := io.ReadAll(c)
			c.Write(all)
			c.Close()
		}
	}()
	return listener.Addr().String()
}

// through sends something through a link to an echo, and ends. It returns what came back, and when.
func through(t *testing.T, l *link, sent []byte) (got []byte, took time.Duration) {
	t.Helper()
	begin := time.Now()
	c, err := net.Dial("tcp", l.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err = io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	return got, time.Since(begin)
}

// Each way takes its time, and the handshake both; what arrives is what was sent, and its end comes behind it.
func TestALinkTakesItsTimeAndChangesNothing(t *testing.T) {
	const delay = 20 * time.Millisecond
	l, err := openLink(echo(t), delay)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	big := make([]byte, 3*chunkSize*chunksUnderway+1)
	rand.Read(big)
	for i, sent := range [][]byte{{1}, {}, big} {
		got, took := through(t, l, sent)
		if !bytes.Equal(got, sent) {
			t.Errorf("of %d bytes, %d came back, or others", len(sent), len(got))
		}
		if took < 4*delay {
			t.Errorf("%d bytes went and came back in %v", len(sent), took)
		}
		if l.conns.Load() != int64(i+1) {
			t.Errorf("%d connections are counted, not %d", l.conns.Load(), i+1)
		}
	}
	if want := int64(1 + len(big)); l.up.Load() != want || l.down.Load() != want {
		t.Errorf("%d and %d bytes are counted, not %d", l.up.Load(), l.down.Load(), want)
	}
}

// A link that is closed waits neither for who sends nothing nor for who takes nothing.
func TestALinkIsClosedAtOnce(t *testing.T) {
	l, err := openLink(echo(t), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", l.address())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for l.conns.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	l.close()
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still there")
	}
	if c, err := net.Dial("tcp", l.address()); err == nil {
		c.Close()
		t.Error("the link takes another connection")
	}
}

// Who is not there cannot be reached through a link either.
func TestALinkToNobody(t *testing.T) {
	nobody, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLink(nobody, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	c, err := net.Dial("tcp", l.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came", n)
	}
}
