// Package ocilayout is a registry in a directory: one OCI image layout on disk, which other tools
// read at any moment, with an index beside it that makes every question a lookup.
//
//	LAYOUT/oci-layout  index.json  blobs/<algorithm>/<hex>     a plain OCI image layout
//	LAYOUT/.berth/     index.db (bbolt), ingest/ (unfinished uploads), quarantine/ (damaged files),
//	                   epoch, owner.lock
//
// [Layout] implements [berth.Registry]:
//
//	layout, err := ocilayout.Open(ctx, dir, nil)
//	defer layout.Close()
//	repo, err := layout.Repository("app/hello")
//
// # Order
//
// A blob's bytes are written into ingest/ and hashed on the way, renamed into blobs/, and then
// committed to the index; the answer comes after that, and index.json last of all. Deleting goes the
// other way: the index, index.json, the file. So the index never vouches for bytes that are not
// there, index.json never names them, and a kill one instruction after an answer loses nothing. Of what is
// unfinished it loses nothing either but the ids of uploads to which no byte had come.
//
// # Durability
//
// In [Power] mode an answer waits until bytes, names and index are on disk; what waits at the same
// time is flushed together. In [Process] mode it does not wait. A flush, of the blobs first and then
// of index.json, begins within a second of a change, and what was answered before the last complete
// flush began survives a power cut: the index is then made anew from index.json and the manifests, and
// every blob is hashed before it is first served or vouched for. Only what no manifest names is lost
// then. The file epoch tells the next start which of these it has before it.
//
// A layout that was only just made is on disk when it is first used: Open flushes nothing. What a power cut
// leaves of it before that can be opened again.
//
// # Names
//
// In index.json a tag is a descriptor whose annotation org.opencontainers.image.ref.name is
// "repository:tag", as other tools address it (oci:LAYOUT:repository:tag). A bare tag belongs to the
// repository [DefaultRepository]. A manifest that neither a tag nor an index of its repository leads
// to is listed without a name, with its repository in the annotation io.github.berthoci.repository.
// For containerd and its kin a tag also has io.containerd.image.name, the reference as Docker
// completes it; that is never read back.
//
// # Other writers
//
// The index decides, and index.json follows it shortly after each change. An index.json that another
// program has written is merged, not overwritten: it is looked at four times a second, when a name is
// not found, and before it is replaced; it is replaced by an exchange of names, and what comes out is
// looked at once more. A program that removes blobs, or exchanges the directories they are in, needs
// [Layout.Checkout].
//
// # Events
//
// Once somebody has watched a layout ([Layout.Watch]), each change is written to a log in the index by the
// transaction that makes it, so the log has what was answered, and no more than what has happened. A consumer
// goes on where it was, over restarts and kills; where that cannot be, it is told to look at everything anew.
package ocilayout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/internal/durable"
)

// DefaultRepository is where an index.json entry with a bare tag belongs.
const DefaultRepository = "default"

const (
	indexPath  = control.Dir + "/index.db"
	ingestPath = control.Dir + "/ingest"
)

// Options say how a layout is opened. Nil is the zero value.
type Options struct {
	// Logger is told what an operator should know. Nil: nobody.
	Logger *slog.Logger
	// Durability is what an answer promises. Zero: Process.
	Durability Durability
	// Grace is how long a blob that a client stored, or was told exists, is spared by a collection
	// although no manifest names it yet. Zero: DefaultGrace.
	Grace time.Duration
	// Rebuild throws the index away and makes it anew from index.json and what that names.
	Rebuild bool

	fault func(op durable.Op, name string) error // for tests
}

// maxHashers bounds how many files are hashed at once for who asks for them.
const maxHashers = 16

// DefaultGrace is how long a client may take from finding a blob to pushing the manifest that names
// it.
const DefaultGrace = 10 * time.Minute

// Layout is an open layout directory that this process owns. It implements [berth.Registry],
// [berth.Flusher], [berth.Collector], [berth.Checker], [berth.Checkouter] and [berth.Watcher].
type Layout struct {
	dir       *durable.Dir
	db        *database
	owner     *control.Lock
	log       *slog.Logger
	epoch     epoch
	power     atomic.Bool // the durability, which only rises
	writer    *writer
	unflushed *unflushed
	publisher *publisher
	journal   *journal
	recent    *recent
	cache     *cache
	uses      uses
	chunks    *chunks
	uploads   uploadTable
	// maintenance is held by what works on the layout as a whole: a collection, a check, a checkout.
	maintenance *semaphore.Weighted
	hashers     *semaphore.Weighted // held by each who hashes a file
	life        context.Context     // ends with Close, and ends what is long with it
	endLife     context.CancelFunc
	started     time.Time
	// outsideGrace is the constant of that name. Tests change it: a file cannot be made older.
	outsideGrace time.Duration
	hashing      singleflight.Group // of files that came from outside, each once at a time
	closing      sync.Once
	closed       error
}

// Open opens the layout in a directory, and creates it where the directory is empty or missing. An
// OCI image layout that another program made is taken over as it is: its blobs are hashed before
// they are first served. So is one that was not closed before the power went, in process mode, or
// whose index is damaged: what index.json names is found again.
//
// Errors: berth.ErrLayoutInUse if another process owns it; berth.ErrLayoutInvalid if the directory
// holds something else, or lies on a network file system.
func Open(ctx context.Context, dir string, opts *Options) (_ *Layout, err error) {
	if opts == nil {
		opts = &Options{}
	}
	l := newLayout(opts)
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	if err := l.open(ctx, dir, opts); err != nil {
		return nil, fmt.Errorf("layout %s: %w%s", dir, err, control.Advice(err))
	}
	return l, nil
}

func newLayout(opts *Options) *Layout {
	l := &Layout{log: opts.Logger, recent: newRecent(opts.grace()), cache: newCache(), chunks: newChunks(), started: time.Now(), outsideGrace: outsideGrace,
		maintenance: semaphore.NewWeighted(1), hashers: semaphore.NewWeighted(maxHashers)}
	l.life, l.endLife = context.WithCancel(context.Background())
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.journal = newJournal(l)
	l.power.Store(opts.Durability == Power)
	l.uploads.live = map[string]*uploadState{}
	return l
}

func (o *Options) grace() time.Duration {
	if o.Grace <= 0 {
		return DefaultGrace
	}
	return o.Grace
}

// open takes the directory, and writes to it only when it is owned.
func (l *Layout) open(ctx context.Context, dir string, opts *Options) (err error) {
	if err := l.openDirectory(dir); err != nil {
		return err
	}
	l.dir.Fault = opts.fault
	if l.owner, err = control.Own(l.dir.Root()); err != nil {
		return err
	}
	l.dir.Bequeath(control.Dir, control.OwnerFile)
	if err := l.readEpoch(); err != nil {
		return err
	}
	// Nothing was promised of what is here, and nothing is before the first change: that settles it.
	if l.epoch.unused() {
		l.dir.Postpone()
		defer l.dir.Resume()
	}
	if err := l.makeLayout(); err != nil {
		return err
	}
	if err := l.openIndex(opts.Rebuild); err != nil {
		return err
	}
	err = l.start(ctx)
	if !errors.Is(err, errDamaged) {
		return err
	}
	// What was closed well is not examined whole, and was damaged since.
	l.writer.end()
	l.db.Close()
	l.epoch.found.Damaged, l.epoch.found.Clean = true, false
	if err := l.openIndex(false); err != nil {
		return err
	}
	return l.start(ctx)
}

// start brings index and index.json together and begins to take work.
func (l *Layout) start(ctx context.Context) error {
	if err := errors.Join(l.sweepIngest(true), l.restoreHeld()); err != nil {
		return err
	}
	l.unflushed = newUnflushed(l.epoch.left)
	l.writer = newWriter(l)
	l.publisher = newPublisher(l)
	if err := l.publisher.first(ctx); err != nil {
		if ctx.Err() != nil || errors.Is(err, berth.ErrLayoutInvalid) || errors.Is(err, errDamaged) {
			return err
		}
		// A full disk must not keep anybody from reading, or from making room.
		l.log.Error("index.json is behind", "err", err)
	}
	if err := l.journal.load(ctx); err != nil {
		return err
	}
	l.publisher.wake()
	l.publisher.begin()
	return nil
}

// Repository returns the repository of that name.
func (l *Layout) Repository(name string) (berth.Repository, error) {
	if err := berth.ValidateRepository(name); err != nil {
		return nil, err
	}
	return &repository{layout: l, name: name}, nil
}

// Flush brings index.json up to date with everything that was answered before the call, and puts it
// on disk with all that it names.
func (l *Layout) Flush(ctx context.Context) error {
	if l.life.Err() != nil {
		return ErrClosed
	}
	return l.publisher.flush(ctx)
}

// Close flushes, and lets the directory go. What is still running fails, a checkout included.
func (l *Layout) Close() error {
	l.closing.Do(func() {
		l.endLife()
		// Nobody gives these back: what was long has ended, and none begins.
		l.maintenance.Acquire(context.Background(), 1)
		l.hashers.Acquire(context.Background(), maxHashers)
		l.chunks.close()
		l.publisher.halt()
		if err := l.writeUses(context.Background()); err != nil {
			l.log.Warn("when images were last used is forgotten", "err", err)
		}
		err := l.publisher.flush(context.Background())
		l.publisher.dropOutgoing()
		l.writer.end()
		// What was answered after that flush is flushed too, and index.json follows at the next start.
		err = errors.Join(err, l.flushBlobs())
		l.leaveFiles()
		l.closed = errors.Join(err, l.finish(err == nil), l.release())
	})
	return l.closed
}

// finish leaves the index so that the next start can believe it, if all is flushed.
func (l *Layout) finish(flushed bool) error {
	if !l.epoch.changed() && l.epoch.found.Clean && !l.db.damaged.Load() {
		return nil
	}
	if !flushed && !l.db.damaged.Load() {
		return nil
	}
	if err := l.db.closeClean(); err != nil {
		return err
	}
	return l.epoch.end()
}

// release gives back what Open took, as far as it came.
func (l *Layout) release() error {
	if l.writer != nil {
		l.writer.end()
	}
	var errs []error
	if l.db != nil {
		errs = append(errs, l.db.Close())
	}
	// The directory first: who comes next must find nobody who still writes to it.
	if l.dir != nil {
		errs = append(errs, l.dir.Close())
	}
	if l.owner != nil {
		errs = append(errs, l.owner.Release())
	}
	return errors.Join(errs...)
}

// maintain takes the layout for work on it as a whole, which ends with the layout. done must be called.
func (l *Layout) maintain(ctx context.Context) (_ context.Context, done func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.life, func() { cancel(ErrClosed) })
	if l.maintenance.Acquire(ctx, 1) != nil {
		stop()
		err := context.Cause(ctx)
		cancel(nil)
		return nil, nil, err
	}
	return ctx, func() {
		stop()
		cancel(nil)
		l.maintenance.Release(1)
	}, nil
}

// repository is one repository of a layout: a name, and all that the layout can do.
type repository struct {
	layout *Layout
	name   string
}

func (r *repository) Name() string { return r.name }

func (l *Layout) path(name string) string { return filepath.Join(l.dir.Root().Name(), name) }
