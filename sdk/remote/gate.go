package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berthoci/berth/internal/retry"
)

const (
	// defaultRequests is how many requests one host is sent at once, where the caller does not say.
	defaultRequests = 32
	// maxInterval is the slowest pace that refusals lead to, and minInterval one that is none.
	maxInterval = 10 * time.Second
	minInterval = time.Millisecond
	// calm is after how many answers in a row a pace that was learnt is raised.
	calm = 20
	// fewAnswers is what a host is taken to bear in a second, at least: one that has just been asked less than that has not shown more.
	fewAnswers = 5
	// maxPause is for how long, at most, a host is left alone because it has once asked for that.
	maxPause = 10 * time.Minute
)

// gate is what all requests to one host have to pass, whatever they are for.
type gate struct {
	slots chan struct{}

	mu       sync.Mutex // guards the fields below
	floor    time.Duration
	interval time.Duration // between the beginnings of two requests; zero: none
	next     time.Time     // when the next request may begin
	until    time.Time     // what the host has asked to wait for
	status   int           // with which it has done so
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

// enter waits until the host may be sent one more request at once. Whoever has entered leaves.
func (g *gate) enter(ctx context.Context) error {
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) leave() { <-g.slots }

// turn waits until a request may begin.
//
// Errors: *heldError where the host has asked to be left alone for longer than the request can wait; ctx.Err().
func (g *gate) turn(ctx context.Context, t *trial) error {
	for {
		wait, err := g.reserve(time.Now(), t)
		if err != nil || wait <= 0 {
			return err
		}
		if err := retry.Wait(ctx, wait); err != nil {
			return err
		}
	}
}

// reserve takes the next turn if it is due, or says how long to wait before asking again. Only what the host has asked for is on
// the account of the request's patience: that others are before it is not.
func (g *gate) reserve(now time.Time, t *trial) (time.Duration, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := g.next
	if g.until.After(now) {
		if g.until.After(t.deadline(now)) {
			return 0, &heldError{status: g.status, wait: g.until.Sub(now)}
		}
		if g.until.After(due) {
			due = g.until
		}
	}
	if due.After(now) {
		return due.Sub(now), nil
	}
	g.next = now.Add(g.interval)
	return 0, nil
}

// heldError is why a request was not sent.
type heldError struct {
	status int
	wait   time.Duration
}

func (e *heldError) Error() string {
	return "the host has asked to be left alone for " + e.wait.String()
}

// response is what the host has last answered, with what remains of the time that it has named.
func (e *heldError) response(req *http.Request) *http.Response {
	text := "the host has asked for a pause, which is not over"
	return &http.Response{
		Status: strconv.Itoa(e.status) + " " + http.StatusText(e.status), StatusCode: e.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:  http.Header{"Content-Type": {"text/plain"}, "Retry-After": {strconv.FormatInt(int64(e.wait/time.Second)+1, 10)}},
		Request: req, Body: io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)),
	}
}

// note takes from every answer what it tells of the host.
func (g *gate) note(h http.Header) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered = true
	if limit, ok := readRateLimit(h); ok {
		g.limit = limit
	}
}

// took notes an answer that is no refusal. A pace that refusals have led to is raised in time, and given up in the end.
func (g *gate) took(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.recent = append(g.lastSecond(now), now)
	if g.inARow++; g.inARow%calm != 0 {
		return
	}
	if g.interval = g.interval * 9 / 10; g.interval < max(g.floor, minInterval) {
		g.interval = g.floor
	}
}

// refused notes that the host has had too much: nobody asks it before the time that it has named, and from then on
// fewer requests begin in a second than it has answered in the last.
func (g *gate) refused(now time.Time, wait time.Duration, status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.recent = g.lastSecond(now)
	fresh := g.inARow > 0 || g.interval == 0 // not one more of a volley that was under way
	g.inARow = 0
	if until := now.Add(min(wait, maxPause)); until.After(g.until) {
		g.until, g.status = until, status
	}
	switch {
	case !fresh:
	case g.interval == 0:
		g.interval = time.Second * 10 / time.Duration(9*max(fewAnswers, len(g.recent)))
	default:
		g.interval = min(max(g.floor, maxInterval), g.interval*5/4)
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

// spent reports whether the host has told that there is nothing left of a limit whose time is longer than anybody waits.
func (g *gate) spent(patience time.Duration) bool {
	limit := g.rateLimit()
	return limit.Limit > 0 && limit.Remaining == 0 && limit.Window > patience
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
	if seconds, err := strconv.ParseFloat(value, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		seconds = min(seconds, maxRetryAfter.Seconds())
		return time.Duration(seconds * float64(time.Second)), seconds >= 0 // which no NaN is
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
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
