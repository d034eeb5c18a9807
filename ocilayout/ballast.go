package ocilayout

import (
	"errors"
	"io/fs"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/internal/durable"
)

// ballastPath is a file that holds room on the disk for the time when there is none left: making room
// takes some, for the index and for index.json.
const ballastPath = control.Dir + "/ballast"

// minBallast is what the index needs, in bytes; index.json comes on top.
const minBallast = 2 << 20

// loadBallast makes the file, if it is not there. It does what it can: the room is a help, no promise.
func (l *Layout) loadBallast() {
	root := l.dir.Root()
	if _, err := root.Lstat(ballastPath); err == nil {
		return
	}
	f, err := l.dir.Create(ballastPath, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	size := int64(minBallast)
	if info, err := root.Lstat(v1.ImageIndexFile); err == nil {
		size += 2 * info.Size()
	}
	if durable.Reserve(f, 0, size) != nil {
		l.dropBallast() // there will be another time
	}
}

// dropBallast gives its room to whoever is about to make more.
func (l *Layout) dropBallast() error {
	err := l.dir.Remove(ballastPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
