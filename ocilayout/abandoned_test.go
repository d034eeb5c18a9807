package ocilayout

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

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
