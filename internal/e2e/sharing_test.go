//go:build linux

package e2e

import (
	"debug/elf"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var crowdRounds = flag.Int("crowd-rounds", 2, "rounds of each kind in which fifty processes share a layout")

// static are settings that make a binary need nothing around it.
func static(t *testing.T, out, linked string, pkg string) string {
	t.Helper()
	path := filepath.Join(out, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-tags", "grpcnotrace", "-ldflags", linked, "-o", path, pkg)
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return path
}

// A tool with berth embedded is one static binary, and fifty processes of it share one registry, in a directory where
// nothing is and with nothing on PATH; some of them, and the registry, may be killed.
func TestATooledCrowdSharesALayout(t *testing.T) {
	dir := t.TempDir()
	tool, crowd, berth := static(t, dir, "", "./examples/buildtool"), static(t, dir, "", "./cmd/crowd"), static(t, dir, "", "./cmd/berth")
	file, err := elf.Open(tool)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if libraries, err := file.ImportedLibraries(); err != nil || len(libraries) > 0 || file.Section(".interp") != nil {
		t.Errorf("the tool is not static: %q, %v", libraries, err)
	}
	for name, args := range map[string][]string{
		"one registry":                {},
		"killed":                      {"--kill", "--images", "10"},
		"in process":                  {"--launcher", "in-process"},
		"in process, killed":          {"--launcher", "in-process", "--kill", "--images", "10"},
		"a binary of its own":         {"--launcher", berth},
		"a binary of its own, killed": {"--launcher", berth, "--kill", "--images", "10"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(crowd, append(append(args, "--rounds", strconv.Itoa(*crowdRounds), "--dir", t.TempDir()), tool)...)
			cmd.Env = []string{"PATH=", "TMPDIR=" + os.TempDir()}
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// Hosts and registries of different builds share a layout, or say which builds do not go together and what to do.
func TestBuildsOfDifferentProtocols(t *testing.T) {
	tools, berths := map[string]string{}, map[string]string{}
	for _, spoken := range []string{"1", "1-2", "2"} {
		dir := t.TempDir()
		linked := "-X github.com/berthoci/berth/plugin.spoken=" + spoken
		tools[spoken], berths[spoken] = static(t, dir, linked, "./examples/buildtool"), static(t, dir, linked, "./cmd/berth")
	}
	for _, c := range []struct {
		host, plugin string
		share        bool
	}{
		{"1", "1", true}, {"1", "1-2", true}, {"1-2", "1", true}, {"1-2", "1-2", true}, {"2", "1-2", true}, {"2", "1", false}, {"1", "2", false},
	} {
		t.Run("host "+c.host+", registry "+c.plugin, func(t *testing.T) {
			layout := filepath.Join(t.TempDir(), "layout")
			s := newShell(t)
			s.must(tools[c.plugin], "-layout", layout, "-idle-timeout", "1m", "app/first:v1")
			defer s.must(berths[c.host], "stop", "--layout", layout) // any version understands that
			said, err := exec.Command(tools[c.host], "-layout", layout, "app/second:v1").CombinedOutput()
			judgeMeeting(t, c.share, c.host, c.plugin, "berth stop --layout "+layout, string(said), err)

			fresh := filepath.Join(t.TempDir(), "layout")
			said, err = exec.Command(tools[c.host], "-layout", fresh, "-launcher", berths[c.plugin], "-idle-timeout", "-1s", "app/third:v1").CombinedOutput()
			judgeMeeting(t, c.share, c.host, c.plugin, "install the berth binary", string(said), err)
		})
	}
}

// judgeMeeting demands that a host and a registry have worked together, or that one line says why not.
func judgeMeeting(t *testing.T, share bool, host, plugin, wayOut, said string, err error) {
	t.Helper()
	if share != (err == nil) {
		t.Fatalf("%v: %s", err, said)
	}
	if share {
		return
	}
	in := func(spoken string) string { return "(control protocol " + spoken + ")" }
	for _, part := range []string{"the registry is berth devel " + in(plugin), "this program has berth devel " + in(host), wayOut} {
		if !strings.Contains(said, part) || strings.Count(said, "\n") != 1 {
			t.Errorf("%q does not tell %q in one line", said, part)
		}
	}
}

// A layout, and what serves it, are its user's: others hear whose it is. Root may use all.
func TestALayoutOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "berth-users-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	berth := static(t, dir, "", "./cmd/berth")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	as := func(uid uint32, args ...string) (string, error) {
		cmd := exec.Command(berth, args...)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "TMPDIR=/tmp", "BERTH_IDLE_TIMEOUT=1m"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		said, err := cmd.CombinedOutput()
		return string(said), err
	}
	for owner, layout := range map[uint32]string{0: filepath.Join(dir, "roots"), nobody: filepath.Join(dir, "nobodys")} {
		if said, err := as(owner, "endpoint", "--layout", layout, "--while-pid", strconv.Itoa(os.Getpid())); err != nil {
			t.Fatal(err, said)
		}
		t.Cleanup(func() { as(owner, "stop", "--layout", layout) })
	}
	said, err := as(nobody, "ls", "--layout", filepath.Join(dir, "roots"))
	if err == nil || strings.Count(said, "\n") != 1 || !strings.Contains(said, "user 0") || !strings.Contains(said, "roots") {
		t.Errorf("nobody, at root's: %v, %s", err, said)
	}
	if said, err := as(0, "status", "--layout", filepath.Join(dir, "nobodys")); err != nil || !strings.Contains(said, "a plugin") {
		t.Errorf("root, at nobody's: %v, %s", err, said)
	}
}
