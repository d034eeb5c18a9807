package ggcr

import "sync"

// once is what a function returns the first time that it succeeds.
type once[T any] struct {
	find func() (T, error)

	mu    sync.Mutex // guards the fields below
	found bool
	value T
}

func newOnce[T any](find func() (T, error)) *once[T] { return &once[T]{find: find} }

func (o *once[T]) get() (T, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.found {
		return o.value, nil
	}
	value, err := o.find()
	if err == nil {
		o.found, o.value = true, value
	}
	return value, err
}
