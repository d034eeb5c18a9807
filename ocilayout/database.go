package ocilayout

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/internal/durable"
)

// errDamaged is an index file that cannot be used. It can always be made anew.
var errDamaged = errors.New("the index file is damaged")

const (
	// mapSize is how much address space the index file is given from the start, in bytes. While it
	// is enough, a reader that takes its time does not keep the file from growing, and so no writer.
	mapSize = 1 << 30
	// growth is the step in which the file grows, in bytes.
	growth = 1 << 20
)

// database is the index file behind a guard: a page that is not what bbolt expects makes it panic,
// and one that cannot be read from the disk faults. Both are errors here.
type database struct {
	bolt    *bolt.DB
	file    *os.File
	damaged atomic.Bool
}

// View runs fn in a transaction that reads.
func (db *database) View(fn func(*bolt.Tx) error) error {
	return db.guard(func() error { return db.bolt.View(fn) })
}

// Update runs fn in a transaction that writes. On a damaged file there is none: the one that found
// the damage may not have been able to let go of it.
func (db *database) Update(fn func(*bolt.Tx) error) error {
	if db.damaged.Load() {
		return errDamaged
	}
	return db.guard(func() error {
		tx, err := db.bolt.Begin(true)
		if err != nil {
			return err
		}
		// After a panic nothing is rolled back: that would read the file that is broken.
		if err := fn(tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	})
}

func (db *database) guard(work func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if broken := recover(); broken != nil {
			db.damaged.Store(true)
			err = fmt.Errorf("%w (%s); stop berth and start it again to have it made anew from index.json", errDamaged, whatBroke(broken))
		}
	}()
	err = work()
	switch {
	case errors.Is(err, errDamaged):
		db.damaged.Store(true)
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		err = ErrClosed
	}
	return err
}

// whatBroke is bbolt's own word, if it has one.
func whatBroke(panicked any) string {
	if _, fault := panicked.(runtime.Error); fault {
		return "a page cannot be read"
	}
	return fmt.Sprintf("%.200v", panicked)
}

// openIndex opens the index file, or begins a new one: where what is there cannot be believed, or is
// not to be.
func (l *Layout) openIndex(rebuild bool) error {
	if l.epoch.lost && !rebuild && !l.epoch.unused() {
		l.log.Warn("the layout was in use when the power went, or when it was copied: its index is made anew from index.json")
	}
	if l.epoch.lost || rebuild {
		if err := l.discardIndex(); err != nil {
			return err
		}
	}
	err := l.openFound()
	if errors.Is(err, errDamaged) {
		const aside = indexPath + ".damaged"
		l.log.Error("the index file is damaged and is made anew from index.json", "err", err, "copy", l.path(aside))
		if err := l.dir.Move(indexPath, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err = l.openPrepared(false)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", l.path(indexPath), err)
	}
	return nil
}

func (l *Layout) openFound() error {
	if l.epoch.found.Damaged {
		return errDamaged
	}
	return l.openPrepared(l.epoch.found.Clean)
}

// openPrepared opens the index file and makes sure of its format.
func (l *Layout) openPrepared(clean bool) error {
	db, err := openDatabase(l.dir, clean)
	if err != nil {
		return err
	}
	if l.epoch.unused() {
		db.setDurability(Process) // the first change settles what is made here
	} else {
		db.setDurability(l.mode())
	}
	l.dir.Bequeath(indexPath)
	if err := db.prepare(); err != nil {
		return errors.Join(err, db.Close())
	}
	db.setDurability(l.mode())
	l.db = db
	return nil
}

// discardIndex removes the index file, and what else a power cut leaves that is of no use.
func (l *Layout) discardIndex() error {
	if err := l.dir.Remove(indexPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.dir.SyncDir(control.Dir)
}

// openDatabase opens an index file that the guard has looked at: all of it, unless it was closed
// well.
func openDatabase(dir *durable.Dir, clean bool) (db *database, err error) {
	info, err := dir.Root().Lstat(indexPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errDamaged
	case info.Size() > 0:
		if err := examine(dir, info.Size(), clean); err != nil {
			return nil, err
		}
	}
	return openGuarded(dir)
}

// initialMap is mapSize where a mapping beyond the file's end is possible and costs nothing.
func initialMap() int {
	if runtime.GOOS == "windows" || math.MaxInt == math.MaxInt32 {
		return 0
	}
	return mapSize
}

// openGuarded opens the file.
func openGuarded(dir *durable.Dir) (*database, error) {
	db := &database{}
	opts := &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true,
		NoStatistics: true, InitialMmapSize: initialMap(), Timeout: time.Second}
	opts.OpenFile = func(string, int, fs.FileMode) (_ *os.File, err error) {
		db.file, err = openFile(dir)
		return db.file, err
	}
	err := db.guard(func() (err error) {
		db.bolt, err = bolt.Open(indexPath, 0o600, opts)
		return err
	})
	if err != nil {
		if db.damaged.Load() {
			db.Close()
		}
		return nil, asDamage(err)
	}
	db.bolt.AllocSize = growth
	return db, nil
}

// openFile opens the file, or begins it. Bbolt does that too, and waits for the disk.
func openFile(dir *durable.Dir) (*os.File, error) {
	f, err := dir.Root().OpenFile(indexPath, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() == 0 {
		_, err = f.WriteAt(emptyPages(os.Getpagesize()), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// asDamage turns what bbolt says of a file that is none of its own into errDamaged.
func asDamage(err error) error {
	for _, is := range []error{bolterrors.ErrInvalid, bolterrors.ErrChecksum, bolterrors.ErrVersionMismatch} {
		if errors.Is(err, is) {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return err
}

// setDurability says whether a commit waits for the disk. It must not be called while one is made.
func (db *database) setDurability(d Durability) {
	db.bolt.NoSync = d != Power
	db.bolt.NoGrowSync = d != Power
}

// prepare makes the buckets of a new index, and begins anew where the format is an older one. It
// writes nothing to one that is as it should be.
func (db *database) prepare() error {
	var format int
	err := db.View(func(tx *bolt.Tx) (err error) {
		format, err = formatOf(tx)
		return err
	})
	switch {
	case err != nil || format == formatVersion:
		return err
	case format > formatVersion:
		return fmt.Errorf("it has format %d, this berth knows %d: use a newer one", format, formatVersion)
	}
	return db.Update(func(tx *bolt.Tx) error {
		if err := empty(tx); err != nil {
			return err
		}
		for _, name := range buckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		return errors.Join(meta.Put(metaLayout, []byte(rand.Text())), meta.Put(metaFormat, []byte(strconv.Itoa(formatVersion))))
	})
}

// formatOf reads the format of an index; 0: a new one.
func formatOf(tx *bolt.Tx) (int, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return 0, nil
	}
	format, err := strconv.Atoi(string(meta.Get(metaFormat)))
	if err != nil {
		return 0, fmt.Errorf("%w: it has no format", errDamaged)
	}
	return format, nil
}

func empty(tx *bolt.Tx) error {
	var names [][]byte
	tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		names = append(names, name)
		return nil
	})
	for _, name := range names {
		if err := tx.DeleteBucket(name); err != nil {
			return err
		}
	}
	return nil
}

// closeClean writes out all that the next start would otherwise have to find out: the list of free
// pages above all.
func (db *database) closeClean() error {
	if db.damaged.Load() {
		return nil
	}
	db.setDurability(Power)
	db.bolt.NoFreelistSync = false
	return db.Update(func(*bolt.Tx) error { return nil })
}

// Close lets go of the file. A damaged one is not closed by bbolt, which might wait for a transaction
// that never ended; its mapping stays until the process ends.
func (db *database) Close() error {
	if db.damaged.Load() {
		return db.file.Close()
	}
	return db.bolt.Close()
}
