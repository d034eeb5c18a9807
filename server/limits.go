package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// Limits bound what clients can ask for at once. What is beyond a limit waits for its turn, Requests apart;
// what then is still beyond is answered with status 429 and the time after which to try again. Where a limit
// is reached, a client that has stood still for some seconds is cut off, so that those who do not move keep
// nobody out for long. The zero value of each field is its default.
type Limits struct {
	// Requests that are served at once. Default: 1024.
	Requests int
	// Uploads are requests that bring bytes of blobs at once. Default: 128.
	Uploads int
	// Patience is how long a request waits for its turn, and how long a client may stand still while others
	// wait for what it has. Default: five seconds.
	Patience time.Duration
	// Stall is how long a client may take for the next piece of what it sends, or is sent: a quarter of
	// a megabyte, or what is left. Default: one minute.
	Stall time.Duration
}

const (
	defaultRequests = 1024
	defaultUploads  = 128
	defaultPatience = 5 * time.Second
	defaultStall    = time.Minute
	// calmFor is how long a refusal takes.
	calmFor = 200 * time.Millisecond
	// retryAfter is when it is worth to try again, in seconds.
	retryAfter = "1"
)

const (
	// smallBody is how large a manifest or a list usually is at most, in bytes. Of these each request may
	// have one in memory.
	smallBody = 32 << 10
	// maxArriving and maxLeaving bound those that are larger, while they are on their way, at the pace of
	// the client.
	maxArriving, maxLeaving = 4, 4
)

// limiter bounds what is under way.
type limiter struct {
	requests, uploads *room
	// arriving and leaving are large manifests and answers that a client sends or is sent. inWork are those
	// that are read or made, and lists: for a moment, but with several times their size in memory, and a
	// processor each; the other half of the processors is for small requests.
	arriving, leaving, inWork *room
	stall                     time.Duration
}

func newLimiter(l Limits) *limiter {
	patience := orDefault(l.Patience, defaultPatience)
	return &limiter{
		requests: newRoom("requests", orDefault(l.Requests, defaultRequests), patience),
		uploads:  newRoom("uploads", orDefault(l.Uploads, defaultUploads), patience),
		arriving: newRoom("large manifests", maxArriving, patience),
		leaving:  newRoom("large answers", maxLeaving, patience),
		inWork:   newRoom("large manifests and lists", max(1, runtime.GOMAXPROCS(0)/2), patience),
		stall:    orDefault(l.Stall, defaultStall),
	}
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}

// enter gives a request its place among those of its kind, if these are bounded.
func (c *call) enter(kind ocirequest.Kind) (*place, error) {
	if !bringsBytes(kind) {
		return nil, nil
	}
	return c.limiter.uploads.await(c.r.Context(), &c.client)
}

func bringsBytes(kind ocirequest.Kind) bool {
	return kind == ocirequest.UploadWhole || kind == ocirequest.UploadChunk || kind == ocirequest.UploadFinish
}

// calm lets a moment pass before a client hears that it asks for too much, so that those who ask again at once
// do not keep the processors from the others. Nothing is held meanwhile.
func (c *call) calm(err error) {
	if statusOf(err) != http.StatusTooManyRequests {
		return
	}
	select {
	case <-time.After(calmFor):
	case <-c.r.Context().Done():
	}
}

// work waits for its turn to read or make something large. It must end before anything is awaited of a client.
func (c *call) work() (*place, error) {
	return c.limiter.inWork.await(c.r.Context(), &c.client)
}

// room bounds how many do something at once.
type room struct {
	what     string
	places   *semaphore.Weighted
	queue    int // how many may wait
	patience time.Duration

	mu      sync.Mutex // guards the fields below
	inside  []*place
	waiting int
}

// minQueue is how many may wait at least. All that wait are well below Requests: who asks for something small
// is not to be turned away because many wait for something large.
const minQueue = 128

func newRoom(what string, places int, patience time.Duration) *room {
	return &room{what: what, places: semaphore.NewWeighted(int64(places)), queue: max(2*places, minQueue), patience: patience}
}

// enter takes a place, if there is one, or if it can be taken from a client that stands still.
//
// Errors: berth.ErrTooManyRequests; ctx.Err().
func (r *room) enter(ctx context.Context, c *client) (*place, error) {
	if r.places.TryAcquire(1) {
		return r.seat(c), nil
	}
	if !r.press() {
		return nil, r.full()
	}
	return r.wait(ctx, c)
}

// await is enter for what is worth to wait for.
func (r *room) await(ctx context.Context, c *client) (*place, error) {
	if r.places.TryAcquire(1) {
		return r.seat(c), nil
	}
	r.press()
	return r.wait(ctx, c)
}

func (r *room) wait(ctx context.Context, c *client) (*place, error) {
	if !r.join() {
		return nil, r.full()
	}
	defer r.quit()
	patient, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	err := r.places.Acquire(patient, 1)
	switch {
	case err == nil:
		return r.seat(c), nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return nil, r.full()
	}
	return nil, err
}

// join takes a place among those who wait, if there is one.
func (r *room) join() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == r.queue {
		return false
	}
	r.waiting++
	return true
}

func (r *room) quit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
}

// place is what one client has of a room. A nil one is where there was no need for a place.
type place struct {
	room   *room
	client *client
	at     int // in the room's inside
}

// seat notes who has a place.
func (r *room) seat(c *client) *place {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &place{r, c, len(r.inside)}
	r.inside = append(r.inside, p)
	return p
}

// leave gives the place back.
func (p *place) leave() {
	if p == nil {
		return
	}
	r := p.room
	r.mu.Lock()
	last := len(r.inside) - 1
	r.inside[last].at = p.at
	r.inside[p.at], r.inside[last] = r.inside[last], nil
	r.inside = r.inside[:last]
	r.mu.Unlock()
	r.places.Release(1)
}

// press cuts off the client that has stood still for longest, if that is too long.
func (r *room) press() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var slowest *client
	longest := r.patience
	for _, p := range r.inside {
		if still := p.client.still(); still > longest {
			slowest, longest = p.client, still
		}
	}
	if slowest == nil {
		return false
	}
	slowest.cut()
	return true
}

func (r *room) full() error {
	return fmt.Errorf("%w: as many %s as are allowed are under way; try again in a moment", berth.ErrTooManyRequests, r.what)
}

// client is the other end of a request.
type client struct {
	conn http.ResponseController
	// since is the time from which on something is awaited of the client, in nanoseconds; 0: nothing is.
	since atomic.Int64
}

// awaits notes that a piece is awaited of the client, for which it has had some time already.
func (c *client) awaits(had time.Duration) { c.since.Store(time.Now().Add(-had).UnixNano()) }

func (c *client) moved() { c.since.Store(0) }

// still is how long the client has stood still.
func (c *client) still() time.Duration {
	since := c.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(time.Unix(0, since))
}

// cut ends what is awaited of the client, now.
func (c *client) cut() {
	now := time.Now()
	c.conn.SetReadDeadline(now)
	c.conn.SetWriteDeadline(now)
	c.moved()
}
