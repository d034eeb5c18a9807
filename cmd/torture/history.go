package main

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// never is the position of what has not been heard.
const never = math.MaxInt

// State is a layout as the shortest list of pushes that leads to it: one for each manifest, in the
// order of their first push, with the tags that point at it.
type State []Op

// record is what a history knows of one operation.
type record struct {
	Op
	begin, end int // positions of its lines; end is never before it was answered
	at         time.Time
}

// History is what one child has said, in the order in which it said so. The position of a line is a
// clock that both processes agree on: an operation whose answer has a smaller position than another's
// beginning was over before that one began.
type History struct {
	base State

	mu      sync.Mutex // guards the fields below
	clock   int
	records []*record // by begin
	open    map[int64]*record
	refused []string
	acks    map[Kind]int
	opened  chan struct{}
	first   chan struct{} // closed at the first answer
	marks   chan int      // position of the last mark that was asked for
}

// NewHistory begins a history of a layout that is in a known state.
func NewHistory(base State) *History {
	return &History{base: base, open: map[int64]*record{}, acks: map[Kind]int{},
		opened: make(chan struct{}), first: make(chan struct{}), marks: make(chan int, 1)}
}

// Take adds an event that was heard at a time.
func (h *History) Take(e Event, at time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	switch e.Phase {
	case Opened:
		closeOnce(h.opened)
	case Mark:
		select {
		case h.marks <- h.clock:
		default: // nobody waits for it any more
		}
	case Begin:
		r := &record{Op: *e.Op, begin: h.clock, end: never}
		h.open[e.ID] = r
		h.records = append(h.records, r)
	default:
		return h.answer(e, at)
	}
	return nil
}

// answer ends an operation.
func (h *History) answer(e Event, at time.Time) error {
	r := h.open[e.ID]
	if r == nil {
		return fmt.Errorf("operation %d is %s and had not begun", e.ID, e.Phase)
	}
	delete(h.open, e.ID)
	switch e.Phase {
	case Ack:
		r.end, r.at = h.clock, at
		h.acks[r.Kind]++
		closeOnce(h.first)
	case Void:
		h.records = slices.DeleteFunc(h.records, func(other *record) bool { return other == r })
	case Refused:
		h.refused = append(h.refused, fmt.Sprintf("%s %s %v: %s", r.Kind, r.manifest(), r.Tags, e.Text))
	default:
		return fmt.Errorf("operation %d is %q", e.ID, e.Phase)
	}
	return nil
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// Position is that of the last line.
func (h *History) Position() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clock
}

// Acks counts the operations of each kind that were answered.
func (h *History) Acks() map[Kind]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	counts := map[Kind]int{}
	for kind, n := range h.acks {
		counts[kind] = n
	}
	return counts
}

// Refused tells what failed.
func (h *History) Refused() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.refused)
}

// Cut is an instant at which a layout was looked at, and what had been promised by then.
type Cut struct {
	// Heard is the position up to which answers were heard before the instant.
	Heard int
	// Begun is the position up to which operations had begun by then, at the latest.
	Begun int
	// Since restricts what was promised to what was heard before this time, or answered before a
	// flush began that was answered. Zero: all answers are promises.
	Since time.Time
	// Unnamed tells whether a blob that no manifest names is promised.
	Unnamed bool
}

// AfterKill is the cut of a child that is dead: all that it said counts.
func AfterKill() Cut { return Cut{Heard: never - 1, Begun: never - 1, Unnamed: true} }

// flushed is where the last flush began that had ended before the cut.
func (c Cut) flushed(records []*record) int {
	last := 0
	for _, r := range records {
		if r.Kind == Flush && r.end <= c.Heard {
			last = r.begin
		}
	}
	return last
}

// promised reports whether an operation must have happened.
func (c Cut) promised(r *record, flushed int) bool {
	return r.end <= c.Heard && (c.Since.IsZero() || !r.at.After(c.Since) || r.end < flushed)
}
