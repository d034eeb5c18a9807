package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthoci/berth"
)

func layout(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestOwnExcludesASecondOwner(t *testing.T) {
	root := layout(t)
	if err := Make(root); err != nil {
		t.Fatal(err)
	}
	first, err := Own(root)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Own(root)
	if !errors.Is(err, berth.ErrLayoutInUse) {
		t.Fatalf("second owner: got %v, want ErrLayoutInUse", err)
	}
	for _, part := range []string{fmt.Sprintf("process %d", os.Getpid()), "another layout"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not tell %q", err, part)
		}
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := Own(root)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	second.Release()
}

func TestOwnSurvivesAGarbledHolder(t *testing.T) {
	root := layout(t)
	if err := Make(root); err != nil {
		t.Fatal(err)
	}
	lock, err := Own(root)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if err := os.WriteFile(filepath.Join(root.Name(), OwnerFile), []byte("{garbled"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Own(root); !errors.Is(err, berth.ErrLayoutInUse) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
}

func TestMakeIsPrivateAndRefusesAFile(t *testing.T) {
	root := layout(t)
	for range 2 {
		if err := Make(root); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(root.Name(), Dir))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("got %v, %v, want a directory for the owner alone", info.Mode(), err)
	}
	other := layout(t)
	if err := os.WriteFile(filepath.Join(other.Name(), Dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Make(other); !errors.Is(err, berth.ErrLayoutInvalid) {
		t.Errorf("got %v, want ErrLayoutInvalid", err)
	}
}
