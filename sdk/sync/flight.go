package sync

import (
	"context"
	"errors"
)

// flight is something that is brought once, and that all wait for who need it.
type flight struct {
	done   chan struct{} // closed when err is set
	err    error
	action Action
	at     string // the repository
}

// once brings something, or waits for who does. It reports whether it was this one.
func (h *hostRun) once(ctx context.Context, key string, bring func(*flight) error) (*flight, bool, error) {
	f, known := h.join(key)
	for known {
		select {
		case <-f.done:
		case <-ctx.Done():
			return f, false, ctx.Err()
		}
		if !errors.Is(f.err, context.Canceled) {
			return f, false, f.err
		}
		f, known = h.join(key) // the other one has failed at something else
	}
	f.err = bring(f)
	if f.err != nil { // who comes later tries again
		h.mu.Lock()
		delete(h.brought, key)
		h.mu.Unlock()
	}
	close(f.done)
	return f, true, f.err
}

// join returns what brings something, and whether somebody else does.
func (h *hostRun) join(key string) (f *flight, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f = h.brought[key]; f != nil {
		return f, true
	}
	f = &flight{done: make(chan struct{})}
	h.brought[key] = f
	return f, false
}
