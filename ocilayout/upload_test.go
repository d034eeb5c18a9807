package ocilayout

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
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
