package source

import (
	"context"
	"errors"
	"os"
	"time"
)

// errHeld is what tryLock returns while another one has the lock.
var errHeld = errors.New("lock is held")

// lockPause is how long a commit waits for another one before it looks again: they take milliseconds.
const lockPause = 5 * time.Millisecond

// lockIndex keeps two commits from reading one index.json and writing it twice, so that one name
// would be lost. The lock is on the directory itself, and leaves no file; where directories cannot be
// locked, on Windows and on some network file systems, there is none.
func lockIndex(ctx context.Context, dir *os.Root) (unlock func(), err error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	for errors.Is(tryLock(f), errHeld) {
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
	return func() { f.Close() }, nil
}
