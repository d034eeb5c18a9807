//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	shuffle "math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	bigRepository = "app/big"
	// blockSize is the random block that the big blob repeats: no server looks into a blob, and the client's
	// memory is not what is measured.
	blockSize = 8 << 20
	// pulls is how often the big blob is pulled in a round: the kernel counts a process's time in steps that
	// one pull alone has too few of.
	pulls = 3
	// turns is in how many windows the requests of a round are counted, so that a moment in which the machine
	// has other work falls on all servers alike.
	turns  = 20
	window = 100 * time.Millisecond
	// askers is how many ask at once where requests are counted.
	askers = 4
)

// starts measures how long each server takes from its start on an empty directory to its first answer, and how long
// a build tool waits for berth.
func (b *bench) starts(ctx context.Context, round int) error {
	const startsEach = 7
	for i := range startsEach {
		for at := range registries {
			one, err := b.launchAll(ctx, registries[(at+round+i)%len(registries)])
			if err != nil {
				return err
			}
			b.add("start", one[0].name, one[0].took.Seconds()*1000)
			one.end()
		}
		if err := b.opens(ctx, fmt.Sprint(round, "-", i)); err != nil {
			return err
		}
	}
	return nil
}

// bigBlob is one that no round before had.
func (b *bench) bigBlob() blob {
	block, tail := make([]byte, min(blockSize, b.size)), make([]byte, 16)
	rand.Read(block)
	rand.Read(tail)
	c := content{block: block, repeats: int(b.size / int64(len(block))), tail: tail}
	hash := sha256.New()
	c.writeTo(hash)
	return blob{c, digest.NewDigest(digest.SHA256, hash)}
}

// big measures a blob of the size that is asked for: pushed, pulled, and asked for.
func (b *bench) big(ctx context.Context, round int) error {
	all, err := b.launchAll(ctx, registries...)
	if err != nil {
		return err
	}
	defer all.clear()
	blob := b.bigBlob()
	mib := float64(blob.size()) / (1 << 20)
	err = inTurn(all, round, func(s *server) error {
		took, err := seconds(func() error { return s.alone(func(c *conn) error { return c.pushBlob(bigRepository, blob) }) })
		b.add("push", s.name, mib/took)
		return err
	})
	if err == nil && b.wants(rowPull) {
		err = b.pull(all, round, blob)
	}
	if err == nil && b.wants(rowHead) {
		err = b.rates(all, "head", request{method: http.MethodHead, path: blobPath(bigRepository, blob.digest)})
	}
	return err
}

// pull measures the pull of a blob that is in the system's memory: berth writes a large one past that, so
// each server's is read once before.
func (b *bench) pull(all fleet, round int, blob blob) error {
	get := request{method: http.MethodGet, path: blobPath(bigRepository, blob.digest)}
	one := func(c *conn) error {
		answer, err := c.want(http.StatusOK, get)
		if err == nil && answer.length != blob.size() {
			err = fmt.Errorf("%d bytes came, not %d", answer.length, blob.size())
		}
		return err
	}
	if err := inTurn(all, round, func(s *server) error { return s.alone(one) }); err != nil {
		return err
	}
	return inTurn(all, round, func(s *server) error {
		before, err := cpu(s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		took, err := seconds(func() error {
			return s.alone(func(c *conn) (err error) {
				for i := 0; i < pulls && err == nil; i++ {
					err = one(c)
				}
				return err
			})
		})
		if err != nil {
			return err
		}
		after, err := cpu(s.cmd.Process.Pid)
		gib := pulls * float64(blob.size()) / (1 << 30)
		b.add("pull", s.name, gib*1024/took)
		b.add("pull cpu", s.name, 1000*(after-before)/gib)
		return err
	})
}

// alone does something over a connection of its own.
func (s *server) alone(do func(*conn) error) error {
	c, err := dial(s.address)
	if err != nil {
		return err
	}
	defer c.close()
	return do(c)
}

// rates measures how many answers a second servers give to those who ask for the same again and again.
func (b *bench) rates(all fleet, figure string, r request) error {
	answered := map[string]float64{}
	for range turns {
		for _, i := range shuffle.Perm(len(all)) {
			s := all[i]
			n, err := s.answers(r)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			answered[s.name] += n
		}
	}
	for name, n := range answered {
		b.add(figure, name, n/turns)
	}
	return nil
}

// answers is how many answers a second a server gives within a window.
func (s *server) answers(r request) (float64, error) {
	var answered atomic.Int64
	begin := time.Now()
	err := concurrently(askers, func(int) error {
		return s.alone(func(c *conn) error {
			for time.Since(begin) < window {
				if _, err := c.want(http.StatusOK, r); err != nil {
					return err
				}
				answered.Add(1)
			}
			return nil
		})
	})
	return float64(answered.Load()) / time.Since(begin).Seconds(), err
}
