// Package sync brings images from one registry to others: plan and apply.
//
// A [Plan] is data: for each selected tag, what it is here, what it is there, and what would be done; and which blobs would
// move, would be mounted, or are there already. It can be printed, kept in a file, and applied, now or later.
//
//	to := []sync.To{{Registry: target, Prefix: "team"}}
//	plan, err := sync.Make(ctx, local, to, sync.Selection{Patterns: []string{"app/web:v*"}})
//	report, err := sync.Apply(ctx, local, to, plan, nil)
//
// # Order
//
// Of each image the blobs go first, then manifests from the leaves to the root, then what refers to them, and the tag last.
// Whoever looks at the target meanwhile sees a tag as it was or as it will be, and never one that names something incomplete.
// A blob moves to a host once, however many images and repositories need it there: the others mount it.
//
// # Memory
//
// With a [Memory] a sync knows what it has brought before, also before it was killed: what has arrived is not sent again, and
// of an image that has not changed nothing is asked but what its tag is. Where the registry turns out not to have what is
// remembered, it is looked for, and brought again.
//
// [Copy] is another part: one image to one place, by any means.
package sync

import (
	"cmp"
	"fmt"
	"path"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
)

// Destination is a registry that images are brought to.
type Destination interface {
	// Host is its name.
	Host() string
	// Open returns a repository of it.
	Open(name string) (*remote.Repository, error)
}

// To is a place that images are brought to.
type To struct {
	Registry Destination
	// Prefix is put before the repositories' names there. May be empty.
	Prefix string
	// Memory is what is known of the registry. Nil: nothing, beyond one Make and the Apply that follows.
	Memory *Memory
}

// Keeper is a Destination that knows what it has in any of its repositories. From there it is mounted, whichever has it.
type Keeper interface {
	Keeps(desc v1.Descriptor) bool
}

// Change is what would be done, or was done, for a tag.
type Change string

// The changes.
const (
	// Unchanged: the tag is there what it is here.
	Unchanged Change = "unchanged"
	// New: there is no such tag.
	New Change = "new"
	// Moves: the tag is something else there.
	Moves Change = "moves"
	// Incomplete: the tag is there what it is here, an index, some of whose images are wanted and not there.
	Incomplete Change = "incomplete"
	// Refused: nothing is done, for the reason that is told.
	Refused Change = "refused"
	// Removed: the tag is there, and not here.
	Removed Change = "removed"
	// Unknown: the target could not be asked. It is in reports alone.
	Unknown Change = "unknown"
)

// Plan is what would be done.
type Plan struct {
	// Version is that of the form that a plan is kept in: 1.
	Version int    `json:"version"`
	Items   []Item `json:"items"`
	// Transfers are the blobs that the items need, each once for each repository there.
	Transfers []Transfer `json:"transfers,omitempty"`

	trees *trees // what was read to make it
}

// Item is one tag.
type Item struct {
	// Host and Target, a REPOSITORY:TAG, are what it is there; a REPOSITORY@DIGEST for what has no tag. No host: the layout.
	Host   string `json:"host"`
	Target string `json:"target"`
	// From and Source, a REPOSITORY[:TAG][@DIGEST], are what it is here. From is empty where the source has no method Host() string,
	// or one that says nothing: it is the layout. No source: it is not here.
	From   string `json:"from,omitempty"`
	Source string `json:"source,omitempty"`
	// Descriptor of the image here.
	Descriptor v1.Descriptor `json:"descriptor"`
	// Platforms, if there are any, are those of whose images the index has some there.
	Platforms []v1.Platform `json:"platforms,omitempty"`
	// Was is the digest that the tag has there. Empty: there is no such tag.
	Was    digest.Digest `json:"was,omitempty"`
	Change Change        `json:"change"`
	// Reason says why it is refused.
	Reason string `json:"reason,omitempty"`
	// Referrers are what refers to the image, and would be brought along.
	Referrers []v1.Descriptor `json:"referrers,omitempty"`
}

// Here is its full name on the side that it comes from.
func (i Item) Here() string { return path.Join(i.From, i.Source) }

// There is its full name on the side that it goes to.
func (i Item) There() string { return path.Join(i.Host, i.Target) }

// Drifted reports whether there is anything to be done about it.
func (i Item) Drifted() bool { return i.Change != Unchanged || len(i.Referrers) > 0 }

// Transfer is a blob that an image needs in a repository.
type Transfer struct {
	Host       string        `json:"host"`
	Repository string        `json:"repository"`
	Descriptor v1.Descriptor `json:"descriptor"`
	// Action is Existing, Mounted or Sent.
	Action Action `json:"action"`
	// From is the repository there that it is mounted from.
	From string `json:"from,omitempty"`
}

// Drift returns the items that differ.
func (p *Plan) Drift() []Item {
	var drifted []Item
	for _, item := range p.Items {
		if item.Drifted() {
			drifted = append(drifted, item)
		}
	}
	return drifted
}

const planVersion = 1

// check finds what no Make has written.
func (p *Plan) check() error {
	if p.Version != planVersion {
		return fmt.Errorf("plan: %w: its version is %d, want %d; make another plan", berth.ErrUnsupported, p.Version, planVersion)
	}
	for i, item := range p.Items {
		switch item.Change {
		case Unchanged, New, Moves, Incomplete, Refused, Removed:
		default:
			return fmt.Errorf("plan, item %d: %w: its change is %.40q; make another plan", i+1, berth.ErrUnsupported, item.Change)
		}
	}
	return nil
}

// Bytes is how many bytes of blobs would be sent.
func (p *Plan) Bytes() (n int64) {
	for _, t := range p.Transfers {
		if t.Action == Sent {
			n += t.Descriptor.Size
		}
	}
	return n
}

// maker makes a plan.
type maker struct {
	from      berth.Registry
	source    string // its host, if it has one
	sel       Selection
	patterns  []pattern
	immutable []pattern
	rename    template
	trees     *trees
}

func newMaker(from berth.Registry, sel Selection) (*maker, error) {
	m := &maker{from: from, sel: sel, trees: &trees{from: from, referrers: sel.Referrers, fresh: true}}
	if named, ok := from.(interface{ Host() string }); ok {
		m.source = named.Host()
	}
	var err error
	if m.patterns, err = sel.read(); err != nil {
		return nil, err
	}
	for _, text := range sel.Immutable {
		p, err := readPattern(text)
		if err != nil {
			return nil, fmt.Errorf("immutable %w", err)
		}
		m.immutable = append(m.immutable, p)
	}
	if m.rename, err = readTemplate(sel.Rename); err == nil && sel.Prune && !m.rename.invertible() {
		err = fmt.Errorf("template %q: %w: to prune, it must have {tag} once", sel.Rename, berth.ErrTagInvalid)
	}
	return m, err
}

// target is what a tag is called at a place. What was chosen by its digest alone has that there too.
func (m *maker) target(to To, c chosen) (berth.Reference, error) {
	ref, err := m.rename.name(c.repository, cmp.Or(c.tag, noTag))
	if c.tag == "" {
		ref.Tag, ref.Digest = "", c.asked
	}
	if err == nil {
		ref.Repository = path.Join(to.Prefix, ref.Repository)
	}
	return ref, err
}

// noTag stands for the tag of what has none, where a name is made.
const noTag = "untagged"
