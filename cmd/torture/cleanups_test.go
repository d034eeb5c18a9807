package main

import (
	"errors"
	"slices"
	"testing"
)

func TestCleanupsRunBackwardsAndOnce(t *testing.T) {
	var done []int
	broken := errors.New("busy")
	var c cleanups
	for i := range 3 {
		c.add(func() error {
			done = append(done, i)
			if i == 1 {
				return broken
			}
			return nil
		})
	}
	if err := c.run(); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if err := c.run(); err != nil {
		t.Errorf("the second time: %v", err)
	}
	if !slices.Equal(done, []int{2, 1, 0}) {
		t.Errorf("done in the order %v", done)
	}
}
