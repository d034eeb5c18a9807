package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/berthoci/berth"
)

// json answers 200 with the JSON of what is made for it. What waits for a client does not keep others from
// their work, and what is large is made only to be sent at once.
func (c *call) json(contentType string, make func() (any, error)) error {
	data, err := c.encoded(make)
	if err != nil {
		return err
	}
	if len(data) > smallBody {
		place, err := c.limiter.leaving.enter(c.r.Context(), &c.client)
		if err != nil {
			return err
		}
		defer place.leave()
	}
	c.w.Header().Set("Content-Type", contentType)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	return c.quiet(c.send(data))
}

func (c *call) encoded(make func() (any, error)) ([]byte, error) {
	turn, err := c.work()
	if err != nil {
		return nil, err
	}
	defer turn.leave()
	v, err := make()
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// held is how much of an answer net/http holds back until the handler has returned, at least, in bytes: to
// write that, no client is awaited.
const held = 2 << 10

// send writes a body that is in memory. The client has its time for it from now on, however long it was in
// the making. In HTTP/2 also a small one waits for the client to want it (RFC 9113, 5.2).
func (c *call) send(data []byte) error {
	if len(data) > held || c.r.ProtoMajor > 1 {
		c.client.conn.SetWriteDeadline(time.Now().Add(c.limiter.stall))
		c.client.awaits(0)
		defer c.client.moved()
	}
	_, err := c.w.Write(data)
	return err
}

// quiet drops an error that came after the answer had begun: there is nobody left to tell.
func (c *call) quiet(err error) error {
	if err != nil {
		c.opts.Logger.Debug("answer broke off", "path", c.r.URL.Path, "err", err)
	}
	return nil
}

func isMounted(err error) bool { return errors.Is(err, berth.ErrMounted) }

// bodyError marks a failure to read the request, which is the client's, apart from a failure to
// store it, which is ours.
type bodyError struct{ io.Reader }

func (b bodyError) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = withStatus(http.StatusBadRequest, fmt.Errorf("%w: the body did not arrive whole: %w", berth.ErrUploadInvalid, err))
	}
	return n, err
}

// copyBody appends a body to an upload: all of it, or exactly as much as it says it has.
func copyBody(up berth.Upload, body io.Reader, length int64) error {
	body = bodyError{body}
	if length < 0 {
		_, err := io.Copy(up, body)
		return err
	}
	n, err := io.Copy(up, io.LimitReader(body, length))
	if err != nil {
		return err
	}
	more, err := io.CopyN(io.Discard, body, 1)
	switch {
	case n < length:
		return fmt.Errorf("chunk has %d bytes, its range %d: %w", n, length, berth.ErrSizeInvalid)
	case more > 0:
		return fmt.Errorf("chunk has more than the %d bytes of its range: %w", length, berth.ErrSizeInvalid)
	case err != io.EOF:
		return err
	}
	return nil
}
