//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// readBuffer is where what is pulled goes, in bytes; it is never looked at.
	readBuffer = 256 << 10
	// connTimeout bounds all that one connection is used for.
	connTimeout = 10 * time.Minute
)

// conn is one connection that is kept. It speaks as little HTTP as it needs, so that the servers, and not
// the client, are what is measured.
type conn struct {
	net.Conn
	address string
	auth    string // what is sent as Authorization, if anything
	in      *bufio.Reader
	out     []byte
	sink    []byte
}

// request is what is asked. The address is added.
type request struct {
	method, path, contentType string
	body                      content
	keep                      bool // the answer's body is wanted
}

// response is what of an answer matters here.
type response struct {
	status         int
	length         int64 // -1: it is sent in chunks
	location, link string
	body           []byte // where it was to be kept
}

func dial(address string) (*conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(connTimeout))
	return &conn{Conn: c, address: address, in: bufio.NewReader(c)}, nil
}

func (c *conn) close() { c.Conn.Close() }

// do asks, and takes the whole answer.
func (c *conn) do(r request) (response, error) {
	if err := c.send(r); err != nil {
		return response{}, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	answer, err := c.head()
	if err == nil {
		err = c.take(r, &answer)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	return answer, err
}

// want is do for who wants a certain status.
func (c *conn) want(status int, r request) (response, error) {
	answer, err := c.do(r)
	if err == nil && answer.status != status {
		err = fmt.Errorf("%s %s: status %d, not %d", r.method, r.path, answer.status, status)
	}
	return answer, err
}

// accept is what clients say that they understand.
const accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"

func (c *conn) send(r request) error {
	out := append(c.out[:0], r.method...)
	out = append(append(out, ' '), r.path...)
	out = append(append(out, " HTTP/1.1\r\nHost: "...), c.address...)
	out = append(out, "\r\nUser-Agent: peers\r\nAccept: "+accept+"\r\n"...)
	if c.auth != "" {
		out = append(append(append(out, "Authorization: "...), c.auth...), "\r\n"...)
	}
	if r.contentType != "" {
		out = append(append(append(out, "Content-Type: "...), r.contentType...), "\r\n"...)
	}
	if r.method == http.MethodPut || r.method == http.MethodPost {
		out = append(strconv.AppendInt(append(out, "Content-Length: "...), r.body.size(), 10), "\r\n"...)
	}
	out = append(out, "\r\n"...)
	if r.body.repeats == 0 {
		out = append(out, r.body.tail...)
		r.body.tail = nil
	}
	c.out = out[:0]
	if _, err := c.Write(out); err != nil {
		return err
	}
	return r.body.writeTo(c.Conn)
}

// head reads an answer up to its body.
func (c *conn) head() (r response, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return r, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return r, fmt.Errorf("answered %q", line)
	}
	if r.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return r, err
	}
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return r, err
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			return r, nil
		}
		if err := r.note(name, bytes.TrimSpace(value)); err != nil {
			return r, err
		}
	}
}

// note takes in one field of a head.
func (r *response) note(name, value []byte) (err error) {
	switch is := func(other string) bool { return len(name) == len(other) && strings.EqualFold(string(name), other) }; {
	case is("Content-Length"):
		r.length, err = strconv.ParseInt(string(value), 10, 64)
	case is("Transfer-Encoding"):
		r.length = -1
	case is("Location"):
		r.location = string(value)
	case is("Link"):
		r.link = string(value)
	}
	return err
}

// take reads an answer's body.
func (c *conn) take(r request, answer *response) error {
	switch {
	case r.method == http.MethodHead || answer.status == http.StatusNoContent:
		return nil
	case answer.length < 0:
		return c.takeChunks(answer)
	case r.keep:
		answer.body = make([]byte, answer.length)
		_, err := io.ReadFull(c.in, answer.body)
		return err
	}
	buffered, err := c.in.Discard(int(min(int64(c.in.Buffered()), answer.length)))
	left := answer.length - int64(buffered)
	if c.sink == nil && left > 0 {
		c.sink = make([]byte, readBuffer)
	}
	for err == nil && left > 0 {
		var n int
		n, err = c.Read(c.sink[:min(left, readBuffer)])
		left -= int64(n)
	}
	return err
}

func (c *conn) takeChunks(answer *response) (err error) {
	if answer.body, err = io.ReadAll(httputil.NewChunkedReader(c.in)); err != nil {
		return err
	}
	_, err = c.in.ReadSlice('\n') // behind the last chunk
	return err
}

// content is bytes that are to be sent: a block so many times and a tail, or a file of a length that is known.
type content struct {
	block   []byte
	repeats int
	tail    []byte
	file    string
	length  int64
}

func (c content) size() int64 {
	return int64(len(c.block))*int64(c.repeats) + int64(len(c.tail)) + c.length
}

func (c content) writeTo(w io.Writer) error {
	if c.file != "" {
		return copyFile(w, c.file)
	}
	for range c.repeats {
		if _, err := w.Write(c.block); err != nil {
			return err
		}
	}
	if len(c.tail) == 0 {
		return nil
	}
	_, err := w.Write(c.tail)
	return err
}

// copyFile lets the kernel send the file, where that can.
func copyFile(w io.Writer, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(w, file)
	return err
}
