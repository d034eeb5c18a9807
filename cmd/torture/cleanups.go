package main

import "errors"

// cleanups undo what was done, the last thing first.
type cleanups []func() error

func (c *cleanups) add(undo func() error) { *c = append(*c, undo) }

// run undoes everything, also where a step fails, and once only.
func (c *cleanups) run() error {
	var errs []error
	for len(*c) > 0 {
		last := len(*c) - 1
		undo := (*c)[last]
		*c = (*c)[:last]
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}
