package ocilayout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/berthoci/berth"
)

// inUse returns a directory with a layout of some images whose index has several pages and is in use.
func inUse(t *testing.T) (dir string, images []image) {
	t.Helper()
	dir = t.TempDir()
	l := openWith(t, dir, &Options{Durability: Power})
	r := repo(t, l, "app/hello")
	for i := range 20 {
		images = append(images, pushImage(t, r, fmt.Sprint("layer ", i), fmt.Sprint("v", i)))
	}
	flush(t, l)
	return dir, images
}

func wantAll(t *testing.T, dir string, images []image) {
	t.Helper()
	l := openWith(t, dir, &Options{Durability: Power})
	for i, img := range images {
		wantImage(t, l, "app/hello", fmt.Sprint("v", i), img)
	}
	if _, err := os.Stat(filepath.Join(dir, indexPath+".damaged")); err != nil {
		t.Error(err)
	}
}

func TestADamagedIndexIsMadeAnew(t *testing.T) {
	dir, images := inUse(t)
	damages := map[string]func(data []byte) []byte{
		"three pages":     func(data []byte) []byte { return data[:3*4096] },
		"one page":        func(data []byte) []byte { return data[:4096] },
		"a few bytes":     func(data []byte) []byte { return data[:100] },
		"another program": func([]byte) []byte { return []byte("SQLite format 3\x00") },
		"no header":       func(data []byte) []byte { return append(make([]byte, 2*4096), data[2*4096:]...) },
		"only a header":   func(data []byte) []byte { return append(data[:2*4096:2*4096], make([]byte, len(data)-2*4096)...) },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			copied := crash(t, dir)
			path := filepath.Join(copied, indexPath)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			wantAll(t, copied, images)
		})
	}
}

// Whichever page is lost, the process lives on, and the images are there.
func TestAnyPageOfTheIndexMayBeLost(t *testing.T) {
	dir, images := inUse(t)
	data, err := os.ReadFile(filepath.Join(dir, indexPath))
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	for at := 0; at < len(data); at += page {
		if len(bytes.Trim(data[at:at+page], "\x00")) == 0 {
			continue // not in use
		}
		copied := crash(t, dir)
		broken := append([]byte(nil), data...)
		for i := range page / 2 {
			broken[at+i] ^= byte(i*7 + 1)
		}
		if err := os.WriteFile(filepath.Join(copied, indexPath), broken, 0o600); err != nil {
			t.Fatal(err)
		}
		l := openWith(t, copied, &Options{Durability: Power})
		for i, img := range images {
			wantImage(t, l, "app/hello", fmt.Sprint("v", i), img)
		}
		l.Close()
		if t.Failed() {
			t.Fatalf("with page %d broken", at/page)
		}
	}
}

// An index that was closed well is not looked at whole when it is opened: what is broken is found then or
// later, and the next start has all.
func TestAnyPageMayBeLostAfterACleanClose(t *testing.T) {
	dir, images := inUse(t)
	closed := crash(t, dir)
	if err := openWith(t, closed, &Options{Durability: Power}).Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(closed, indexPath))
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	for at := 2 * page; at < len(data); at += page {
		if len(bytes.Trim(data[at:at+page], "\x00")) == 0 {
			continue
		}
		copied := crash(t, closed)
		broken := append([]byte(nil), data...)
		for i := range 200 {
			broken[at+i] ^= byte(i*7 + 1)
		}
		if err := os.WriteFile(filepath.Join(copied, indexPath), broken, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(t.Context(), copied, nil)
		if err != nil {
			t.Fatalf("with page %d broken: %v", at/page, err)
		}
		l.Fsck(t.Context(), nil)
		l.Close()
		l = open(t, copied)
		for i, img := range images {
			wantImage(t, l, "app/hello", fmt.Sprint("v", i), img)
		}
		l.Close()
		if t.Failed() {
			t.Fatalf("with page %d broken", at/page)
		}
	}
}

// An index that breaks while it is in use fails what needs it, not the process, and is made anew by
// the next start.
func TestAnIndexThatBreaksWhileItIsInUse(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := repo(t, l, "app/hello")
	img := pushImage(t, r, "layer", "v1")
	flush(t, l)
	path := filepath.Join(dir, indexPath)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 2 * 4096; i < len(data); i++ {
		data[i] = 0xff
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data[2*4096:], 2*4096); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := r.Resolve(t.Context(), "v1"); !errors.Is(err, errDamaged) {
		t.Errorf("resolve: %v", err)
	}
	if _, err := r.PushManifest(t.Context(), []byte(`{"schemaVersion":2,"manifests":[]}`), &berth.PushOptions{Tags: []string{"v2"}}); !errors.Is(err, errDamaged) {
		t.Errorf("push: %v", err)
	}
	report, err := l.Fsck(t.Context(), nil)
	if err == nil && len(report.Problems) == 0 {
		t.Error("the check found nothing")
	}
	l.Close()
	wantImage(t, openWith(t, dir, nil), "app/hello", "v1", img)
}

// Whatever byte of a page's head or of its elements is wrong, the process lives on: bbolt would follow it
// in a goroutine that nobody can recover. What cannot be told from a good one, a last key that is
// longer, is put right by a rebuild.
func TestAnyByteOfAPageMayBeWrong(t *testing.T) {
	dir, images := inUse(t)
	data, err := os.ReadFile(filepath.Join(dir, indexPath))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	const page = 4096
	var used []int
	for at := 2 * page; at < len(data); at += page {
		if len(bytes.Trim(data[at:at+page], "\x00")) > 0 {
			used = append(used, at)
		}
	}
	unnoticed := 0
	for range 100 {
		at := used[random.IntN(len(used))]
		at += random.IntN(pageHeader + pageElement*int(binary.NativeEndian.Uint16(data[at+10:])))
		broken := bytes.Clone(data)
		broken[at] ^= 1 << random.IntN(8)
		copied := crash(t, dir)
		if err := os.WriteFile(filepath.Join(copied, indexPath), broken, 0o600); err != nil {
			t.Fatal(err)
		}
		l := openWith(t, copied, &Options{Durability: Power})
		r := repo(t, l, "app/hello")
		whole := true
		for i, img := range images {
			_, tag := r.FetchManifest(t.Context(), fmt.Sprint("v", i), nil)
			_, layer := r.StatBlob(t.Context(), img.layer.Digest)
			_, config := r.StatBlob(t.Context(), img.config.Digest)
			whole = whole && errors.Join(tag, layer, config) == nil
		}
		if !whole {
			unnoticed++
			l.Close()
			l = openWith(t, copied, &Options{Durability: Power, Rebuild: true})
		}
		for i, img := range images {
			wantImage(t, l, "app/hello", fmt.Sprint("v", i), img)
		}
		l.Close()
		if t.Failed() {
			t.Fatalf("with byte %d of page %d wrong", at%page, at/page)
		}
	}
	if unnoticed > 8 {
		t.Errorf("%d of 100 were not noticed", unnoticed)
	}
}

// A record that does not parse is damage, too: the next start has all.
func TestARecordOfTheIndexMayBeWrong(t *testing.T) {
	dir, images := inUse(t)
	path := filepath.Join(dir, indexPath)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.ReplaceAll(data, []byte(`{"gen":`), []byte(`{"gen"!`))
	if bytes.Equal(broken, data) {
		t.Fatal("nothing is broken")
	}
	copied := crash(t, dir)
	if err := os.WriteFile(filepath.Join(copied, indexPath), broken, 0o600); err != nil {
		t.Fatal(err)
	}
	l := openWith(t, copied, &Options{Durability: Power})
	if err := l.Flush(t.Context()); err == nil {
		_, err = l.Fsck(t.Context(), nil)
		if err != nil {
			t.Error(err)
		}
	}
	l.Close()
	wantAll(t, copied, images)
}
