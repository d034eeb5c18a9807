// Package ocilayout is a registry in a directory: one OCI image layout on disk, which other tools
// read at any moment, with an index beside it that makes every question a lookup.
//
//	LAYOUT/oci-layout  index.json  blobs/<algorithm>/<hex>     a plain OCI image layout
//	LAYOUT/.berth/     index.db (bbolt), ingest/ (unfinished uploads), owner.lock
//
// [Layout] implements [berth.Registry]:
//
//	layout, err := ocilayout.Open(ctx, dir, nil)
//	defer layout.Close()
//	repo, err := layout.Repository("app/hello")
//
// # Order
//
// A blob's bytes are written into ingest/ and hashed on the way, flushed, renamed into blobs/, and
// then committed to the index; the answer comes after that, and index.json last of all. So the index
// never vouches for bytes that are not there, index.json never names them, and what was answered
// outlives the process and the power, one instruction after the answer.
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
// program has written is merged, not overwritten: when the layout is opened, and before each
// projection.
package ocilayout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
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
}

// Layout is an open layout directory that this process owns. It implements [berth.Registry].
type Layout struct {
	dir       *durable.Dir
	db        *bolt.DB
	owner     *control.Lock
	log       *slog.Logger
	writer    *writer
	projector *projector
	uploads   uploadTable
	hashing   singleflight.Group // of files that came from outside, each once at a time
	closing   sync.Once
	closed    error
}

// Open opens the layout in a directory, and creates it where the directory is empty or missing. An
// OCI image layout that another program made is taken over as it is: its blobs are hashed before
// they are first served.
//
// Errors: berth.ErrLayoutInUse if another process owns it; berth.ErrLayoutInvalid if the directory
// holds something else.
func Open(ctx context.Context, dir string, opts *Options) (_ *Layout, err error) {
	if opts == nil {
		opts = &Options{}
	}
	l := &Layout{log: opts.Logger}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	if err := l.open(ctx, dir); err != nil {
		return nil, fmt.Errorf("layout %s: %w", dir, err)
	}
	return l, nil
}

// open takes the directory, and writes to it only when it is owned.
func (l *Layout) open(ctx context.Context, dir string) (err error) {
	if err := l.openDirectory(dir); err != nil {
		return err
	}
	if l.owner, err = control.Own(l.dir.Root()); err != nil {
		return err
	}
	if err := l.makeLayout(); err != nil {
		return err
	}
	if err := l.openIndex(); err != nil {
		return err
	}
	return l.start(ctx)
}

// openDirectory opens a directory that is an image layout, or can be made one.
func (l *Layout) openDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := recognise(dir); err != nil {
		return err
	}
	var err error
	if l.dir, err = durable.Open(dir); err != nil {
		return err
	}
	return control.Make(l.dir.Root())
}

// makeLayout makes the directory a layout, as far as it is not one.
func (l *Layout) makeLayout() error {
	for _, name := range []string{ingestPath, "blobs/sha256"} {
		if err := l.dir.MkdirAll(name, 0o755); err != nil {
			return err
		}
	}
	l.dir.Temp = ingestPath
	return l.checkVersion()
}

// recognise refuses a directory that holds something, and nothing of a layout: it is more likely a
// mistyped path than a wish.
func recognise(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case v1.ImageLayoutFile, v1.ImageIndexFile, v1.ImageBlobsDir, control.Dir:
			return nil
		}
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: the directory holds other files; name an empty directory or a layout", berth.ErrLayoutInvalid)
	}
	return nil
}

func (l *Layout) checkVersion() error {
	data, err := l.dir.Root().ReadFile(v1.ImageLayoutFile)
	if errors.Is(err, fs.ErrNotExist) {
		data, _ = json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
		return l.dir.WriteFile(v1.ImageLayoutFile, data, 0o644)
	}
	if err != nil {
		return err
	}
	var version v1.ImageLayout
	if json.Unmarshal(data, &version) != nil || version.Version != v1.ImageLayoutVersion {
		return fmt.Errorf("%w: its oci-layout file does not say version %s", berth.ErrLayoutInvalid, v1.ImageLayoutVersion)
	}
	return nil
}

// start brings index and index.json together and begins to take work.
func (l *Layout) start(ctx context.Context) error {
	if err := l.sweepIngest(); err != nil {
		return err
	}
	l.uploads.live = map[string]*uploadState{}
	l.writer = newWriter(l.db)
	l.projector = newProjector(l)
	if err := l.projector.mergeOutside(ctx); err != nil {
		return err
	}
	if err := l.projector.project(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		// A full disk must not keep anybody from reading, or from making room.
		l.log.Error("index.json is behind", "err", err)
		l.projector.wake()
	}
	l.projector.begin()
	return nil
}

// Repository returns the repository of that name.
func (l *Layout) Repository(name string) (berth.Repository, error) {
	if err := berth.ValidateRepository(name); err != nil {
		return nil, err
	}
	return &repository{layout: l, name: name}, nil
}

// Flush brings index.json up to date with everything that was answered before the call.
func (l *Layout) Flush(ctx context.Context) error { return l.projector.flush(ctx) }

// Close brings index.json up to date and lets the directory go. What is still running fails.
func (l *Layout) Close() error {
	l.closing.Do(func() {
		l.closed = errors.Join(l.projector.end(), l.release())
	})
	return l.closed
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
	if l.owner != nil {
		errs = append(errs, l.owner.Release())
	}
	if l.dir != nil {
		errs = append(errs, l.dir.Close())
	}
	return errors.Join(errs...)
}

// repository is one repository of a layout: a name, and all that the layout can do.
type repository struct {
	layout *Layout
	name   string
}

func (r *repository) Name() string { return r.name }

func (l *Layout) path(name string) string { return filepath.Join(l.dir.Root().Name(), name) }
