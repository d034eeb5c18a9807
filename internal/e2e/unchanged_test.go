//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
)

// pushReport is what berth push --json prints, in part.
type pushReport struct {
	Descriptor v1.Descriptor
	Stats      struct{ Existing, Sent, Cloned, Copied, Linked int }
}

func (s *shell) report(args ...string) (r pushReport) {
	s.Helper()
	s.check(json.Unmarshal([]byte(s.must("berth", append(args, "--json")...)), &r))
	return r
}

// An image that is there already is pushed without any of its layers being opened, by whoever pushes or by whoever serves
// the layout, a second process that the first one starts.
func TestAnUnchangedImageIsNotRead(t *testing.T) {
	s := newShell(t)
	made, layout, trace := s.path("made"), s.path("layout"), s.path("trace")
	s.umociImage(made, "v1", 1<<20, 1<<20)
	layer := s.largestBlobOf(made)
	push := []string{"--layout", layout, "push", "oci:" + made, "app/big:v1", "--idle-timeout", "0"}

	opened := func() bool {
		s.must("strace", append([]string{"-f", "-qq", "-e", "signal=none", "-e", "trace=open,openat,openat2", "-o", trace, program(t, "berth")}, push...)...)
		text, err := os.ReadFile(trace)
		s.check(err)
		if !strings.Contains(string(text), "index.db") {
			s.Fatal("the trace does not show who serves the layout")
		}
		return strings.Contains(string(text), layer.Encoded())
	}
	if !opened() {
		t.Error("the first push has not opened the layer: the trace shows too little")
	}
	if opened() {
		t.Error("the second push has opened the layer")
	}
}

// On a file system whose files can share their bytes, a push and a pull take no room, and no bytes are sent.
func TestImagesAreCloned(t *testing.T) {
	s := newShell(t)
	at := s.reflinks()
	made, layout, copied := at+"/made", at+"/layout", at+"/copied"
	want := s.umociImage(made, "v1", 150<<20, 20<<20)
	before := s.used(at)
	in := s.report("--layout", layout, "push", "oci:"+made, "app/big:v1")
	out := s.report("--layout", layout, "pull", "app/big:v1", "oci:"+copied)
	for what, r := range map[string]pushReport{"push": in, "pull": out} {
		if r.Descriptor.Digest != want || r.Stats.Cloned != 2 || r.Stats.Sent != 2 {
			t.Errorf("%s: got %+v, want two layers of %s to be cloned", what, r, want)
		}
	}
	syscall.Sync()
	if taken := s.used(at) - before; taken > 4<<20 {
		t.Errorf("a push and a pull have taken %d bytes", taken)
	}
	s.must("skopeo", "copy", "-q", "oci:"+copied, "dir:"+s.path("read"))
}

// reflinks mounts a small file system for one test, whose files can share their bytes.
func (s *shell) reflinks() string {
	s.Helper()
	return s.mounted(400, "mkfs.xfs", "-q", "-m", "reflink=1")
}

// A push with --link keeps the source's own files.
func TestImagesAreLinked(t *testing.T) {
	s := newShell(t)
	made, layout := s.path("made"), s.path("layout")
	s.umociImage(made, "v1", 1<<20)
	r := s.report("--layout", layout, "push", "--link", "oci:"+made, "app/big:v1")
	if r.Stats.Linked != 1 {
		t.Errorf("got %+v, want the layer to be linked", r.Stats)
	}
	layer := s.largestBlobOf(made)
	one, err := os.Stat(blobFile(made, layer))
	s.check(err)
	other, err := os.Stat(blobFile(layout, layer))
	s.check(err)
	if !os.SameFile(one, other) {
		t.Error("the layout has a file of its own")
	}
}

// alterCommand makes this test's binary a program that alters a file until it is killed.
const alterCommand = "alter-file"

func actAsAlterer(args []string) {
	if len(args) != 2 || args[0] != alterCommand {
		return
	}
	if err := alter(args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// alter makes the file another one, and again what it was, by small steps.
func alter(name string) error {
	good, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	fmt.Println("altering", name)
	for i := 0; ; i++ {
		at := rand.Int64N(int64(len(good)) - 1)
		_, err = file.WriteAt([]byte{good[at] + 1}, at)
		if i%20 == 0 {
			err = errors.Join(err, file.Truncate(at), file.Truncate(int64(len(good))))
		}
		_, goodErr := file.WriteAt(good[at:], at)
		if err = errors.Join(err, goodErr); err != nil {
			return err
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	}
}

// A layer that another process alters while it is pushed is stored as its digest says, or not at all; on a disk whose files
// can share their bytes, and on any.
func TestALayerThatIsBeingAltered(t *testing.T) {
	for name, disk := range map[string]func(*shell) string{"any": func(s *shell) string { return s.path() }, "reflinks": (*shell).reflinks} {
		t.Run(name, func(t *testing.T) {
			s := newShell(t)
			at := disk(s)
			made := at + "/made"
			s.umociImage(made, "v1", 2<<20)
			self, err := os.Executable()
			s.check(err)
			altering := s.launch(exec.Command(self, alterCommand, blobFile(made, s.largestBlobOf(made))))
			altering.await(&altering.stdout, regexp.MustCompile("altering (.*)"))
			stored, refused := s.pushAltered(made, at+"/layout", altering)
			t.Logf("%d pushes stored the layer, %d failed", stored, refused)
			if stored == 0 || refused == 0 {
				t.Error("this shows nothing")
			}
		})
	}
}

// alteredRounds is how often the layer is pushed that is being altered.
const alteredRounds = 1000

// pushAltered pushes again and again, each time into another repository of a layout that has lost the image before.
func (s *shell) pushAltered(made, layout string, altering *process) (stored, refused int) {
	registry, err := sdk.Open(s.Context(), &sdk.Options{Layout: layout, Launcher: host.Binary(program(s.T, "berth")), Private: true})
	s.check(err)
	defer registry.Close()
	layer := s.largestBlobOf(made)
	for range alteredRounds {
		from := source.Layout(made, "v1")
		pushed, err := registry.Push(s.Context(), from, "app/altered:v1", nil)
		from.Close()
		content, readErr := os.ReadFile(blobFile(layout, layer))
		switch {
		case altering.hasEnded():
			s.Fatalf("nobody alters the file any more: %s", altering.stderr.String())
		case readErr == nil && digest.FromBytes(content) != layer:
			s.Fatalf("what is stored is something else; the push says: %v", err)
		case err == nil && readErr != nil:
			s.Fatalf("it was pushed, and is not there: %v", readErr)
		case err != nil && !errors.Is(err, berth.ErrDigestInvalid) && !errors.Is(err, berth.ErrBlobUnknown):
			s.Fatalf("a push fails with %v", err)
		case err != nil:
			refused++
			continue
		}
		stored++
		_, err = registry.Remove(s.Context(), "app/altered@"+string(pushed.Descriptor.Digest))
		s.check(err)
		_, err = registry.GC(s.Context(), &berth.GCOptions{Grace: -1})
		s.check(err)
	}
	return stored, refused
}
