package server

import (
	"context"
	"fmt"

	"github.com/berthoci/berth"
)

// gate bounds how many do something at once, and how many wait for their turn.
type gate struct {
	inside chan struct{}
	all    chan struct{} // those inside, and those who wait
}

func newGate(width, waiting int) gate {
	return gate{inside: make(chan struct{}, width), all: make(chan struct{}, width+waiting)}
}

// enter waits for a turn, which leave ends.
//
// Errors: berth.ErrTooManyRequests where too many wait already; ctx.Err().
func (g gate) enter(ctx context.Context) error {
	select {
	case g.all <- struct{}{}:
	default:
		return fmt.Errorf("%w: too many passwords are to be checked; try again in a moment", berth.ErrTooManyRequests)
	}
	select {
	case g.inside <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-g.all
		return ctx.Err()
	}
}

func (g gate) leave() {
	<-g.inside
	<-g.all
}
