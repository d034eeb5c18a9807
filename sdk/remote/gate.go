package remote

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// defaultRequests is how many requests one host is sent at once, where the caller does not say.
	defaultRequests = 32
	// maxInterval is the slowest pace that refusals lead to.
	maxInterval = 10 * time.Second
	// calm is after how many answers in a row a pace that was learnt is raised.
	calm = 200
)

// gate is what all requests to one host have to pass, whatever they are for.
type gate struct {
	slots chan struct{}

	mu       sync.Mutex // guards the fields below
	floor    time.Duration
	interval time.Duration // between the beginnings of two requests; zero: none
	next     time.Time     // when the next request may begin
	until    time.Time     // what the host has asked to wait for
	recent   []time.Time   // answers of the last second, the oldest first
	inARow   int           // answers since the last refusal
	answered bool          // the host has answered at least once
	limit    RateLimit
}

// RateLimit is what a registry says of how much may be asked of it, as Docker Hub does.
type RateLimit struct {
	// Limit and Remaining are numbers of pulls or requests, whatever the registry counts.
	Limit, Remaining int
	// Window is the time that they are for. Zero: the registry does not say.
	Window time.Duration
}

func newGate(requests int, perSecond float64) *gate {
	g := &gate{slots: make(chan struct{}, requests)}
	if perSecond > 0 {
		g.floor = time.Duration(float64(time.Second) / perSecond)
		g.interval = g.floor
	}
	return g
}

// enter waits until a request may begin. Whoever has entered leaves.
func (g *gate) enter(ctx context.Context) error {
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		wait := g.reserve(time.Now())
		if wait <= 0 {
			return nil
		}
		if err := sleep(ctx, wait); err != nil {
			g.leave()
			return err
		}
	}
}

func (g *gate) leave() { <-g.slots }

// reserve takes the next turn if it is due, or says how long to wait before asking again.
func (g *gate) reserve(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := g.next
	if g.until.After(due) {
		due = g.until
	}
	if due.After(now) {
		return due.Sub(now)
	}
	g.next = now.Add(g.interval)
	return 0
}

// took notes an answer that is no refusal. A pace that refusals have led to is raised in time.
func (g *gate) took(now time.Time, h http.Header) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered = true
	g.recent = append(g.lastSecond(now), now)
	if limit, ok := readRateLimit(h); ok {
		g.limit = limit
	}
	if g.inARow++; g.inARow%calm == 0 {
		g.interval = max(g.floor, g.interval*9/10)
	}
}

// refused notes that the host has had too much: nobody asks it before the time that it has named, and from then on
// fewer requests begin in a second than it has answered in the last.
func (g *gate) refused(now time.Time, wait time.Duration, h http.Header) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered = true
	if limit, ok := readRateLimit(h); ok {
		g.limit = limit
	}
	g.recent = g.lastSecond(now)
	fresh := g.inARow > 0 || g.interval == 0 // not one more of a volley that was under way
	g.inARow = 0
	if until := now.Add(wait); until.After(g.until) {
		g.until = until
	}
	switch {
	case !fresh:
	case g.interval == 0:
		g.interval = time.Second * 10 / time.Duration(9*max(1, len(g.recent)))
	default:
		g.interval = min(maxInterval, g.interval*5/4)
	}
}

// lastSecond drops the answers that are older. The caller holds mu.
func (g *gate) lastSecond(now time.Time) []time.Time {
	begin := 0
	for begin < len(g.recent) && now.Sub(g.recent[begin]) > time.Second {
		begin++
	}
	return append(g.recent[:0], g.recent[begin:]...)
}

func (g *gate) known() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.answered
}

func (g *gate) rateLimit() RateLimit {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit
}

// retryAfter reads how long a host asks to wait: seconds or a date (RFC 9110, 10.2.3), which is taken by the host's
// own clock where that is told.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds >= 0 && seconds < maxRetryAfter.Seconds() {
		return time.Duration(seconds * float64(time.Second)), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		_, err = strconv.ParseFloat(value, 64)
		return maxRetryAfter, err == nil && !strings.HasPrefix(value, "-")
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(0, at.Sub(now)), maxRetryAfter), true
}

// maxRetryAfter stands for every time that nobody waits for.
const maxRetryAfter = 24 * time.Hour

// readRateLimit reads "100;w=21600", the form of Docker Hub.
func readRateLimit(h http.Header) (RateLimit, bool) {
	limit, window, ok := countAndWindow(h.Get("RateLimit-Limit"))
	if !ok {
		return RateLimit{}, false
	}
	remaining, _, ok := countAndWindow(h.Get("RateLimit-Remaining"))
	return RateLimit{Limit: limit, Remaining: remaining, Window: window}, ok
}

func countAndWindow(value string) (count int, window time.Duration, ok bool) {
	first, params, _ := strings.Cut(value, ";")
	count, err := strconv.Atoi(strings.TrimSpace(first))
	if seconds, found := strings.CutPrefix(strings.TrimSpace(params), "w="); found {
		if n, err := strconv.Atoi(seconds); err == nil && n > 0 && n < 1<<30 {
			window = time.Duration(n) * time.Second
		}
	}
	return count, window, err == nil && count >= 0
}

// sleep waits, or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
