package auth

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestCallersOfOneKeyShareAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[int]
		var runs atomic.Int32
		release := make(chan struct{})
		results := make(chan int, 5)
		for range 5 {
			go func() {
				v, _ := g.do(t.Context(), "k", func(context.Context) (int, error) {
					<-release
					return int(runs.Add(1)), nil
				})
				results <- v
			}()
		}
		synctest.Wait()
		close(release)
		for range 5 {
			if v := <-results; v != 1 {
				t.Errorf("a caller got run %d", v)
			}
		}
		if v, _ := g.do(t.Context(), "k", func(context.Context) (int, error) { return 7, nil }); v != 7 {
			t.Errorf("a caller after the flight got %d of it", v)
		}
	})
}

func TestDifferentKeysFlyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[int]
		release := make(chan struct{})
		done := make(chan int)
		go func() {
			v, _ := g.do(t.Context(), "slow", func(context.Context) (int, error) { <-release; return 1, nil })
			done <- v
		}()
		synctest.Wait()
		if v, _ := g.do(t.Context(), "quick", func(context.Context) (int, error) { return 2, nil }); v != 2 {
			t.Errorf("got %d", v)
		}
		close(release)
		<-done
	})
}

func TestACancelledCallerLeavesTheFlightToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[string]
		release := make(chan struct{})
		fn := func(ctx context.Context) (string, error) {
			select {
			case <-release:
				return "landed", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		first, cancel := context.WithCancel(t.Context())
		firstErr := make(chan error, 1)
		go func() { _, err := g.do(first, "k", fn); firstErr <- err }()
		synctest.Wait()
		second := make(chan string, 1)
		go func() { v, _ := g.do(t.Context(), "k", fn); second <- v }()
		synctest.Wait()

		cancel()
		if err := <-firstErr; !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled caller got %v", err)
		}
		close(release)
		if v := <-second; v != "landed" {
			t.Errorf("the other caller got %q", v)
		}
	})
}

func TestTheLastCallerToLeaveEndsTheFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[int]
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go g.do(ctx, "k", func(ctx context.Context) (int, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return 0, ctx.Err()
		})
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the flight ended with %v", err)
		}
		synctest.Wait() // fails if a goroutine is left
		if len(g.calls) != 0 {
			t.Errorf("%d flights are left", len(g.calls))
		}
	})
}

func TestNobodyJoinsAFlightThatAllHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[int]
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go g.do(ctx, "k", func(context.Context) (int, error) { <-release; return 1, nil })
		synctest.Wait()
		cancel()
		synctest.Wait()
		if v, err := g.do(t.Context(), "k", func(context.Context) (int, error) { return 2, nil }); v != 2 || err != nil {
			t.Errorf("got %d, %v from a flight that was over", v, err)
		}
		close(release)
	})
}
