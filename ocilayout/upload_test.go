package ocilayout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

// Whoever asks for an upload that another has gets it after that one, with all its bytes.
func TestCallersTakeTurnsOnAnUpload(t *testing.T) {
	r := repo(t, open(t, t.TempDir()), "x")
	up, err := r.NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	id := up.ID()
	content := strings.Repeat("a", 100)
	var callers sync.WaitGroup
	for range len(content) {
		callers.Go(func() {
			up, err := r.ResumeUpload(t.Context(), id)
			if err != nil {
				t.Error(err)
				return
			}
			defer up.Close()
			before := up.Size()
			if _, err := io.WriteString(up, "a"); err != nil || up.Size() != before+1 {
				t.Errorf("after a byte at %d the upload has %d: %v", before, up.Size(), err)
			}
		})
	}
	up.Close()
	callers.Wait()

	up, err = r.ResumeUpload(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := up.Commit(t.Context(), digest.FromString(content))
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, r, desc)
}

// Who waits for an upload that ends meanwhile is told so, and who stops waiting takes nothing with it.
func TestWaitingForAnUpload(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "x")
	up, err := r.NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.ResumeUpload(gone, up.ID()); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
	waiting := make(chan error)
	go func() {
		_, err := r.ResumeUpload(t.Context(), up.ID())
		waiting <- err
	}()
	if err := up.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, berth.ErrUploadUnknown) {
		t.Errorf("an upload that was cancelled: %v", err)
	}
	if n := len(l.uploads.live); n != 0 {
		t.Errorf("%d states are kept of uploads that are over", n)
	}
}

// A large upload comes in pieces of any length, some of which are written past the system's memory; a
// write fails half-way, and the client goes on from where the upload then is.
func TestALargeUploadInPieces(t *testing.T) {
	l, faults := openFaulty(t, t.TempDir(), Process)
	r := repo(t, l, "x")
	content := make([]byte, 3*directAfter+12345)
	random := rand.NewChaCha8([32]byte{})
	random.Read(content)
	up, err := r.NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	id, broke := up.ID(), false
	for _, piece := range []int{100, directAfter, 4096, 5 << 20, 1, 3 << 20, 4095, len(content)} {
		at := up.Size()
		if piece == 3<<20 {
			faults.set(func(op durable.Op, _ string) error {
				if op == durable.OpWrite && up.Size() > at {
					return syscall.EIO
				}
				return nil
			})
		}
		_, err := io.Copy(up, onlyReader{bytes.NewReader(content[at:min(at+int64(piece), int64(len(content)))])})
		faults.clear()
		broke = broke || err != nil
		if err := up.Close(); err != nil {
			t.Fatal(err)
		}
		if up, err = r.ResumeUpload(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if !broke {
		t.Error("no write failed")
	}
	desc, err := up.Commit(t.Context(), digest.FromBytes(content))
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, r, desc)
}

// A disk that is slow, or cannot be written to directly, is written to through the system's memory.
func TestWhenAnUploadIsWrittenDirectly(t *testing.T) {
	l := open(t, t.TempDir())
	created, err := repo(t, l, "x").NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer created.Cancel(t.Context())
	u := created.(*upload)
	content := make([]byte, directAfter)
	if _, err := io.Copy(u, onlyReader{bytes.NewReader(content)}); err != nil {
		t.Fatal(err)
	}
	if u.goesDirect(content[:4095]) || u.goesDirect(nil) {
		t.Error("a piece that is no whole unit goes directly")
	}
	if !u.goesDirect(content) {
		t.Skip("nothing is written directly here")
	}
	u.direct.bytes, u.direct.took = directTrial, time.Hour
	if u.goesDirect(content) || u.direct.file != nil {
		t.Error("a slow disk is still written to directly")
	}
}
