//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// syncFigure names what is measured of a sync over a way.
func syncFigure(what string, over string) string { return "sync " + what + ", " + over }

// The two runs of each client, the second of which finds all that the first has brought.
const (
	firstSync = "first"
	syncAgain = "again"
)

// syncs measures how long clients take to bring the tags of a layout to an empty registry that wants tokens, and to
// find that all is there already.
func (b *bench) syncs(ctx context.Context, round int) error {
	if err := b.prepareSync(ctx); err != nil {
		return err
	}
	for _, w := range ways {
		for i := range syncers {
			s := syncers[(i+round)%len(syncers)]
			syscall.Sync()
			if err := b.syncBy(ctx, s, w); err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, w.name, err)
			}
		}
	}
	return nil
}

// prepareSync makes, once, the layout that is synced, and starts who gives tokens.
func (b *bench) prepareSync(ctx context.Context) (err error) {
	if b.synced != nil {
		return nil
	}
	if b.tokenServer, err = newTokenServer(filepath.Join(b.dir, "tokens.jwks")); err != nil {
		return err
	}
	b.synced, err = b.makeSynced(ctx, b.syncImages)
	return err
}

// syncBy lets one client have its turn, with a registry of its own.
func (b *bench) syncBy(ctx context.Context, s syncer, w way) error {
	t, err := b.openTarget(ctx, w)
	if err != nil {
		return err
	}
	defer t.close()
	if err := b.synced.forget(); err != nil {
		return err
	}
	turn := turn{syncer: s, way: w, to: t}
	if s.reads {
		serving, err := b.start(ctx, berth, b.synced.layout)
		if err != nil {
			return err
		}
		defer serving.stop()
		turn.from = serving.address
	}
	if err := b.syncOnce(ctx, turn, firstSync); err != nil {
		return err
	}
	if err := t.verify(b.synced); err != nil || !s.again {
		return err
	}
	return b.syncOnce(ctx, turn, syncAgain)
}

// forget makes the layout one that was never synced, and that is in the system's memory.
func (m *synced) forget() error {
	if err := os.RemoveAll(filepath.Join(m.layout, ".berth", "sync")); err != nil {
		return err
	}
	return readLayout(m.layout, io.Discard, false)
}

// turn is a client's: where it reads, and where and over which way it brings things.
type turn struct {
	syncer
	way
	from string // the registry that has the layout, if the client reads from one
	to   *target
}

// syncOnce runs a client, and notes what that took.
func (b *bench) syncOnce(ctx context.Context, turn turn, what string) error {
	s, w, t := turn.syncer, turn.way, turn.to
	before, err := t.spent()
	if err != nil {
		return err
	}
	took, err := seconds(func() error { return s.run(b, ctx, turn.from, t) })
	if err != nil {
		return err
	}
	b.add(syncFigure(what, w.name), s.name, took)
	if t.access == nil {
		return nil
	}
	after, err := t.spent()
	b.add(syncFigure(what+" bytes", w.name), s.name, 100*float64(after.bytes-before.bytes)/float64(b.synced.unique)-100)
	b.add(syncFigure(what+" requests", w.name), s.name, float64(after.requests-before.requests))
	b.add(syncFigure(what+" connections", w.name), s.name, float64(after.conns-before.conns))
	return err
}

// syncColumns are the clients, by their columns.
var syncColumns = []string{crane, regsync, skopeo, script, berth}

// syncLines are those of the clients that bring a layout's tags to another registry.
func (b *bench) syncLines() []line {
	tools := func(figure string) []figure { return of(figure, crane, regsync, skopeo) }
	one := func(title, what, over string, against []figure, limit float64) line {
		return line{rowSync, title, syncFigure(what, over), berth, against, true, limit}
	}
	first, again := syncFigure(firstSync, far), syncFigure(syncAgain, far)
	return []line{
		one(fmt.Sprintf("sync of %d images, link of %s, s", b.syncImages, far), firstSync, far, tools(first), 0.5),
		one("  again, s", syncAgain, far, tools(again), 0.6),
		one("  bytes sent besides the unique ones, %", firstSync+" bytes", far, nil, 1),
		one("  requests", firstSync+" requests", far, nil, 0),
		one("    again", syncAgain+" requests", far, nil, 0),
		one("  connections", firstSync+" connections", far, nil, 0),
		one("    again", syncAgain+" connections", far, nil, 0),
		one("  on loopback, s", firstSync, near, tools(syncFigure(firstSync, near)), 1),
		one("    of the script's", firstSync, near, of(syncFigure(firstSync, near), script), 1.2),
		one("    again, s", syncAgain, near, nil, 0),
	}
}
