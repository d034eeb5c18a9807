// Package control is the control directory: the place inside a layout where the processes that work
// on it meet. It lies at [Dir] below the layout and belongs to berth alone:
//
//	LAYOUT/.berth/owner.lock     held by the one process that owns the layout, for as long as it lives
//	LAYOUT/.berth/start.lock     held by who starts that process, until it takes calls: see [LockStart]
//	LAYOUT/.berth/epoch          where and how the owner last wrote: see [Epoch]
//	LAYOUT/.berth/endpoint.json  where the owner takes calls: see [Listen] and [Dial]
//	LAYOUT/.berth/control.sock   and that place itself, where there are Unix sockets
//
// A lock is the kernel's, so it ends with the process that holds it, however that ends. The file's
// content only tells who it is:
//
//	{"pid":4711,"command":"berth serve","since":"2026-01-02T15:04:05Z"}
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/berthoci/berth"
)

// Dir is the control directory's name inside a layout. Its mode is 0700.
const Dir = ".berth"

// OwnerFile is the lock that the owner holds.
const OwnerFile = Dir + "/owner.lock"

// maxHolder bounds what is read of a lock file.
const maxHolder = 4096

// Holder says who holds a lock.
type Holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// String returns "process 4711 (berth serve)".
func (h Holder) String() string {
	switch {
	case h.PID == 0:
		return "another process"
	case h.Command == "":
		return fmt.Sprintf("process %d", h.PID)
	}
	return fmt.Sprintf("process %d (%s)", h.PID, h.Command)
}

// Lock is a lock that this process holds.
type Lock struct{ f *os.File }

// Own makes this process the owner of a layout: at most one process at a time is. The control
// directory must exist. It does not wait.
//
// Errors: berth.ErrLayoutInUse, naming the holder.
func Own(layout *os.Root) (*Lock, error) {
	f, err := layout.OpenFile(OwnerFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = tryLock(f, exclusive)
	if errors.Is(err, ErrHeld) { // perhaps by one who only looks
		time.Sleep(lookTime)
		err = tryLock(f, exclusive)
	}
	if err != nil {
		defer f.Close()
		if errors.Is(err, ErrHeld) {
			return nil, fmt.Errorf("%w: %s has it; stop that one first, or name another layout", berth.ErrLayoutInUse, holder(f))
		}
		return nil, fmt.Errorf("lock %s: %w", filepath.Join(layout.Name(), OwnerFile), err)
	}
	describe(f) // as well as it can: on a full disk the layout is owned, too
	return &Lock{f}, nil
}

// lookTime is longer than Owner holds the lock.
const lookTime = time.Millisecond

// Owner tells who owns a layout. Nobody is the zero Holder.
func Owner(layout string) (Holder, error) {
	f, err := os.OpenFile(filepath.Join(layout, OwnerFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Holder{}, nil
	}
	if err != nil {
		return Holder{}, err
	}
	defer f.Close()
	switch err := tryLock(f, shared); {
	case err == nil:
		return Holder{}, nil
	case errors.Is(err, ErrHeld):
		return holder(f), nil
	default:
		return Holder{}, err
	}
}

// Release gives the lock up. The file stays: removing it would let two processes lock two files of
// the same name.
func (l *Lock) Release() error { return l.f.Close() }

// File is the open file that the lock belongs to. A process that inherits it holds the lock too, and the
// lock ends when all have closed it.
func (l *Lock) File() *os.File { return l.f }

// Inherit takes over a lock whose open file this process was started with.
func Inherit(descriptor uintptr) *Lock { return &Lock{os.NewFile(descriptor, "inherited lock")} }

// ErrHeld is returned by TryLock where somebody else holds the lock.
var ErrHeld = errors.New("lock is held")

func holder(f *os.File) Holder {
	var h Holder
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxHolder))
	if err == nil && json.Unmarshal(data, &h) != nil {
		return Holder{}
	}
	return h
}

func describe(f *os.File) {
	data, err := json.Marshal(Holder{PID: os.Getpid(), Command: Command(), Since: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return
	}
	// In this order the room of an earlier text is used again.
	if n, err := f.WriteAt(append(data, '\n'), 0); err == nil {
		f.Truncate(int64(n))
	} else {
		f.Truncate(0)
	}
}

// Command is the program's name and subcommand: enough to recognise it, and never an argument that
// could hold a secret.
func Command() string {
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") && len(os.Args[1]) < 20 {
		name += " " + os.Args[1]
	}
	return name
}

// TryLock takes the lock of a file, which is created if it is not there, or returns ErrHeld. It is the
// lock that flock takes, which other programs know too.
func TryLock(dir *os.Root, name string) (*Lock, error) {
	f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrPermission) {
		f, err = dir.Open(name) // somebody else's, left behind: a lock needs no right to write
	}
	if err != nil {
		return nil, err
	}
	if err := tryLock(f, exclusive); err != nil {
		f.Close()
		return nil, err
	}
	// Who held it before may have removed the file: then this is a lock that nobody else will meet.
	locked, err := f.Stat()
	if named, nameErr := dir.Stat(name); err != nil || nameErr != nil || !os.SameFile(locked, named) {
		f.Close()
		return nil, ErrHeld
	}
	return &Lock{f}, nil
}

// Make creates the control directory of a layout, if it is not there.
func Make(layout *os.Root) error {
	if err := layout.Mkdir(Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", filepath.Join(layout.Name(), Dir), err)
	}
	info, err := layout.Lstat(Dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory: %w", filepath.Join(layout.Name(), Dir), berth.ErrLayoutInvalid)
	}
	return nil
}
