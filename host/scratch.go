package host

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

const (
	scratchPrefix = "berth-plugin-"
	// maxScratch is how long the path of the folder may be, so that a socket in it can be named: 104
	// bytes on darwin, of which go-plugin's own folder and file take up to 60.
	maxScratch = 44
	// staleScratch is the age at which a scratch directory has done its work: it is needed from the
	// start to the handshake only.
	staleScratch = 2 * startTimeout
)

// makeScratch makes the directory for go-plugin's socket. Host and plugin both remove it; what a host
// leaves that is killed before its plugin runs, the next one sweeps away.
func makeScratch() (string, error) {
	folder := os.TempDir()
	if len(folder) > maxScratch && runtime.GOOS != "windows" {
		folder = "/tmp"
	}
	sweepScratch(folder)
	dir, err := os.MkdirTemp(folder, scratchPrefix)
	if err != nil {
		return "", fmt.Errorf("temporary directory: %w; set TMPDIR to one that can be written to", err)
	}
	return dir, nil
}

// sweepScratch removes what is stale. Directories of other users do not let themselves be removed.
func sweepScratch(folder string) {
	found, err := filepath.Glob(filepath.Join(folder, scratchPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range found {
		info, err := os.Lstat(dir)
		if err == nil && info.IsDir() && time.Since(info.ModTime()) > staleScratch {
			os.RemoveAll(dir)
		}
	}
}
