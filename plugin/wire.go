package plugin

import (
	"bufio"
	"bytes"
	"net"

	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
)

// What a connection is for, as its first byte.
const (
	forCalls = 'C'
	forLease = 'L'
)

// wire is the connection of a lease. One goroutine may send while another one receives.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
}

func newWire(conn net.Conn) *wire { return &wire{conn, bufio.NewReader(conn)} }

// send writes a message at once, so that the other end is woken once.
func (w *wire) send(m proto.Message) error {
	var out bytes.Buffer
	if _, err := protodelim.MarshalTo(&out, m); err != nil {
		return err
	}
	_, err := w.conn.Write(out.Bytes())
	return err
}

func (w *wire) receive(m proto.Message) error {
	return protodelim.UnmarshalOptions{MaxSize: maxMessage}.UnmarshalFrom(w.in, m)
}
