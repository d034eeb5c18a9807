package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
)

// StartFile is the lock that is held from the decision to start what serves a layout until that takes calls,
// or has failed: so that of many who look at once one starts it, and the others wait.
const StartFile = Dir + "/" + startName

const startName = "start.lock"

// LockStart takes the right to start what serves a layout. The directory is made if it is not there, where make is
// set. It does not wait.
//
// Errors: ErrHeld where somebody starts it already; berth.ErrLayoutInvalid for a directory of other files;
// fs.ErrNotExist.
func LockStart(layout string, make bool) (*Lock, error) {
	lock, err := lockStart(layout, make)
	if err != nil && !errors.Is(err, ErrHeld) {
		return nil, fmt.Errorf("layout %s: %w%s", layout, err, Advice(err))
	}
	return lock, err
}

func lockStart(layout string, make bool) (*Lock, error) {
	if make {
		if err := os.MkdirAll(layout, 0o755); err != nil {
			return nil, err
		}
	}
	if err := Recognise(layout); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(layout)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := Make(root); err != nil {
		return nil, err
	}
	return TryLock(root, StartFile)
}

// Recognise refuses a directory that holds something, and nothing of a layout: it is more likely a mistyped
// path than a wish.
//
// Errors: berth.ErrLayoutInvalid.
func Recognise(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case v1.ImageLayoutFile, v1.ImageIndexFile, Dir:
			return nil
		case v1.ImageBlobsDir: // a layout that lost the rest, or was not made to the end
			if info, err := os.Stat(filepath.Join(dir, v1.ImageBlobsDir, "sha256")); err == nil && info.IsDir() {
				return nil
			}
			if inside, err := os.ReadDir(filepath.Join(dir, v1.ImageBlobsDir)); err == nil && len(inside) == 0 && len(entries) == 1 {
				return nil
			}
		}
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: the directory holds other files; name an empty directory or a layout", berth.ErrLayoutInvalid)
	}
	return nil
}

// Advice is what to do about a layout that cannot be written to, for the end of the error's sentence. It is
// empty for other errors.
func Advice(err error) string {
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		return "; berth must be able to write there: make the directory writable, or open a copy of it"
	}
	return ""
}
