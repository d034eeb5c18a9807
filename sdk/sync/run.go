package sync

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
)

// Run is Make and Apply in one: an image is on its way as soon as it is known what is to be done about it. Where a registry
// cannot be asked about one, no other one is begun any more; what was begun is brought to its end.
//
// Errors: those of Make, the report being nil where nothing was begun; those of Apply.
func Run(ctx context.Context, from berth.Registry, to []To, sel Selection, opts *ApplyOptions) (*Report, error) {
	surveys, err := begin(ctx, from, to, sel)
	if err != nil {
		return nil, err
	}
	var shared *trees
	total := 0
	for _, s := range surveys {
		s.first, shared = total, s.trees
		total += len(s.items)
	}
	a := newApplication(from, to, total, opts)
	a.trees = shared
	looking := errgroup.Group{}
	for _, s := range surveys {
		looking.Go(func() error { return a.follow(ctx, s) })
	}
	return a.end(ctx, looking.Wait())
}

// follow begins with each image as soon as a survey is ready with it.
func (a *application) follow(ctx context.Context, s *survey) error {
	h := a.hosts[s.to.Registry.Host()]
	s.expect = h.expect
	ready := func(tags []*surveyed) {
		var items []int
		for _, i := range tags {
			a.results[s.first+i.at] = Result{Item: i.Item}
			items = append(items, s.first+i.at)
		}
		h.begin(ctx, items)
	}
	ready(s.gone)
	return s.look(ctx, ready)
}
