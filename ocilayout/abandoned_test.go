package ocilayout

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// However often an upload is left and taken up again, it is one; and many that are left are too many.
func TestUploadsThatAreLeftAreBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	up, err := r.NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	id := up.ID()
	l.uploads.resting = maxResting - 1
	for range 3 {
		if err := up.Close(); err != nil {
			t.Fatal(err)
		}
		if up, err = r.ResumeUpload(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	uploadBlob(t, r, "one more")
	for i := range maxResting {
		if err := os.WriteFile(filepath.Join(dir, ingestPath, strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.uploads.resting = maxResting
	if _, err := r.NewUpload(t.Context(), nil); !errors.Is(err, berth.ErrTooManyRequests) {
		t.Errorf("got %v", err)
	}
	if err := up.Cancel(t.Context()); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, ingestPath, "0")); err != nil {
		t.Fatal(err)
	}
	uploadBlob(t, r, "room again")
}

// An upload that has got nothing yet needs no file, and is found again all the same: also after a restart.
func TestAnUploadOfNothingHasNoFile(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	up := left(t, r, &berth.UploadOptions{Algorithm: digest.SHA512})
	if entries, err := os.ReadDir(filepath.Join(dir, ingestPath)); err != nil || len(entries) != 0 {
		t.Errorf("files are %v, %v", entries, err)
	}
	again, err := r.ResumeUpload(t.Context(), up.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	r = repo(t, open(t, dir), "app/hello")
	if again, err = r.ResumeUpload(t.Context(), up.ID()); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Write([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	desc, err := again.Commit(t.Context(), digest.SHA512.FromString("all of it"))
	if err != nil {
		t.Fatal(err)
	}
	wantBlob(t, r, desc)
	if _, err := r.ResumeUpload(t.Context(), up.ID()); !errors.Is(err, berth.ErrUploadUnknown) {
		t.Errorf("an upload that is over: %v", err)
	}
}

// left is an upload that was begun and left.
func left(t *testing.T, r berth.Repository, opts *berth.UploadOptions) berth.Upload {
	t.Helper()
	up, err := r.NewUpload(t.Context(), opts)
	if err == nil {
		err = up.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return up
}

// Uploads that have no file are bounded with the others, and forgotten when nobody comes back for them.
func TestUploadsOfNothingAreBoundedToo(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	first := left(t, r, nil)
	for range maxResting - 1 {
		left(t, r, nil)
	}
	if _, err := r.NewUpload(t.Context(), nil); !errors.Is(err, berth.ErrTooManyRequests) {
		t.Errorf("got %v", err)
	}
	if n := len(l.uploads.live); n > maxStates+1 {
		t.Errorf("%d states are kept", n)
	}
	for _, state := range l.uploads.live {
		state.empty = state.empty.Add(-2 * abandonedAfter)
	}
	if err := l.sweepIngest(false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ResumeUpload(t.Context(), first.ID()); !errors.Is(err, berth.ErrUploadUnknown) {
		t.Errorf("one that was abandoned: %v", err)
	}
	uploadBlob(t, r, "room again")
}
