package ocilayout

import (
	"context"
	"errors"
	"fmt"
)

// Durability is what an answer promises.
type Durability int

const (
	// Process is the default: what was answered outlives the process, however that ends. It outlives
	// a power cut once a flush that began after the answer is complete; one begins within a second
	// of a change, and writers are slowed where more is waiting than a flush can carry.
	Process Durability = iota
	// Power makes each answer wait for the disk.
	Power
)

// String returns the option's name, "process" or "power".
func (d Durability) String() string {
	if d == Power {
		return "power"
	}
	return "process"
}

// ParseDurability reads what String writes.
func ParseDurability(s string) (Durability, error) {
	for _, d := range []Durability{Process, Power} {
		if s == d.String() {
			return d, nil
		}
	}
	return 0, fmt.Errorf("durability %.20q: it is process or power", s)
}

// mode is the layout's durability now.
func (l *Layout) mode() Durability {
	if l.power.Load() {
		return Power
	}
	return Process
}

// Durability is what the layout's answers promise.
func (l *Layout) Durability() Durability { return l.mode() }

// Raise makes answers promise more from now on. When it returns, what was answered before is on disk
// too. The durability of an open layout never falls.
func (l *Layout) Raise(ctx context.Context, d Durability) error {
	if d <= l.mode() {
		return nil
	}
	leave, err := l.writer.enter(ctx) // not while another program has the directory
	if err != nil {
		return err
	}
	defer leave()
	if err := l.writer.between(ctx, l.raise); err != nil {
		return fmt.Errorf("raise durability to %s: %w", d, err)
	}
	return nil
}

// raise runs while no transaction is made: bbolt reads its options in each. What is stored at this moment
// and not yet committed is flushed before it is.
func (l *Layout) raise() error {
	if err := errors.Join(l.settle(), l.epoch.renew(Power)); err != nil {
		return err
	}
	l.power.Store(true)
	l.db.setDurability(Power)
	return nil
}
