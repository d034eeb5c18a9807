package main

import (
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Expectation is what a layout may look like.
type Expectation struct {
	// Tags maps "repository:tag" to the digests that it may point at; an empty one is no tag.
	Tags map[string][]string `json:"tags"`
	// Manifests maps "repository@digest" to whether it must be there.
	Manifests map[string]Presence `json:"manifests"`
	// Blobs are those that must be there, as "repository@digest".
	Blobs []string `json:"blobs"`
}

// Presence says whether something must be there.
type Presence string

// The three presences.
const (
	There Presence = "there"
	Gone  Presence = "gone"
	Maybe Presence = "maybe"
)

// demands counts what is not left open.
func (x Expectation) demands() int {
	n := len(x.Blobs)
	for _, allowed := range x.Tags {
		if len(allowed) == 1 {
			n++
		}
	}
	for _, presence := range x.Manifests {
		if presence != Maybe {
			n++
		}
	}
	return n
}

// Expect computes what a layout may look like at a cut.
func (h *History) Expect(c Cut) Expectation {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := model{cut: c, flushed: c.flushed(h.records), tags: map[string]register{}, manifests: map[string]register{}, pointed: map[string]map[string]bool{}}
	m.begin(h.base)
	m.pushes(h.records)
	m.removals(h.records)
	return m.expectation(h.records)
}

// model gathers the effects of operations on tags and manifests.
type model struct {
	cut             Cut
	flushed         int
	tags, manifests map[string]register
	pointed         map[string]map[string]bool // manifest to the tags that ever pointed at it
}

// begin enters the state at the start, which is sure.
func (m *model) begin(base State) {
	for _, op := range base {
		m.push(op, effect{sure: true})
	}
}

func (m *model) pushes(records []*record) {
	for _, r := range records {
		if r.Kind == Push && r.begin <= m.cut.Begun {
			m.push(r.Op, m.effect(r))
		}
	}
}

// removals come after all pushes: a manifest that is deleted takes every tag along that points at it.
func (m *model) removals(records []*record) {
	for _, r := range records {
		if r.begin > m.cut.Begun {
			continue
		}
		switch r.Kind {
		case Untag:
			for _, tag := range r.Tags {
				add(m.tags, r.tag(tag), m.effect(r))
			}
		case Delete:
			add(m.manifests, r.manifest(), m.effect(r))
			for tag := range m.pointed[r.manifest()] {
				e := m.effect(r)
				e.only = string(r.Digest)
				add(m.tags, tag, e)
			}
		}
	}
}

func (m *model) effect(r *record) effect {
	return effect{begin: r.begin, end: r.end, sure: m.cut.promised(r, m.flushed)}
}

func (m *model) push(op Op, e effect) {
	e.value = string(op.Digest)
	add(m.manifests, op.manifest(), e)
	if m.pointed[op.manifest()] == nil {
		m.pointed[op.manifest()] = map[string]bool{}
	}
	for _, tag := range op.Tags {
		add(m.tags, op.tag(tag), e)
		m.pointed[op.manifest()][op.tag(tag)] = true
	}
}

// add appends an effect. What was not there at the start was absent.
func add(registers map[string]register, name string, e effect) {
	if len(registers[name]) == 0 && e.begin > 0 {
		registers[name] = register{{sure: true, value: absent}}
	}
	registers[name] = append(registers[name], e)
}

func (m *model) expectation(records []*record) Expectation {
	x := Expectation{Tags: map[string][]string{}, Manifests: map[string]Presence{}}
	for name, r := range m.tags {
		x.Tags[name] = r.allowed()
	}
	for name, r := range m.manifests {
		x.Manifests[name] = presence(r.allowed())
	}
	for _, r := range records {
		if r.Kind == Blob && m.cut.Unnamed && m.cut.promised(r, m.flushed) {
			x.Blobs = append(x.Blobs, r.manifest())
		}
	}
	slices.Sort(x.Blobs)
	x.Blobs = slices.Compact(x.Blobs)
	return x
}

func presence(allowed []string) Presence {
	switch {
	case !slices.Contains(allowed, absent):
		return There
	case len(allowed) == 1:
		return Gone
	}
	return Maybe
}

// Settle returns the state in which a layout was found: from now on it is no longer open what happened.
func (h *History) Settle(tags map[string]digest.Digest, manifests []string) State {
	h.mu.Lock()
	defer h.mu.Unlock()
	missing := map[string]bool{}
	for _, name := range manifests {
		missing[name] = true
	}
	var state State
	for _, op := range h.pushed() {
		if missing[op.manifest()] {
			delete(missing, op.manifest())
			op.Tags = tagsAt(op, tags)
			state = append(state, op)
		}
	}
	return state
}

// pushed are all pushes that may be in the layout.
func (h *History) pushed() []Op {
	all := slices.Clone(h.base)
	for _, r := range h.records {
		if r.Kind == Push {
			all = append(all, r.Op)
		}
	}
	return all
}

// tagsAt returns the tags that point at an operation's manifest, in byte order.
func tagsAt(op Op, tags map[string]digest.Digest) (found []string) {
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		repo, tag, _ := cutTag(name)
		if repo == op.Repo && tags[name] == op.Digest {
			found = append(found, tag)
		}
	}
	return found
}

// Touched returns the manifests that the history's operations pushed or may have.
func (h *History) Touched() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	touched := map[string]bool{}
	for _, r := range h.records {
		if r.Kind == Push {
			touched[r.manifest()] = true
		}
	}
	return touched
}
