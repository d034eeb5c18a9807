package plugin

import (
	"context"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berthoci/berth"
)

// endless is a controller that always has one more event.
type endless struct {
	*fake
	yielded atomic.Int64
}

func (e *endless) Watch(ctx context.Context, _ *berth.WatchOptions) iter.Seq2[berth.Event, error] {
	return func(yield func(berth.Event, error) bool) {
		for ctx.Err() == nil {
			e.yielded.Add(1)
			if !yield(berth.Event{Kind: berth.EventPush, Repository: strings.Repeat("r", 200)}, nil) {
				return
			}
		}
		yield(berth.Event{}, ctx.Err())
	}
}

// A consumer that does not read is sent what fits into the stream's windows, and nothing is kept for it beyond that.
func TestAWatchThatNobodyReads(t *testing.T) {
	const most = 5000 // events, of two hundred bytes each: a megabyte
	e := &endless{fake: newFake()}
	server, c := serveControl(t, e)
	for range c.Watch(t.Context(), nil) {
		for settled := int64(-1); settled != e.yielded.Load(); time.Sleep(50 * time.Millisecond) {
			if settled = e.yielded.Load(); settled > most {
				t.Fatalf("%d events were made for one who has read one", settled)
			}
		}
		break // the consumer leaves
	}
	shutdown(server)
}
