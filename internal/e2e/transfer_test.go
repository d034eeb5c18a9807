//go:build linux

package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// bigLayer is more than a client sends or a server keeps in one piece.
const bigLayer = 101 << 20

// What goes in by one program comes out by others as the same bytes, and lies in the directory for
// those who read that.
func TestABigImageComesOutAsItWentIn(t *testing.T) {
	s := newShell(t)
	made, layout := s.path("made"), s.path("layout")
	root := s.umociImage(made, "v1", 20<<10, bigLayer, 3<<20)
	if blobs := s.blobsOf(made); len(blobs) != 5 {
		t.Fatalf("umoci made %d blobs, not a manifest, a config and three layers", len(blobs))
	}
	server, address := s.serve(layout)
	ref := address + "/app/big:v1"
	s.must("skopeo", "copy", "oci:"+made+":v1", "docker://"+ref, "--dest-tls-verify=false")

	s.poll("app/big:v1 in index.json", func() bool { return slices.Contains(s.namesOf(layout), "app/big:v1") })
	if got := s.skopeoDigest("oci:" + layout + ":app/big:v1"); got != string(root) {
		t.Errorf("skopeo reads %s in the directory, want %s", got, root)
	}
	s.sameBlobs(made, layout)

	pulled := s.path("crane")
	s.must("crane", "pull", "--format=oci", ref, pulled)
	s.sameImage(made, pulled)

	copied := s.path("regctl")
	s.must("regctl", "--host", "reg="+address+",tls=disabled", "image", "copy", ref, "ocidir://"+copied+":v1")
	s.sameImage(made, copied)

	server.stop()
	s.sameBlobs(made, layout)
}

// skopeoDigest is the digest that skopeo finds at a place.
func (s *shell) skopeoDigest(place string) string {
	s.Helper()
	return s.must("skopeo", "inspect", "--format", "{{.Digest}}", place)
}

// sameImage compares two layouts that hold one image each.
func (s *shell) sameImage(want, got string) {
	s.Helper()
	if wanted, found := s.rootOf(want), s.rootOf(got); wanted != found {
		s.Errorf("%s holds %s, want %s", got, found, wanted)
	}
	s.sameBlobs(want, got)
}

// A push by berth itself ends with a whole directory, and a pull gives the same image back.
func TestPushAndPullWithoutAServer(t *testing.T) {
	s := newShell(t)
	made, layout := s.path("made"), s.path("layout")
	root := s.umociImage(made, "v1", 20<<10, 3<<20)
	s.must("berth", "--layout", layout, "push", "oci:"+made+":v1", "app/hello:v1,latest")
	s.sameBlobs(made, layout)
	for _, name := range []string{"app/hello:v1", "app/hello:latest"} {
		if got := s.skopeoDigest("oci:" + layout + ":" + name); got != string(root) {
			t.Errorf("skopeo reads %s as %s, want %s", name, got, root)
		}
	}
	copied, archive := s.path("copied"), s.path("copied.tar")
	s.must("berth", "--layout", layout, "pull", "app/hello:v1", "oci:"+copied+":v1")
	s.sameImage(made, copied)
	s.must("berth", "--layout", layout, "pull", "app/hello:v1", "oci-archive:"+archive+":v1")
	if got := s.skopeoDigest("oci-archive:" + archive + ":v1"); got != string(root) {
		t.Errorf("skopeo reads %s in the archive, want %s", got, root)
	}
	umoci := s.must("umoci", "list", "--layout", copied)
	if umoci != "v1" {
		t.Errorf("umoci lists %q in %s", umoci, filepath.Join(copied, v1.ImageIndexFile))
	}
}

// Bars on a terminal begin, end, and leave the exit code and the error line as they are.
func TestPushOnATerminal(t *testing.T) {
	s := newShell(t)
	made, layout := s.path("made"), s.path("layout")
	s.umociImage(made, "v1", 20<<10, 48<<20)
	push := func(layout, source, ref string) outcome {
		return s.onTerminal(strings.Join([]string{program(t, "berth"), "--layout", layout, "push", "oci:" + made + ":" + source, ref}, " "))
	}
	out := push(layout, "v1", "app/hello:v1")
	if out.code != 0 || !strings.Contains(out.stdout, "48.0 MiB / 48.0 MiB") {
		t.Errorf("exit code %d, want 0 and full bars:\n%s", out.code, out.stdout)
	}
	s.skopeoDigest("oci:" + layout + ":app/hello:v1")
	s.wantOneLine(push(layout, "absent", "app/hello:v2"))
	s.damage(s.largestBlob(made))
	s.wantOneLine(push(s.path("other"), "v1", "app/damaged:v1"))
}

// wantOneLine makes sure that a program failed on a terminal, and told so in one line.
func (s *shell) wantOneLine(out outcome) {
	s.Helper()
	if lines := errorLines(out.stdout); out.code != 1 || len(lines) != 1 {
		s.Errorf("exit code %d, error lines %q:\n%s", out.code, lines, out.stdout)
	}
}

// onTerminal runs a command line on a terminal of its own, which has a size: in one of no width there
// is no room for bars.
func (s *shell) onTerminal(line string) outcome {
	s.Helper()
	return s.with("TERM=xterm").run("script", "--quiet", "--return", "--command", "stty cols 100 rows 30; "+line, "/dev/null")
}
