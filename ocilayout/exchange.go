package ocilayout

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/internal/durable"
)

const (
	// outgoingFor is how long a file that was index.json is kept and looked at: a program that had
	// opened it before the names were exchanged may write to it afterwards.
	outgoingFor = 10 * time.Second
	// maxOutgoing bounds how many are kept.
	maxOutgoing = 128
	// lockName is the lock under which BuildKit rewrites index.json. It fails where it finds the lock
	// taken, and does not wait: so it is held for the exchange and no longer.
	lockName = v1.ImageIndexFile + ".lock"
	// lockPatience is how long berth waits for that lock.
	lockPatience = 5 * time.Second
)

// indexPrefix begins the name of every file in ingest/ that is to be index.json, or was.
const indexPrefix = ".index-"

// outgoingName is the name of a file that was index.json and has been merged, by its checksum: where that
// does not hold, it was written to since.
func outgoingName(checksum string) string {
	return ingestPath + "/" + indexPrefix + checksum + "-" + rand.Text()
}

// left merges the files that were index.json when the last process ended without Close: it may not have
// come to look at them. One that is as berth wrote it has nothing to tell, and may be one that was yet to
// be index.json: what it names was not flushed then. One that was merged tells nothing new.
func (p *publisher) left(ctx context.Context) error {
	files, err := fs.Glob(p.layout.dir.Root().FS(), ingestPath+"/"+indexPrefix+"*")
	if err != nil {
		return err
	}
	for _, name := range files {
		file, err := p.layout.readIndexFile(name, nil)
		if err == nil && !file.untouched && !strings.HasPrefix(path.Base(name), indexPrefix+file.Checksum) {
			err = p.merge(ctx, name, file, 0)
			p.wake()
		}
		if err != nil && !errors.Is(err, berth.ErrLayoutInvalid) {
			return err
		}
		p.layout.dir.Root().Remove(name)
	}
	return nil
}

// outgoing is a file that was index.json, under the name that it has now.
type outgoing struct {
	name  string
	known projected // what it was when it was last looked at
	until time.Time
}

// exchange makes a file index.json, and looks at what was index.json until then: if that is not the
// one that is known, another program has just written it, and it is merged. It reports whether
// index.json shows all that the index holds.
func (p *publisher) exchange(ctx context.Context, next projected, temp string) (done bool, err error) {
	old, swapped, err := p.swap(ctx, temp)
	if !swapped {
		p.layout.dir.Root().Remove(temp)
		return false, err
	}
	flushed := err
	known := p.last
	p.last = next
	if flushed != nil {
		p.last.Generation = 0 // so that there is another one
	}
	if old == "" {
		return true, flushed
	}
	o := outgoing{old, known, time.Now().Add(outgoingFor)}
	merged, err := p.lookAt(ctx, &o)
	p.outgoing = append(p.outgoing, o)
	if errors.Is(err, berth.ErrLayoutInvalid) {
		err = nil // it is being written, or damaged: time will tell
	}
	return err == nil && !merged, errors.Join(flushed, err)
}

// swap gives temp the name of index.json and returns the name that the file before it has now, or ""
// where there was none. The names may be swapped although there is an error: they are not flushed then.
func (p *publisher) swap(ctx context.Context, temp string) (old string, swapped bool, err error) {
	dir := p.layout.dir
	// A name that is free is given once, without a lock.
	if p.last == (projected{}) && dir.Link(temp, v1.ImageIndexFile) == nil {
		dir.Root().Remove(temp)
		return "", true, dir.SyncDir(".")
	}
	unlock, err := p.lockIndex(ctx)
	if err != nil {
		return "", false, err
	}
	defer unlock()
	err = dir.Exchange(temp, v1.ImageIndexFile)
	switch {
	case err == nil:
		return temp, true, dir.SyncDir(".")
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, durable.ErrNoExchange):
		// A second name keeps the file for whoever has it open, and for us to look at.
		old = outgoingName(p.last.Checksum)
		if err := dir.Root().Link(v1.ImageIndexFile, old); err != nil {
			old = ""
		}
	default:
		return "", false, err
	}
	if err := dir.Move(temp, v1.ImageIndexFile); err != nil {
		return "", false, err
	}
	return old, true, dir.SyncDir(".")
}

// lockIndex takes the lock that BuildKit takes.
func (p *publisher) lockIndex(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	root := p.layout.dir.Root()
	for {
		lock, err := control.TryLock(root, lockName)
		if err == nil {
			return func() {
				root.Remove(lockName)
				lock.Release()
			}, nil
		}
		if !errors.Is(err, control.ErrHeld) {
			return nil, err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, errors.New("another program holds " + p.layout.path(lockName))
		}
	}
}

// retire looks at the files that were index.json, and lets go of those whose time is over.
func (p *publisher) retire(now time.Time) {
	kept := p.outgoing[:0]
	for i := range p.outgoing {
		o := &p.outgoing[i]
		_, err := p.lookAt(context.Background(), o)
		if now.Before(o.until) && len(p.outgoing)-i <= maxOutgoing {
			kept = append(kept, *o)
			continue
		}
		p.discard(o, err)
	}
	p.outgoing = kept
}

// discard removes a file that was index.json, or keeps the last one that could not be merged.
func (p *publisher) discard(o *outgoing, broken error) {
	root := p.layout.dir.Root()
	info, err := root.Lstat(o.name)
	if broken == nil || err != nil || info.Size() == 0 {
		root.Remove(o.name)
		return
	}
	const aside = control.Dir + "/index.json.damaged"
	p.layout.log.Warn("index.json was damaged, and was made anew", "err", broken, "copy", p.layout.path(aside))
	root.Rename(o.name, aside)
}

// lookAt merges a file that was index.json if it is not what it was.
func (p *publisher) lookAt(ctx context.Context, o *outgoing) (merged bool, err error) {
	info, err := p.layout.dir.Root().Lstat(o.name)
	if err != nil || durable.StampOf(info) == o.known.Stamp {
		return false, err
	}
	merged, o.known, err = p.mergeFile(ctx, o.name, o.known)
	if merged {
		now := outgoingName(o.known.Checksum)
		if p.layout.dir.Root().Rename(o.name, now) == nil {
			o.name = now
		}
	}
	return merged, err
}

// dropOutgoing looks at them for the last time.
func (p *publisher) dropOutgoing() {
	if p.turn.Acquire(context.Background(), 1) != nil {
		return
	}
	defer p.turn.Release(1)
	p.retire(time.Now().Add(outgoingFor))
}
