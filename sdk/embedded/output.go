package embedded

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/berthoci/berth/internal/control"
)

// silence gives the process's output to nobody. Whatever writes there is not kept waiting.
func silence() {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer null.Close()
	for _, descriptor := range []int{1, 2} {
		replace(descriptor, int(null.Fd()))
	}
}

// crashFile is where a process that serves a layout writes why it crashed.
const crashFile = control.Dir + "/crash"

// forgetCrashes removes the file of a process that did not crash.
func forgetCrashes(layout string) {
	name := filepath.Join(layout, crashFile)
	if info, err := os.Stat(name); err == nil && info.Size() == 0 {
		os.Remove(name)
	}
}

// keepCrashes has the runtime write there, and tells of a crash that was.
func keepCrashes(layout string, log *slog.Logger) {
	name := filepath.Join(layout, crashFile)
	if info, err := os.Stat(name); err == nil && info.Size() > 0 {
		old := name + ".old"
		log.Warn("the registry before this one has crashed", "why", old)
		os.Rename(name, old)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close() // the runtime has its own descriptor
	debug.SetCrashOutput(f, debug.CrashOptions{})
}
