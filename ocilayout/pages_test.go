package ocilayout

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// These are about what the walk over the pages of an index takes for good.

func walkFile(t *testing.T, path, when string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, _ := f.Stat()
	best, err := bestMeta(f, info.Size())
	if err == nil {
		err = walkPages(f, best)
	}
	if err != nil {
		t.Fatalf("%s: a good file is called damaged: %v", when, err)
	}
}

// Random transactions, in both freelist modes, with several page sizes.
func TestEveryStateOfBboltIsWhole(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		path := filepath.Join(t.TempDir(), "db")
		opts := &bolt.Options{PageSize: []int{1024, 4096, 16384}[seed%3], NoSync: true, NoGrowSync: seed%4 < 2, NoFreelistSync: seed%2 == 0, FreelistType: bolt.FreelistMapType, InitialMmapSize: 1 << 26}
		db, err := bolt.Open(path, 0o600, opts)
		if err != nil {
			t.Fatal(err)
		}
		db.AllocSize = growth
		var live []string
		for step := range 250 {
			if rnd.IntN(25) == 0 {
				db.NoFreelistSync = !db.NoFreelistSync
			}
			if rnd.IntN(40) == 0 {
				db.Close()
				opts.NoFreelistSync = rnd.IntN(2) == 0
				if db, err = bolt.Open(path, 0o600, opts); err != nil {
					t.Fatal(err)
				}
				db.AllocSize = growth
			}
			shrink := step%100 > 60
			db.Update(func(tx *bolt.Tx) error {
				for range rnd.IntN(200) {
					name := fmt.Appendf(nil, "bucket%d", rnd.IntN(9))
					if rnd.IntN(400) == 0 {
						tx.DeleteBucket(name)
						continue
					}
					b, err := tx.CreateBucketIfNotExists(name)
					if err != nil {
						return err
					}
					if len(live) > 0 && (rnd.IntN(3) == 0 || shrink && rnd.IntN(10) > 0) {
						i := rnd.IntN(len(live))
						for range rnd.IntN(30) {
							b.Delete([]byte(live[i]))
							i = (i + 1) % len(live)
						}
						continue
					}
					k := fmt.Sprintf("%s\x00%0*d", strings.Repeat("k", rnd.IntN(60)), 1+rnd.IntN(200), rnd.IntN(100000))
					size := rnd.IntN(300)
					if rnd.IntN(50) == 0 {
						size = rnd.IntN(200 << 10)
					}
					if err := b.Put([]byte(k), bytes.Repeat([]byte{1}, size)); err != nil {
						return err
					}
					live = append(live, k)
					if len(live) > 3000 {
						live = live[1000:]
					}
				}
				if rnd.IntN(10) == 0 {
					return fmt.Errorf("roll back")
				}
				return nil
			})
			walkFile(t, path, fmt.Sprint("seed ", seed, " step ", step))
		}
		db.Close()
		walkFile(t, path, "closed")
	}
}

// More than 65535 free pages.
func TestManyFreePages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	opts := &bolt.Options{PageSize: 1024, NoSync: true, NoFreelistSync: true, FreelistType: bolt.FreelistMapType}
	db, err := bolt.Open(path, 0o600, opts)
	if err != nil {
		t.Fatal(err)
	}
	db.Update(func(tx *bolt.Tx) error {
		b, _ := tx.CreateBucket([]byte("b"))
		for i := range 90000 {
			b.Put(fmt.Appendf(nil, "%08d", i), bytes.Repeat([]byte{1}, 900))
		}
		return nil
	})
	walkFile(t, path, "full")
	db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("b")) })
	walkFile(t, path, "empty")
	db.NoFreelistSync = false
	for range 3 {
		db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucketIfNotExists([]byte("c")); return err })
		walkFile(t, path, "freelist")
	}
	db.Close()
	opts.NoFreelistSync = true
	if db, err = bolt.Open(path, 0o600, opts); err != nil {
		t.Fatal(err)
	}
	db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucketIfNotExists([]byte("d")); return err })
	walkFile(t, path, "again")
	db.Close()
}

// A record may be large: an entry or an annotation of index.json can be.
func TestALargeRecord(t *testing.T) {
	dir := t.TempDir()
	l := openWith(t, dir, &Options{Durability: Power})
	r := repo(t, l, "app")
	uploadBlob(t, r, "loose")
	pushImage(t, r, "one", "v1")
	flush(t, l)
	edit(t, dir, func(index *v1.Index) { index.Annotations["com.example.large"] = strings.Repeat("x", 65<<20) })
	flush(t, l)
	killed := crash(t, dir)
	// The process was killed in power mode: all that was answered is in the index.
	again := open(t, killed)
	if _, err := repo(t, again, "app").StatBlob(t.Context(), digest.FromString("loose")); err != nil {
		t.Errorf("an acknowledged blob is forgotten: %v", err)
	}
}

// The record of the format is damaged: the index is made anew, as after any damage.
func TestTheFormatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	img := pushImage(t, repo(t, l, "app"), "one", "v1")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, ".berth/index.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(metaFormat, []byte("s")) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	l, err = Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wantImage(t, l, "app", "v1", img)
}
