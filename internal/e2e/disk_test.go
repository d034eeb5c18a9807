//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/berthoci/berth/sdk/remote"
)

// disk mounts a small file system for one test.
func (s *shell) disk(mebibytes int) string {
	s.Helper()
	return s.mounted(mebibytes, "mkfs.ext4", "-q", "-m", "0")
}

// mounted mounts a file system for one test that a program makes.
func (s *shell) mounted(mebibytes int, mkfs string, flags ...string) string {
	s.Helper()
	if os.Geteuid() != 0 {
		s.Skip("mounting a disk needs root")
	}
	image, at := s.path("disk.img"), s.path("disk")
	s.check(os.MkdirAll(at, 0o755))
	s.check(os.WriteFile(image, nil, 0o600))
	s.check(os.Truncate(image, int64(mebibytes)<<20))
	s.must(mkfs, append(flags, image)...)
	s.must("mount", "-o", "loop", image, at)
	s.Cleanup(func() {
		// The test's context is over, and so is all that it started.
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			s.Errorf("umount: %v\n%s", err, out)
		}
	})
	return at
}

// used is how many bytes of a file system are.
func (s *shell) used(at string) int64 {
	s.Helper()
	var stat syscall.Statfs_t
	s.check(syscall.Statfs(at, &stat))
	return int64(stat.Blocks-stat.Bfree) * stat.Bsize
}

// A disk that fills up refuses what does not fit and keeps what was answered: while it is full, over a
// kill, and when there is room again.
func TestADiskThatFillsUp(t *testing.T) {
	for _, durability := range []string{"process", "power"} {
		t.Run(durability, func(t *testing.T) {
			s := newShell(t)
			at := s.disk(24)
			ballast := at + "/ballast"
			s.randomFile(ballast, 4<<20)
			layout := at + "/layout"
			server, address := s.serve(layout, "--durability", durability)
			all := s.fill(address, "before")
			server.kill()
			server, address = s.serve(layout, "--durability", durability)
			s.complete(address, all)
			all = append(all, s.fill(address, "still")...)
			s.check(os.Remove(ballast))
			for i := range 10 {
				one, err := s.pushInto(address, "app/after", fmt.Sprint("v", i))
				s.check(err)
				all = append(all, one)
			}
			s.complete(address, all)
			server.stop()
			s.listed(layout, all)
			if out := s.run("berth", "fsck", "--layout", layout); out.code != 0 {
				s.Errorf("fsck: %d\n%s%s", out.code, out.stdout, out.stderr)
			}
		})
	}
}

// A disk that is full to the last block can be made room on by a collection, also after a kill.
func TestACollectionMakesRoomOnAFullDisk(t *testing.T) {
	for _, durability := range []string{"process", "power"} {
		t.Run(durability, func(t *testing.T) {
			s := newShell(t)
			at := s.disk(24)
			layout := at + "/layout"
			server, address := s.serve(layout, "--durability", durability)
			all := s.fill(address, "before")
			server.kill()
			s.must("berth", "ls", "--layout", layout) // sweeps what the killed one left
			s.stuff(at + "/filler")
			s.must("berth", "gc", "--layout", layout, "--keep", "app/before=1", "--grace", "0")
			_, address = s.serve(layout, "--durability", durability)
			one, err := s.pushInto(address, "app/after", "v1")
			s.check(err)
			s.complete(address, []pushed{all[len(all)-1], one})
		})
	}
}

// stuff takes every block that is left of a disk.
func (s *shell) stuff(path string) {
	s.Helper()
	f, err := os.Create(path)
	s.check(err)
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		s.Fatal(err)
	}
}

// fill pushes until there is no room, and returns what was answered.
func (s *shell) fill(address, repository string) (all []pushed) {
	s.Helper()
	const most = 5000
	for i := range most {
		one, err := s.pushInto(address, "app/"+repository, fmt.Sprint("v", i))
		if err != nil {
			s.Logf("%d images, and then: %v", i, err)
			if !strings.Contains(err.Error(), "no space left on device") {
				s.Error("the error does not say that the disk is full")
			}
			return all
		}
		all = append(all, one)
	}
	s.Fatal("the disk did not fill up")
	return nil
}

func (s *shell) pushInto(address, repository, tag string) (pushed, error) {
	s.Helper()
	registry, err := remote.New(address, nil)
	s.check(err)
	return pushOne(s.Context(), registry, repository, tag)
}

// A disk that fails takes nothing more; what was flushed before is there when it works again.
func TestADiskThatFails(t *testing.T) {
	s := newShell(t)
	at := s.disk(24)
	layout := at + "/layout"
	server, address := s.serve(layout, "--durability", "power")
	one, err := s.pushInto(address, "app/hello", "v1")
	s.check(err)
	s.must("xfs_io", "-x", "-c", "shutdown", at)
	if _, err := s.pushInto(address, "app/hello", "v2"); err == nil || !strings.Contains(err.Error(), "input/output error") {
		s.Errorf("a push to a disk that fails: %v", err)
	}
	server.kill()
	s.must("umount", at)
	s.must("mount", "-o", "loop", s.path("disk.img"), at)
	server, address = s.serve(layout)
	s.complete(address, []pushed{one})
	server.stop()
	s.listed(layout, []pushed{one})
}

// A layout on a read-only file system is refused with the reason.
func TestAReadOnlyFileSystem(t *testing.T) {
	s := newShell(t)
	at := s.disk(24)
	layout := at + "/layout"
	server, address := s.serve(layout)
	one, err := s.pushInto(address, "app/hello", "v1")
	s.check(err)
	server.stop()
	s.must("mount", "-o", "remount,ro", at)
	out := s.run("berth", "serve", "--layout", layout, "--addr", "127.0.0.1:0")
	if out.code != 1 || !strings.Contains(out.stderr, "read-only file system") || strings.Count(out.stderr, "\n") != 1 {
		s.Errorf("serving it: exit code %d\n%s", out.code, out.stderr)
	}
	s.inDirectory(layout, []pushed{one})
	s.must("mount", "-o", "remount,rw", at)
	server, address = s.serve(layout)
	s.complete(address, []pushed{one})
	server.stop()
}

// A process that runs out of file descriptors refuses for a while, and loses nothing.
func TestFileDescriptorsRunOut(t *testing.T) {
	s := newShell(t)
	layout := s.path("layout")
	server := s.start("sh", "-c", `ulimit -n 40; exec "$0" serve --addr 127.0.0.1:0 --layout "$1"`, program(s.T, "berth"), layout)
	address := server.await(&server.stdout, servingLine)
	var all []pushed
	for i := range 2 {
		idle := s.connections(address, 30)
		one, err := s.pushInto(address, "app/hello", fmt.Sprint("v", i))
		for _, conn := range idle {
			conn.Close()
		}
		if err == nil {
			all = append(all, one)
		}
	}
	one, err := s.pushInto(address, "app/hello", "last")
	s.check(err)
	all = append(all, one)
	s.complete(address, all)
	server.stop()
	s.listed(layout, all)
	s.Logf("%d pushes were answered", len(all))
}

// connections opens some connections that ask nothing.
func (s *shell) connections(address string, n int) (all []net.Conn) {
	s.Helper()
	for range n {
		if conn, err := net.Dial("tcp", address); err == nil {
			all = append(all, conn)
		}
	}
	return all
}
