//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	smallRepository = "app/small"
	// clients push at once.
	clients = 8
	// flushedShare is the part of the small images that go to who waits for the disk with each.
	flushedShare = 20
)

// concurrently calls do so many times at once.
func concurrently(n int, do func(i int) error) error {
	errs := make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { errs[i] = do(i) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// small measures pushes of small images, several at once, on servers that are empty. Those that wait for the
// disk get fewer.
func (b *bench) small(ctx context.Context, round int) error {
	images := make([]image, b.images)
	for i := range images {
		images[i] = newImage(uint64(round*b.images+i), fmt.Sprint("v", i))
	}
	all, err := b.launchAll(ctx, append(slices.Clone(registries), berthPower)...)
	if err != nil {
		return err
	}
	defer all.end()
	return inTurn(all, round, func(s *server) error {
		mine := images
		if s.name == distribution || s.name == berthPower {
			mine = images[:max(clients, len(images)/flushedShare)]
		}
		rate, p99, err := s.pushAll(mine)
		b.add("small", s.name, rate)
		b.add("small p99", s.name, p99)
		return err
	})
}

// pushAll pushes images, and returns how many a second, and the 99th percentile of the milliseconds that one
// took.
func (s *server) pushAll(images []image) (rate, p99 float64, err error) {
	each := make([]time.Duration, len(images))
	took, err := seconds(func() error {
		return concurrently(clients, func(first int) error {
			return s.alone(func(c *conn) error {
				for i := first; i < len(images); i += clients {
					begin := time.Now()
					if err := c.pushImage(smallRepository, images[i]); err != nil {
						return err
					}
					each[i] = time.Since(begin)
				}
				return nil
			})
		})
	})
	slices.Sort(each)
	return float64(len(images)) / took, each[len(each)*99/100].Seconds() * 1000, err
}
