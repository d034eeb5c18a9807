package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berthoci/berth/sdk/embedded"
)

// The test binary is berth, where it is called by that name; and as berth does, it is the plugin
// where berth has started it once more.
func TestMain(m *testing.M) {
	embedded.Main()
	testscript.Main(m, map[string]func(){"berth": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Setup:              alone,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"called":      called,
			"certificate": certificate,
			"clean":       clean,
			"damage":      damage,
			"digested":    digested,
			"ends":        ends,
			"exits":       exits,
			"fails":       fails,
			"fill":        fill,
			"get":         get,
			"htpasswd":    htpasswd,
			"image":       image,
			"index":       index,
			"interrupt":   interrupt,
			"login":       login,
			"names":       names,
			"occupy":      occupy,
			"referrer":    referrer,
			"schema1":     pushSchema1,
			"serve":       startServe,
			"truncate":    truncate,
			"warns":       warns,
		},
	})
}

// alone keeps a script away from what the user of this machine has, and gives it a layout. Nothing serves that
// longer than a command lasts.
func alone(env *testscript.Env) error {
	env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("BERTH_LAYOUT", filepath.Join(env.WorkDir, "layout"))
	env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, "docker"))
	env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "run"))
	env.Setenv("BERTH_IDLE_TIMEOUT", "0")
	env.Setenv("GORACE", "atexit_sleep_ms=0") // or each program waits a second for late reports
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		env.Setenv("GOCOVERDIR", dir)
	}
	env.Values[processes{}] = map[string]*running{}
	env.Values[callers{}] = map[string]chan bool{}
	return nil
}
