package ocilayout_test

import (
	"maps"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

// consumer is a program that knows what the layout holds from the layout's events alone.
type consumer struct {
	position  string
	tags      map[string]digest.Digest // by their names in index.json
	manifests map[string]bool          // repository@digest
}

// attach begins to watch a layout that is empty.
func (h *history) attach(t *rapid.T) {
	if !rapid.Bool().Draw(t, "watched") {
		return
	}
	h.consumer = &consumer{tags: map[string]digest.Digest{}, manifests: map[string]bool{}}
	h.consumer.position = h.end(t)
}

// end returns the position of what has happened last.
func (h *history) end(t *rapid.T) string {
	for e, err := range h.layout.Watch(t.Context(), nil) {
		must(t, err)
		return e.Position
	}
	t.Fatal("a watch of an open layout has ended")
	return ""
}

// follow lets the consumer see what it has not seen, and compares what it knows with the model.
func (h *history) follow(t *rapid.T) {
	c := h.consumer
	if c == nil {
		return
	}
	must(t, h.layout.Flush(t.Context()))
	end := h.end(t)
	for e, err := range h.layout.Watch(t.Context(), &berth.WatchOptions{After: c.position}) {
		must(t, err)
		c.see(t, e)
		if c.position == end {
			break
		}
	}
	if there := h.modelTags(t); !maps.Equal(c.tags, there) {
		fail(t, "who has followed the events knows the tags %v, and there are %v", c.tags, there)
	}
	for _, repo := range repositories {
		for _, d := range inPool.manifests {
			if _, held := h.holds(t, repo, d); held != c.manifests[repo+"@"+string(d)] {
				fail(t, "%s@%s: who has followed the events knows %v", repo, d, !held)
			}
		}
	}
}

// see applies an event, which must follow on the last one and say what can be.
func (c *consumer) see(t *rapid.T, e berth.Event) {
	if e.Kind == berth.EventBookmark {
		if e.Position != c.position {
			t.Fatalf("a watch after %s began at %s", c.position, e.Position)
		}
		return
	}
	if number(t, e.Position) != number(t, c.position)+1 {
		t.Fatalf("after %s came %s", c.position, e.Position)
	}
	c.position = e.Position
	at := e.Repository + "@" + string(e.Descriptor.Digest)
	if e.Kind == berth.EventPush {
		c.manifests[at] = true
	}
	if !c.manifests[at] {
		fail(t, "%s of %s, which was never pushed", e.Kind, at)
	}
	for _, tag := range e.Tags {
		c.seeTag(t, e, refName(e.Repository, tag))
	}
	if e.Kind == berth.EventDelete {
		delete(c.manifests, at)
	}
}

func (c *consumer) seeTag(t *rapid.T, e berth.Event, name string) {
	if e.Kind == berth.EventPush || e.Kind == berth.EventTag {
		c.tags[name] = e.Descriptor.Digest
		return
	}
	if c.tags[name] != e.Descriptor.Digest {
		fail(t, "%s of %s, which was at %s", e.Kind, name, c.tags[name])
	}
	delete(c.tags, name)
}

func number(t *rapid.T, position string) int {
	_, digits, _ := strings.Cut(position, "-")
	n, err := strconv.Atoi(digits)
	must(t, err)
	return n
}
