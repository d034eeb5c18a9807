package server

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// Limits bound what clients can ask for at once. What is beyond a limit waits for its turn, Requests apart;
// what then is still beyond is answered with status 429 and the time after which to try again. The zero
// value of each field is its default.
type Limits struct {
	// Requests that are served at once. Default: 1024.
	Requests int
	// Uploads are requests that bring bytes of blobs at once. Default: 128.
	Uploads int
	// Patience is how long a request waits for its turn before it is turned away. Default: five seconds.
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
	// retryAfter is when it is worth to try again, in seconds.
	retryAfter = "1"
)

const (
	// smallBody is how large a manifest usually is at most, in bytes. There may be maxSmall of those in
	// memory at once, and maxLarge of those that are larger, or of pages of a list.
	smallBody = 64 << 10
	maxSmall  = 256
	maxLarge  = 4
)

// limiter counts what is under way.
type limiter struct {
	requests, uploads *semaphore.Weighted
	small, large      *semaphore.Weighted
	patience, stall   time.Duration
}

func newLimiter(l Limits) *limiter {
	return &limiter{
		requests: semaphore.NewWeighted(int64(orDefault(l.Requests, defaultRequests))),
		uploads:  semaphore.NewWeighted(int64(orDefault(l.Uploads, defaultUploads))),
		small:    semaphore.NewWeighted(maxSmall),
		large:    semaphore.NewWeighted(maxLarge),
		patience: orDefault(l.Patience, defaultPatience),
		stall:    orDefault(l.Stall, defaultStall),
	}
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}

// enter waits until a request of a kind may begin. leave ends it.
func (l *limiter) enter(ctx context.Context, kind ocirequest.Kind) (leave func(), err error) {
	if !bringsBytes(kind) {
		return func() {}, nil
	}
	return l.acquire(ctx, l.uploads, "uploads")
}

func bringsBytes(kind ocirequest.Kind) bool {
	return kind == ocirequest.UploadWhole || kind == ocirequest.UploadChunk || kind == ocirequest.UploadFinish
}

// acquire waits for a place, for a while.
func (l *limiter) acquire(ctx context.Context, places *semaphore.Weighted, what string) (release func(), err error) {
	release = func() { places.Release(1) }
	if places.TryAcquire(1) {
		return release, nil
	}
	waiting, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	switch err := places.Acquire(waiting, 1); {
	case err == nil:
		return release, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, busy(what)
}

func busy(what string) error {
	return fmt.Errorf("%w: as many %s as are allowed are under way; try again in a moment", berth.ErrTooManyRequests, what)
}

// sizeUnknown is the size of a body that does not tell.
const sizeUnknown = -1

// reserve waits until there is room in memory for something of a size, or of one that is not known.
func (c *call) reserve(size int64) (release func(), err error) {
	if size >= 0 && size <= smallBody {
		return c.limiter.acquire(c.r.Context(), c.limiter.small, "manifests")
	}
	return c.limiter.acquire(c.r.Context(), c.limiter.large, "large manifests and lists")
}
