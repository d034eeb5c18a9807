package auth

import (
	"context"
	"sync"
)

// flights runs one call for a key at a time and gives its outcome to all who ask for that key
// meanwhile. A caller who gives up leaves; the call ends when the last one has left, so cancelling
// leaves no work behind, and cancelling one caller fails no other.
type flights[V any] struct {
	mu    sync.Mutex // mu guards the fields below, and waiters of every flight
	calls map[string]*flight[V]
}

type flight[V any] struct {
	cancel  context.CancelFunc
	waiters int
	done    chan struct{} // closed when value and err are set
	value   V
	err     error
}

// do returns what fn returns, or ctx.Err() if ctx ends first. The context that fn is given has the
// values of the caller that began the flight.
func (g *flights[V]) do(ctx context.Context, key string, fn func(context.Context) (V, error)) (V, error) {
	f := g.join(ctx, key, fn)
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		g.leave(key, f)
		var none V
		return none, ctx.Err()
	}
}

func (g *flights[V]) join(ctx context.Context, key string, fn func(context.Context) (V, error)) *flight[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f, ok := g.calls[key]; ok {
		f.waiters++
		return f
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight[V]{cancel: cancel, waiters: 1, done: make(chan struct{})}
	if g.calls == nil {
		g.calls = make(map[string]*flight[V])
	}
	g.calls[key] = f
	go func() {
		defer cancel()
		f.value, f.err = fn(own)
		g.land(key, f)
		close(f.done)
	}()
	return f
}

// leave takes one waiter away. The last one takes the flight off the list in the same step, so
// nobody joins a flight that is about to be cancelled.
func (g *flights[V]) leave(key string, f *flight[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.waiters--
	if f.waiters == 0 {
		g.remove(key, f)
		f.cancel()
	}
}

// land makes the next caller for key begin anew.
func (g *flights[V]) land(key string, f *flight[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remove(key, f)
}

func (g *flights[V]) remove(key string, f *flight[V]) {
	if g.calls[key] == f {
		delete(g.calls, key)
	}
}
