package durable

import (
	"context"
	"errors"
	"os"
	"time"
)

// ErrHeld is what TryLock returns while another one has the lock.
var ErrHeld = errors.New("lock is held")

// lockPause is how long one waits for another before he looks again: who edits an index takes milliseconds.
const lockPause = 5 * time.Millisecond

// LockDir keeps two from reading one file of a directory and writing it twice, so that what one wrote would be lost: in
// one process, or in many. It waits until the lock is free. The lock is on the directory itself, and leaves no file;
// where directories cannot be locked, on Windows and on some network file systems, there is none.
func LockDir(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for errors.Is(TryLock(f), ErrHeld) {
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
	return func() { f.Close() }, nil
}
