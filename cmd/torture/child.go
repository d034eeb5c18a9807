package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// patience is how long a child may take for its first answer, or for a mark.
const patience = 2 * time.Minute

// child is a process that puts load on a layout, and what it has said.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	history *History
	errors  *tail
	heard   chan struct{} // closed when it says no more
	garbled error         // a line that was not understood; to be read when heard is closed
}

// startChild starts writers on a layout that is in a known state.
func startChild(l load, state State, env ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{history: NewHistory(state), errors: &tail{}, heard: make(chan struct{})}
	c.cmd = exec.Command(self, l.args()...)
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Stderr = c.errors
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.listen(bufio.NewReader(out))
	go json.NewEncoder(c.in).Encode(state) // in the background: a child that was killed reads nothing
	return c, nil
}

// listen takes lines until there are no more. The last one has no end if the child died in it.
func (c *child) listen(out *bufio.Reader) {
	defer close(c.heard)
	for {
		line, err := out.ReadBytes('\n')
		if err != nil {
			return
		}
		e, err := decode(line)
		if err == nil {
			err = c.history.Take(e, time.Now())
		}
		if err != nil && c.garbled == nil {
			c.garbled = err
		}
	}
}

// await waits for one thing that a child is to do, and fails if it ends or takes too long.
func await[T any](ctx context.Context, c *child, what string, done <-chan T) (T, error) {
	var none T
	select {
	case v := <-done:
		return v, nil
	case <-ctx.Done():
		return none, ctx.Err()
	case <-c.heard:
		return none, fmt.Errorf("the writers ended before %s", what)
	case <-time.After(patience):
		return none, fmt.Errorf("the writers took %v and did not come to %s", patience, what)
	}
}

// kill ends the process with SIGKILL and hears its last words. What it printed about an end of its
// own is the error.
func (c *child) kill() error {
	ended := false
	select {
	case <-c.heard:
		ended = true
	default:
	}
	c.cmd.Process.Kill()
	<-c.heard
	err := c.cmd.Wait()
	c.in.Close()
	if ended {
		return errors.Join(c.garbled, fmt.Errorf("the writers ended by themselves: %w: %s", err, c.errors))
	}
	return c.garbled
}

// tail keeps the beginning and the end of what a process prints.
type tail struct {
	mu   sync.Mutex // guards the field below
	text []byte
}

const maxTail = 8 << 10

// Write takes all of p and keeps a part.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > 2*maxTail {
		t.text = append(t.text[:maxTail], t.text[len(t.text)-maxTail:]...)
	}
	return len(p), nil
}

// String returns what was kept as one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.FieldsFunc(string(t.text), func(r rune) bool { return r == '\n' }), " | ")
}
