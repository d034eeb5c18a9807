package main

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// store is the simplest store that there is: each operation happens at once, somewhere between its
// beginning and its answer.
type store struct {
	tags      map[string]digest.Digest
	manifests map[string]bool
}

func newStore() *store { return &store{map[string]digest.Digest{}, map[string]bool{}} }

func (s *store) clone() *store { return &store{maps.Clone(s.tags), maps.Clone(s.manifests)} }

func (s *store) apply(op Op) {
	switch op.Kind {
	case Push:
		s.manifests[op.manifest()] = true
		for _, tag := range op.Tags {
			s.tags[op.tag(tag)] = op.Digest
		}
	case Untag:
		for _, tag := range op.Tags {
			delete(s.tags, op.tag(tag))
		}
	case Delete:
		delete(s.manifests, op.manifest())
		maps.DeleteFunc(s.tags, func(_ string, d digest.Digest) bool { return d == op.Digest })
	}
}

// running is what one client has begun.
type running struct {
	id   int64
	op   Op
	done bool
}

// world is a store with three clients, each of which does one thing at a time.
type world struct {
	*rapid.T
	store   *store
	history *History
	clients [3]*running
	last    int64
	past    []*store // the store at each position
}

func newWorld(t *rapid.T) *world {
	s := newStore()
	return &world{T: t, store: s, history: NewHistory(nil), past: []*store{s.clone()}}
}

// step lets one client go one step on: begin, take effect, be answered.
func (w *world) step() {
	n := rapid.IntRange(0, len(w.clients)-1).Draw(w.T, "client")
	switch c := w.clients[n]; {
	case c == nil:
		w.last++
		op := w.operation(n)
		w.clients[n] = &running{id: w.last, op: op}
		w.tell(Event{Phase: Begin, ID: w.last, Op: &op})
	case !c.done:
		c.done = true
		w.store.apply(c.op)
		w.past[len(w.past)-1] = w.store.clone()
	default:
		w.clients[n] = nil
		w.tell(Event{Phase: Ack, ID: c.id})
	}
}

// operation draws one; manifests have one client each, tags belong to all.
func (w *world) operation(n int) Op {
	tags := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 1, 2, rapid.ID[string]).Draw(w.T, "tags")
	d := digest.Digest(fmt.Sprintf("%d%d", n, rapid.IntRange(0, 2).Draw(w.T, "manifest")))
	switch rapid.IntRange(0, 3).Draw(w.T, "kind") {
	case 0:
		return Op{Kind: Untag, Repo: "r", Tags: tags[:1]}
	case 1:
		return Op{Kind: Delete, Repo: "r", Digest: d}
	}
	return Op{Kind: Push, Repo: "r", Digest: d, Tags: tags}
}

func (w *world) tell(e Event) {
	if err := w.history.Take(e, time.Time{}); err != nil {
		w.Fatal(err)
	}
	w.past = append(w.past, w.store.clone())
}

// allows makes sure that a store is in a state that is expected.
func allows(t *rapid.T, x Expectation, s *store) {
	for name := range merged(s.tags, nil) {
		if x.Tags[name] == nil {
			t.Errorf("nothing is expected of %s", name)
		}
	}
	for name, allowed := range x.Tags {
		if !slices.Contains(allowed, string(s.tags[name])) {
			t.Errorf("%s is %q, expected one of %q", name, s.tags[name], allowed)
		}
	}
	for name, presence := range x.Manifests {
		if there := s.manifests[name]; there && presence == Gone || !there && presence == There {
			t.Errorf("%s: there is %v, expected %s", name, there, presence)
		}
	}
}

// No state that a store can be in is taken for a fault, whenever the cut was and however late the
// answers were heard.
func TestEveryPossibleStateIsExpected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			w.step()
		}
		last := w.history.Position()
		at := rapid.IntRange(0, last).Draw(t, "cut")
		heard := rapid.IntRange(0, at).Draw(t, "heard")
		begun := rapid.IntRange(at, last).Draw(t, "begun")
		allows(t, w.history.Expect(Cut{Heard: heard, Begun: begun}), w.past[at])
		allows(t, w.history.Expect(AfterKill()), w.store)
	})
}

// Where everything was answered in turn, one state is expected and no other.
func TestOneStateIsExpectedAfterAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 20).Draw(t, "operations") {
			w.last++
			op := w.operation(0)
			w.tell(Event{Phase: Begin, ID: w.last, Op: &op})
			w.store.apply(op)
			w.tell(Event{Phase: Ack, ID: w.last})
		}
		x := w.history.Expect(AfterKill())
		allows(t, x, w.store)
		for name, allowed := range x.Tags {
			if len(allowed) != 1 {
				t.Errorf("%s may be %q", name, allowed)
			}
		}
		for name, presence := range x.Manifests {
			if presence == Maybe {
				t.Errorf("%s may be there or not", name)
			}
		}
	})
}
