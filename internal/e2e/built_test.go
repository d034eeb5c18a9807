//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the example of a build tool makes of one directory in one place, at one time, under one umask, it makes of a copy of
// it anywhere; and it runs.
func TestABuiltImageIsTheSameEverywhereAndRuns(t *testing.T) {
	needRoot(t)
	s := newShell(t)
	s.check(build(filepath.Join("..", ".."), binaries, "./examples/onefile"))
	s.check(build(".", binaries, "./step"))
	layout := s.path("layout")
	var said []string
	for _, how := range []struct{ dir, umask, zone string }{{"one", "022", "UTC"}, {"another", "077", "Asia/Tokyo"}} {
		rootfs := s.path(how.dir, "rootfs")
		s.check(os.MkdirAll(rootfs, 0o755))
		in := s.with("TZ="+how.zone, "BERTH_LAYOUT="+layout, "BERTH_IDLE_TIMEOUT=0")
		in.must("sh", "-c", "umask "+how.umask+" && mkdir "+rootfs+"/bin && cp "+program(t, "step")+" "+rootfs+"/bin/step && chmod u+x "+rootfs+"/bin/step && ln -s bin/step "+rootfs+"/run")
		said = append(said, in.must("sh", "-c", "umask "+how.umask+" && cd "+s.path(how.dir)+" && "+program(t, "onefile")+" rootfs app/step:v1 /run"))
	}
	if len(slices.Compact(said)) != 1 || !strings.HasPrefix(said[0], "app/step:v1 sha256:") {
		t.Fatalf("the same image is %q", said)
	}
	bundle := s.path("bundle")
	s.must("umoci", "unpack", "--image", layout+":app/step:v1", bundle)
	s.confine(bundle, "/run", "/result")
	s.asRoot().must("runc", "--root", filepath.Join(s.temp, "runc"), "run", "--bundle", bundle, "berth-"+filepath.Base(s.temp))
	if _, err := os.Stat(filepath.Join(bundle, "rootfs", "result")); err != nil {
		t.Errorf("it has run, and its result is not there: %v", err)
	}
}

// confine has runc start a program without what a container within a container cannot have.
func (s *shell) confine(bundle string, args ...string) {
	s.Helper()
	file := filepath.Join(bundle, "config.json")
	raw, err := os.ReadFile(file)
	s.check(err)
	var config map[string]any
	s.check(json.Unmarshal(raw, &config))
	process := config["process"].(map[string]any)
	if first := process["args"].([]any)[0]; first != args[0] {
		s.Errorf("the image starts %v, want %s", first, args[0])
	}
	process["terminal"], process["args"] = false, args
	delete(process, "rlimits")
	linux := config["linux"].(map[string]any)
	linux["namespaces"] = slices.DeleteFunc(linux["namespaces"].([]any), func(n any) bool { return n.(map[string]any)["type"] == "network" })
	s.write(file, string(s.encode(config)))
}
