package control

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Where the kernel does not tell who calls, both ends of a connection prove that they have read the
// layout's endpoint file, which only its owner can. The one who calls sends a nonce; the one who answers
// sends another, and the first one signed; the one who calls sends the second one signed. So neither says
// anything to a stranger, as there is one at the port of an owner that was killed long ago.
const (
	nonceSize = 32
	// proofTime is how long either end may take for its part.
	proofTime = 5 * time.Second
	// maxUnproven bounds the connections that have not proven anything yet.
	maxUnproven = 64
)

// errUnproven is what a stranger at the other end is.
var errUnproven = errors.New("the other end does not know the secret")

func signed(secret, role string, nonce []byte) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(role))
	mac.Write(nonce)
	return mac.Sum(nil)
}

// proveCaller is the part of the one who calls.
func proveCaller(conn net.Conn, secret string) error {
	own := make([]byte, nonceSize)
	rand.Read(own)
	if _, err := conn.Write(own); err != nil {
		return err
	}
	answer := make([]byte, nonceSize+sha256.Size)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if !hmac.Equal(answer[nonceSize:], signed(secret, "owner", own)) {
		return errUnproven
	}
	_, err := conn.Write(signed(secret, "caller", answer[:nonceSize]))
	return err
}

// proveOwner is the part of the one who answers.
func proveOwner(conn net.Conn, secret string) error {
	theirs, own := make([]byte, nonceSize), make([]byte, nonceSize)
	if _, err := io.ReadFull(conn, theirs); err != nil {
		return err
	}
	rand.Read(own)
	if _, err := conn.Write(append(own, signed(secret, "owner", theirs)...)); err != nil {
		return err
	}
	proof := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, proof); err != nil {
		return err
	}
	if !hmac.Equal(proof, signed(secret, "caller", own)) {
		return errUnproven
	}
	return nil
}

// within runs one end's part of the proof. A connection that does not pass is closed.
func within(conn net.Conn, until time.Time, prove func(net.Conn, string) error, secret string) error {
	conn.SetDeadline(until)
	err := prove(conn, secret)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
	}
	return err
}

// provenListener accepts the connections of those who know a secret. Those who are slow to prove that keep
// nobody else waiting.
type provenListener struct {
	net.Listener
	secret  string
	proven  chan net.Conn
	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup
}

func listenTCP() (*provenListener, endpoint, error) {
	listener, err := net.Listen(tcpNetwork, "127.0.0.1:0")
	if err != nil {
		return nil, endpoint{}, err
	}
	l := &provenListener{Listener: listener, secret: rand.Text(), proven: make(chan net.Conn)}
	l.life, l.end = context.WithCancel(context.Background())
	l.running.Go(l.acceptAll)
	return l, endpoint{Network: tcpNetwork, Address: listener.Addr().String(), Secret: l.secret}, nil
}

// acceptAll returns when the listener is closed.
func (l *provenListener) acceptAll() {
	slots := make(chan struct{}, maxUnproven)
	for l.life.Err() == nil {
		conn, err := l.Listener.Accept()
		if err != nil { // it is closed, or too many files are open
			l.pause()
			continue
		}
		slots <- struct{}{} // comes free within proofTime
		l.running.Go(func() {
			l.admit(conn)
			<-slots
		})
	}
}

func (l *provenListener) pause() {
	select {
	case <-l.life.Done():
	case <-time.After(10 * time.Millisecond):
	}
}

// admit hands a connection on that has proven itself.
func (l *provenListener) admit(conn net.Conn) {
	stop := context.AfterFunc(l.life, func() { conn.Close() })
	err := within(conn, time.Now().Add(proofTime), proveOwner, l.secret)
	if !stop() || err != nil {
		conn.Close()
		return
	}
	select {
	case l.proven <- conn:
	case <-l.life.Done():
		conn.Close()
	}
}

func (l *provenListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.proven:
		return conn, nil
	case <-l.life.Done():
		return nil, net.ErrClosed
	}
}

func (l *provenListener) Close() error {
	l.end()
	err := l.Listener.Close()
	l.running.Wait()
	return err
}

// dialTCP calls the owner that an endpoint file tells of.
func dialTCP(ctx context.Context, at endpoint) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, tcpNetwork, at.Address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	until := time.Now().Add(proofTime)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := within(conn, until, proveCaller, at.Secret); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: who answers at %s is another program: %w", ErrNotRunning, at.Address, err)
	}
	return conn, nil
}
