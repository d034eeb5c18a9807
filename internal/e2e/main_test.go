//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/berthoci/berth/internal/e2e/systrace"
)

// binaries is the directory of the programs that were built for this run.
var binaries string

// built are the programs of this module, by package.
var built = []string{
	"github.com/distribution/distribution/v3/cmd/registry",
	"github.com/google/go-containerregistry/cmd/crane",
	"github.com/regclient/regclient/cmd/regctl",
}

// packages are the Debian packages of the programs that must be installed.
var packages = map[string]string{"skopeo": "skopeo", "umoci": "umoci", "script": "bsdutils", "sh": "dash",
	"docker": "docker.io", "dockerd": "docker.io", "ctr": "containerd", "runc": "runc", "podman": "podman", "buildah": "buildah", "chromium": "chromium",
	"strace": systrace.Package, oldRegistry: "docker-registry", "mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mount": "mount", "umount": "mount", "xfs_io": "xfsprogs"}

func TestMain(m *testing.M) {
	actAsHost(os.Args[1:])
	actAsProber(os.Args[1:])
	actAsAlterer(os.Args[1:])
	actAsGauge(os.Args[1:])
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	if err := buildAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// buildAll builds berth in its own module, with the dependencies that it is released with.
func buildAll(dir string) error {
	if err := build(filepath.Join("..", ".."), dir, "./cmd/berth"); err != nil {
		return err
	}
	return build(".", dir, built...)
}

func build(module, dir string, packages ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", dir + string(filepath.Separator)}, packages...)...)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", packages, err, out)
	}
	return nil
}

// program finds the binary of a program.
func program(t *testing.T, name string) string {
	t.Helper()
	if pkg, installed := packages[name]; installed {
		path, err := exec.LookPath(name)
		if err != nil {
			path, err = exec.LookPath(filepath.Join("/usr/sbin", name))
		}
		if err != nil {
			t.Fatalf("%s is not installed; it is in the Debian package %s", name, pkg)
		}
		return path
	}
	if name == hostCommand || name == proberCommand || name == gaugeCommand {
		return os.Args[0]
	}
	if filepath.IsAbs(name) { // that a test has built for itself
		return name
	}
	return filepath.Join(binaries, name)
}
