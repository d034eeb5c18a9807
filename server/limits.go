package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// Limits bound what clients can ask for at once. What is beyond a limit is answered with status 429 and
// the time after which to try again. The zero value of each field is its default.
type Limits struct {
	// Requests that are served at once. Default: 1024.
	Requests int
	// Uploads are requests that bring bytes of blobs at once. Default: 128.
	Uploads int
	// Stall is how long a client may take for the next piece of what it sends, or is sent: a quarter of
	// a megabyte, or what is left. Default: one minute.
	Stall time.Duration
}

const (
	defaultRequests = 1024
	defaultUploads  = 128
	defaultStall    = time.Minute
	// retryAfter is when it is worth to try again, in seconds.
	retryAfter = "1"
)

const (
	// smallBody is how large a manifest usually is at most, in bytes. There may be maxSmall of those in
	// memory at once, and maxLarge of those that are larger, or of pages of a list.
	smallBody = 64 << 10
	maxSmall  = 256
	maxLarge  = 4
	// patience is how long a request waits for its turn in memory.
	patience = 5 * time.Second
)

// limiter counts what is under way.
type limiter struct {
	requests, uploads *semaphore.Weighted
	small, large      *semaphore.Weighted
	stall             time.Duration
}

func newLimiter(l Limits) *limiter {
	return &limiter{
		requests: semaphore.NewWeighted(int64(orDefault(l.Requests, defaultRequests))),
		uploads:  semaphore.NewWeighted(int64(orDefault(l.Uploads, defaultUploads))),
		small:    semaphore.NewWeighted(maxSmall),
		large:    semaphore.NewWeighted(maxLarge),
		stall:    orDefault(l.Stall, defaultStall),
	}
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}

// enter counts a request of a kind. leave ends it.
func (l *limiter) enter(kind ocirequest.Kind) (leave func(), err error) {
	if !bringsBytes(kind) {
		return func() {}, nil
	}
	if !l.uploads.TryAcquire(1) {
		return nil, busy("uploads")
	}
	return func() { l.uploads.Release(1) }, nil
}

func bringsBytes(kind ocirequest.Kind) bool {
	return kind == ocirequest.UploadWhole || kind == ocirequest.UploadChunk || kind == ocirequest.UploadFinish
}

func busy(what string) error {
	return fmt.Errorf("%w: as many %s as are allowed are under way; try again in a moment", berth.ErrTooManyRequests, what)
}

// sizeUnknown is the size of a body that does not tell.
const sizeUnknown = -1

// reserve waits until there is room in memory for something of a size, or of one that is not known.
func (c *call) reserve(size int64) (release func(), err error) {
	room := c.limiter.large
	if size >= 0 && size <= smallBody {
		room = c.limiter.small
	}
	if room.TryAcquire(1) {
		return func() { room.Release(1) }, nil
	}
	ctx, cancel := context.WithTimeoutCause(c.r.Context(), patience, busy("large manifests and lists"))
	defer cancel()
	if err := room.Acquire(ctx, 1); err != nil {
		if c.r.Context().Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return func() { room.Release(1) }, nil
}
