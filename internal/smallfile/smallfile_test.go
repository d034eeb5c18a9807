package smallfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthoci/berth/internal/smallfile"
)

func TestAFileIsReadUpToItsBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, most := range []int{5, 6} {
		if got, err := smallfile.Read(path, most); err != nil || string(got) != "12345" {
			t.Errorf("%d: got %q, %v", most, got, err)
		}
	}
	if got, err := smallfile.Read(path, 4); err == nil || got != nil || !strings.Contains(err.Error(), path) {
		t.Errorf("beyond the bound: %q, %v", got, err)
	}
	if _, err := smallfile.Read(path+"x", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
