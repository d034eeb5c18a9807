package sync

import (
	"cmp"
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
)

// looking is how many things are looked at at once, here and on each host.
const looking = 64

// Preparation is the tags that are selected, and what they are called at each place. What is to be done about them is found out by
// Plan or by Run, one of which is called once.
type Preparation struct {
	surveys []*survey
	to      []To
}

// Prepare finds the tags that are selected, and says what they are called at each place.
//
// Errors: ErrNothing for a pattern that selects no tag, and for no pattern at all; berth.ErrNameInvalid and berth.ErrTagInvalid
// for a pattern or a template that is none, and for two tags that would be the same there; ErrTooMany for more tags
// that would be removed than may be; those of the source.
func Prepare(ctx context.Context, from berth.Registry, to []To, sel Selection) (*Preparation, error) {
	m, err := newMaker(from, sel)
	if err != nil {
		return nil, err
	}
	all, err := m.choose(ctx)
	if err == nil {
		err = m.checkImmutable(all)
	}
	if err == nil && m.sel.Referrers {
		all, err = m.withCompanions(ctx, all)
	}
	if err != nil {
		return nil, err
	}
	p := &Preparation{to: to}
	for _, place := range to {
		s := newSurvey(m, place)
		if err := s.begin(ctx, all); err != nil {
			return nil, err
		}
		p.surveys = append(p.surveys, s)
	}
	return p, nil
}

// Items are the tags, with their names on both sides and what they are here.
func (p *Preparation) Items() (all []Item) {
	for _, s := range p.surveys {
		for _, i := range s.items {
			all = append(all, i.Item)
		}
	}
	return all
}

// Make looks at both sides and says what would be done. It sends a HEAD for each tag to the target, and of what has changed one
// for each blob of which nothing is known; and none at all for a repository that is not there.
//
// Errors: those of Prepare, with a nil plan; those of targets that could not be asked, of which the plan says nothing.
func Make(ctx context.Context, from berth.Registry, to []To, sel Selection) (*Plan, error) {
	p, err := Prepare(ctx, from, to, sel)
	if err != nil {
		return nil, err
	}
	return p.Plan(ctx)
}

// Plan is Make for what was prepared.
func (p *Preparation) Plan(ctx context.Context) (*Plan, error) {
	plan := &Plan{Version: planVersion, Items: []Item{}}
	var errs []error
	for _, s := range p.surveys {
		if err := s.look(ctx, func([]*surveyed) {}); err != nil {
			errs = append(errs, err)
			continue
		}
		plan.trees = s.trees // which all of them share
		for _, i := range s.items {
			plan.Items = append(plan.Items, i.Item)
		}
		plan.Transfers = append(plan.Transfers, s.transfers...)
	}
	return plan, errors.Join(errs...)
}

// Run is Make and Apply in one: an image is on its way as soon as it is known what is to be done about it. Where a registry
// cannot be asked about one, no other one that goes there is begun any more, unless what it says is that this one is not permitted;
// what was begun is brought to its end, and the others are reported as Unknown.
//
// Errors: those of Prepare, and of targets that cannot be asked, the report being nil where nothing was begun; those of Apply.
func Run(ctx context.Context, from berth.Registry, to []To, sel Selection, opts *ApplyOptions) (*Report, error) {
	p, err := Prepare(ctx, from, to, sel)
	if err != nil {
		return nil, err
	}
	return p.Run(ctx, opts)
}

// Run is the function of that name for what was prepared.
func (p *Preparation) Run(ctx context.Context, opts *ApplyOptions) (*Report, error) {
	if len(p.surveys) == 0 {
		return &Report{Items: []Result{}}, nil
	}
	total := 0
	for _, s := range p.surveys {
		s.first = total
		total += len(s.items)
	}
	a := newApplication(p.surveys[0].from, p.to, total, opts)
	a.trees = p.surveys[0].trees // which all of them share
	looking := errgroup.Group{}
	for _, s := range p.surveys {
		looking.Go(func() error {
			if err := a.follow(ctx, s); err != nil {
				a.giveUp(s, err)
			}
			return nil
		})
	}
	looking.Wait()
	return a.end(ctx)
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

// giveUp reports the items of a survey that have not been begun, because of an error.
func (a *application) giveUp(s *survey, err error) {
	for _, i := range s.items {
		if at := s.first + i.at; a.results[at].Change == "" {
			i.Change = Unknown
			a.results[at], a.errs[at] = Result{Item: i.Item}, cmp.Or(i.err, err)
		}
	}
	a.hosts[s.to.Registry.Host()].giveUp()
}
