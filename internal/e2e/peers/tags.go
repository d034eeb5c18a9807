//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

const (
	tagRepository = "app/tagged"
	// fewest and many are the numbers of tags at which one more is measured, and many are listed.
	fewest = 100
	many   = 5200
	// moreTags is how many make the mean of one more: enough that berth's index.json is written meanwhile.
	moreTags = 200
	// listings is how often the tags are listed in a round.
	listings = 5
	// distributionMost is up to how many tags distribution is waited for.
	distributionMost = 10_000
)

// fewTags measures one more tag where there are few.
func (b *bench) fewTags(ctx context.Context, round int) error {
	all, err := b.launchAll(ctx, registries...)
	if err != nil {
		return err
	}
	defer all.end()
	if err := all.tag(0, fewest); err != nil {
		return err
	}
	return b.oneMore(all, round, fewest, 0)
}

// tagsAt is what fewTags is, at a number of tags.
func (b *bench) tagsAt(ctx context.Context, n int) error {
	names := registries
	if n > distributionMost {
		names = []string{crane, berth}
	}
	all, err := b.launchAll(ctx, names...)
	if err != nil {
		return err
	}
	defer all.end()
	if err := all.tag(0, n); err != nil {
		return err
	}
	for round := range b.rounds {
		if err := b.oneMore(all, round, n, round*moreTags); err != nil {
			return err
		}
	}
	return nil
}

// tag pushes an image, and tags it from a number up to another.
func (f fleet) tag(from, to int) error {
	img := taggedImage()
	for _, s := range f {
		if err := s.alone(func(c *conn) error { return c.pushImage(tagRepository, img) }); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		// The image's own tag is one of them.
		err := concurrently(clients, func(first int) error {
			return s.alone(func(c *conn) error { return c.pushTags(img, from+1+first, to, clients) })
		})
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (c *conn) pushTags(img image, from, to, step int) error {
	for i := from; i < to; i += step {
		if err := c.pushTag(tagRepository, fmt.Sprintf("v%07d", i), img.manifest); err != nil {
			return err
		}
	}
	return nil
}

// oneMore measures one more tag where there are so many already, and some that were measured before.
func (b *bench) oneMore(all fleet, round, n, before int) error {
	img, from := taggedImage(), n+before
	return inTurn(all, round, func(s *server) error {
		took, err := seconds(func() error {
			return s.alone(func(c *conn) error { return c.pushTags(img, from, from+moreTags, 1) })
		})
		b.add(tagsFigure(n), s.name, 1000*took/moreTags)
		return err
	})
}

func tagsFigure(n int) string { return fmt.Sprint("tag at ", n) }

// manyTags measures what servers with many tags are asked for.
func (b *bench) manyTags(ctx context.Context) error {
	all, err := b.launchAll(ctx, crane, distribution, berth, bare)
	if err != nil {
		return err
	}
	defer func() { all.end() }()
	registries := all.without(bare)
	if err := registries.tag(0, many); err != nil {
		return err
	}
	for round := range b.rounds {
		if err := b.lists(registries, round); err != nil {
			return err
		}
		get := request{method: http.MethodGet, path: manifestPath(tagRepository, "v0000042")}
		if err := b.rates(all, "manifest", get); err != nil {
			return err
		}
	}
	for round := range b.rounds {
		if err := b.oneMore(registries, round, many, round*moreTags); err != nil {
			return err
		}
	}
	return b.restarts(ctx, all)
}

func (b *bench) lists(all fleet, round int) error {
	return inTurn(all, round, func(s *server) error {
		return s.alone(func(c *conn) error {
			if tags, err := c.list(); err != nil || tags != many {
				return fmt.Errorf("%d tags are listed, not %d: %w", tags, many, err)
			}
			took, err := seconds(func() (err error) {
				for i := 0; i < listings && err == nil; i++ {
					_, err = c.pages()
				}
				return err
			})
			b.add("list", s.name, 1000*took/listings)
			return err
		})
	})
}

// list counts the tags of a list.
func (c *conn) list() (tags int, err error) {
	pages, err := c.pages()
	for _, page := range pages {
		var names struct{ Tags []string }
		if err := json.Unmarshal(page, &names); err != nil {
			return 0, err
		}
		tags += len(names.Tags)
	}
	return tags, err
}

// pages fetches a whole list, in as few pages as the server gives.
func (c *conn) pages() (pages [][]byte, err error) {
	for path := "/v2/" + tagRepository + "/tags/list"; path != ""; {
		answer, err := c.want(http.StatusOK, request{method: http.MethodGet, path: path, keep: true})
		if err != nil {
			return nil, err
		}
		pages = append(pages, answer.body)
		_, rest, _ := strings.Cut(answer.link, "<")
		path, _, _ = strings.Cut(rest, ">")
	}
	return pages, nil
}

// restarts measures the start of those that have kept the tags. The servers of the fleet are changed for the
// new ones.
func (b *bench) restarts(ctx context.Context, all fleet) error {
	for range b.rounds {
		for i, s := range all {
			if s.name != distribution && s.name != berth {
				continue
			}
			s.stop()
			again, err := b.start(ctx, s.name, s.dir)
			if err != nil {
				return err
			}
			all[i] = again
			b.add("restart", s.name, again.took.Seconds()*1000)
		}
	}
	return nil
}
